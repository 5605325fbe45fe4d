"""From an empty folder into a dream: one environment all the way, and one that fails on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rnem_world.benchmarks import end_to_end
from rnem_world.benchmarks.end_to_end import CASES, REPORT, main, table, try_environment
from rnem_world.errors import ConfigError


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(end_to_end, "FRAMES", 4_000)
    monkeypatch.setattr(end_to_end, "MINUTES", 0.02)
    monkeypatch.setattr(end_to_end, "HORIZON", 10)
    monkeypatch.setattr(end_to_end, "POLICY_STEPS", 20)


def test_an_environment_of_masks_goes_all_the_way(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1] / "envs"))
    assert main(tmp_path, ["Masks"]) == 0
    report = json.loads((tmp_path / "Masks" / REPORT).read_text())
    assert report["failed"] is None
    assert [*report["seconds"]] == [
        "collect",
        "train",
        "evaluate",
        "rollout",
        "make",
        "gymnasium's check_env",
        "stable-baselines3's check_env",
        "make_vec",
        "PPO",
    ]
    assert report["frame"] == [5, 5, 5]
    assert report["updates"] > 0
    assert report["figures"]["wrong_pixels.5"] > 0
    assert report["figures"]["wrong_pixels.10"] is None  # episodes are over by then
    assert "| own_environments:Own/Masks-v0 | 5 x 5 x 5 |" in (tmp_path / "table.md").read_text()
    (tmp_path / "Masks" / "data.h5").unlink()  # what is done isn't done again
    assert main(tmp_path, ["Masks"]) == 0
    (tmp_path / "Masks" / REPORT).unlink()
    with pytest.raises(ConfigError, match=r"cut off.*remove it"):
        main(tmp_path, ["Masks"])
    assert (tmp_path / "Masks" / "run").is_dir()


def test_the_stage_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(end_to_end.CASES, "None", ("NoSuchEnvironment-v0",))
    report = try_environment("None", tmp_path / "None")
    assert report.failed is not None
    assert report.failed.startswith("collect: ")
    assert "NoSuchEnvironment-v0" in report.failed
    assert report.seconds == {}
    assert table([report]).endswith("| no: collect |\n")


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'CartPole'"):
        try_environment("Cartpole", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert len(CASES) == 15

"""Atari from the command line: training from an empty folder, evaluating, rolling out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("ale_py")

from rnem_world.agents import collecting
from rnem_world.data.dataset import Dataset
from rnem_world.training import checkpoint
from tests.envs.atari_cache import black

SMALL = {"num_train": 4, "num_valid": 2, "num_test": 3, "frames": 14, "workers": 1, "progress": False}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("atari")


@pytest.fixture
def run(place, monkeypatch, rnem):
    """Runs a command in a folder where data is collected small."""
    real = collecting.collect

    def small(environment, out, *, num_train=4, num_valid=2, num_test=3, **options):
        sizes = {"num_train": min(num_train, 4), "num_valid": min(num_valid, 2), "num_test": min(num_test, 3)}
        return real(environment, out, **options | SMALL | sizes, background=black())

    monkeypatch.setattr(collecting, "collect", small)
    monkeypatch.chdir(place)
    return lambda arguments: rnem(*arguments.split())


def test_one_command_does_everything_with_the_papers_options(run, place):
    outcome = run(
        "train --env atari --game breakout --feed-actions --hidden-size 16 --batch-size 2 --steps 3 --threads 1 "
        "--max-updates 1"
    )
    assert outcome.code == 0, outcome
    assert "no data at hand: collecting data/Breakout.h5" in outcome.out
    config = checkpoint.read_config(place / "runs" / "r_nem-4-slots-Breakout")
    assert (config.model.architecture, config.model.slots, config.model.number_of_actions) == ("conv84", 4, 4)
    assert (config.training.window, config.training.noise.strength) == ("random", 0.002)
    assert config.environment == "RNEM-AtariReal-v0"
    with Dataset.open(place / "data" / "Breakout.h5") as dataset:
        assert dataset.attributes.settings["game"] == "Breakout"


def test_the_papers_sizes_are_the_defaults():
    from rnem_world.training.presets import usual_options

    paper = usual_options("r_nem", "atari")
    assert paper["model"] == {"core": "relational", "slots": 4}
    assert (paper["training"]["sequence_steps"], paper["training"]["batch_size"]) == (25, 32)
    assert usual_options("lstm", "atari")["model"]["slots"] == 1
    assert usual_options("r_nem", "balls") == {"model": {"core": "relational", "slots": 5}}


def test_a_world_model_of_a_game(run, place):
    outcome = run(
        "train --env atari --game Breakout --world-model --hidden-size 16 --batch-size 2 --steps 12 --threads 1 "
        "--max-updates 2 --motion-weight 3"
    )
    assert outcome.code == 0, outcome
    config = checkpoint.read_config(place / "runs" / "world-Breakout")
    assert config.model.architecture == "projection84"
    assert config.model.heads
    assert config.model.number_of_actions == 4
    assert config.training.loss.motion_weight == 3.0
    outcome = run("evaluate runs/world-Breakout --imagine 6 --context 4 --threads 1")
    assert outcome.code == 0, outcome
    for words in ("Hits@1", "MRR", "best copy", "wrong pixels"):
        assert words in outcome.out
    (path,) = (place / "runs" / "world-Breakout").glob("imagination-*.json")
    figures = json.loads(path.read_text())
    assert len(figures["bce"]) == len(figures["copy_bce"]) == 6
    assert set(figures["hits"]) == {"1", "5"}
    assert figures["latent"] is None or len(figures["latent"]["bce"]) == 6
    for command in (
        "evaluate runs/world-Breakout --steps 5",
        "rollout runs/world-Breakout --context 5 --steps 6",
    ):
        outcome = run(f"{command} --threads 1")
        assert outcome.code == 0, outcome
    assert (place / "runs" / "world-Breakout" / "rollout.mp4").stat().st_size > 0


def test_test_sequences_of_a_game_by_name(run, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    run("train --env atari --game Pong --data none.h5")
    from rnem_world.cli.arguments import resolve_test_data

    path = resolve_test_data("Pong", "test")
    with Dataset.open(path) as dataset:
        assert dataset.splits == ("test",)
        assert dataset.info("test").number_of_sequences == 3
    assert resolve_test_data("Pong", "test") == path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--env atari --preset stove", ["--preset names balls", "--game"]),
        ("--game Pong", ["--env atari"]),
        ("--env atari --game Pon", ["did you mean 'Pong'"]),
        ("--env atary", ["did you mean 'atari'"]),
        ("--env atari --data none.h5", ["no dataset none.h5"]),
        ("--env atari --data Pongg", ["did you mean 'Pong'"]),
        ("--env atari --motion-weight 0", ["motion_weight is 0.0", "above 0"]),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(run, arguments, expected):
    outcome = run(f"train {arguments} --out nowhere")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    for words in expected:
        assert words in outcome.err


def test_without_ale_py_training_says_what_to_install(run, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ale_py", None)
    outcome = run("train --env atari")
    assert outcome.code == 2
    assert 'pip install "rnem-world[atari]"' in outcome.err


def test_several_processes_do_not_collect(tmp_path, monkeypatch):
    from rnem_world.cli.arguments import resolve_data, resolve_game
    from rnem_world.errors import DataError

    monkeypatch.chdir(tmp_path)
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(DataError, match="collect --env atari --game Pong` on every machine"):
        resolve_game("Pong")
    with pytest.raises(DataError, match="collect --preset stove` on every machine"):
        resolve_data("stove")
    assert not list(tmp_path.iterdir())

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from rnem_world.cli.collect import command
from rnem_world.data.dataset import Dataset
from rnem_world.errors import DependencyError, RnemWorldError
from tests.envs.atari_cache import black

SMALL = ["--num-train", "4", "--num-valid", "2", "--num-test", "2", "--frames", "5"]


def run(arguments: list[str], folder) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "rnem_world.cli.main", "collect", *arguments]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)


def test_it_says_what_it_wrote_and_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command, ["--preset", "stove", *SMALL])
    assert result.exit_code == 0, result.output
    assert "data/stove.h5: training 4, validation 2, test 2 sequences of 5 frames of 32 x 32" in result.output
    with Dataset.open(tmp_path / "data" / "stove.h5") as dataset:
        assert dataset.info("training").number_of_actions == 9


def test_shards_are_kept_on_request(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command, ["--preset", "stove", "--shards", "--shard-size", "2", *SMALL])
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "data" / "stove").glob("training-*.h5"))) == 2


def test_an_error_is_one_line_with_exit_code_2_and_leaves_nothing(tmp_path):
    result = run(["--preset", "stov", *SMALL], tmp_path)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "did you mean 'stove'" in result.stderr
    assert not list(tmp_path.iterdir())


def test_it_works_with_workers_and_refuses_to_overwrite(tmp_path):
    arguments = ["--preset", "stove", "--workers", "2", "--shard-size", "2", "--out", "x.h5", *SMALL]
    assert run(arguments, tmp_path).returncode == 0
    again = run(arguments, tmp_path)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert run([*arguments, "--overwrite"], tmp_path).returncode == 0


def run_atari(*arguments: str):
    return CliRunner().invoke(command, ["--env", "atari", *arguments])


def test_atari(tmp_path, monkeypatch):
    pytest.importorskip("ale_py")
    monkeypatch.chdir(tmp_path)
    np.save("background.npy", black())
    small = ["--num-train", "2", "--num-valid", "1", "--num-test", "0", "--frames", "6"]
    result = run_atari("--game", "breakout", "--background", "background.npy", *small)
    assert result.exit_code == 0, result.output
    assert "data/Breakout.h5: training 2, validation 1 sequences of 6 frames of 84 x 84" in result.output
    for message, arguments in (
        ("did you mean 'SpaceInvaders'", ["--game", "SpaceInvader"]),
        ("--preset is for --env balls", ["--preset", "stove"]),
        ("no policy 'randm': did you mean 'random'", ["--policy", "randm"]),
        ("there is no policy ppo.zip", ["--policy", "ppo.zip"]),
        ("--trust-policy is for a .zip", ["--trust-policy"]),
        ("--policy-frames is for a .zip", ["--policy-frames", "observations"]),
        ("already exists|exists already", ["--game", "breakout"]),
    ):
        error = run_atari(*arguments).exception
        assert isinstance(error, RnemWorldError)
        assert any(part in str(error) for part in message.split("|")), error
    error = CliRunner().invoke(command, ["--rgb"]).exception
    assert "--grayscale or --rgb is for --env atari" in str(error)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["Breakout.h5"]


def test_without_ale_py_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ale_py", None)
    error = run_atari().exception
    assert isinstance(error, DependencyError)
    assert 'pip install "rnem-world[atari]"' in str(error)
    assert not list(tmp_path.iterdir())

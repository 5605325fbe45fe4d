"""What `import rnem_world` offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rnem_world
from rnem_world.errors import ConfigError, DataError


def test_everything_offered_is_there():
    for name in rnem_world.__all__:
        assert getattr(rnem_world, name) is not None
        assert name in dir(rnem_world)
    with pytest.raises(AttributeError, match="no attribute 'wolrd'"):
        rnem_world.wolrd  # noqa: B018


def test_importing_takes_no_torch_and_little_time():
    program = (
        "import time; import rnem_world, sys; assert 'torch' not in sys.modules and 'h5py' not in sys.modules; "
        "print(time.process_time())"
    )
    seconds = [
        float(
            subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
        )
        for _ in range(3)
    ]
    assert min(seconds) < 0.4  # 0.1 on an idle machine, with the interpreter's own start


def test_figures_are_those_of_the_command(trained_run, discs_file, rnem, tmp_path):
    outcome = rnem(
        "evaluate",
        trained_run,
        "--data",
        discs_file,
        "--noise-probability",
        0,
        "--out",
        tmp_path / "figures.json",
    )
    assert outcome.code == 0, outcome.err
    evaluation = rnem_world.evaluate(trained_run, discs_file)
    (written,) = outcome.json_file["evaluations"]
    assert written["scores"] == pytest.approx(evaluation.scores, nan_ok=True)
    assert written["curves"]["loss"] == pytest.approx(evaluation.curves["loss"])


def test_rolling_out(trained_run, discs_file):
    rollout = rnem_world.roll_out(trained_run, discs_file, sequences=[1], horizon=3)
    assert rollout.predictions.shape[:2] == (1, rollout.context + 3)
    with pytest.raises(DataError, match="the sequences 0 to 5"):
        rnem_world.roll_out(trained_run, discs_file, sequences=[6], horizon=2)
    with pytest.raises(ConfigError, match="choose fewer"):
        rnem_world.roll_out(trained_run, discs_file, horizon=100)

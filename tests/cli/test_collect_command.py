from __future__ import annotations

import subprocess
import sys

from click.testing import CliRunner

from rnem_world.cli.collect import command
from rnem_world.data.dataset import Dataset

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

"""The table of options taken out one by one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rnem_world.benchmarks.options import COLUMNS, read_figures, table
from rnem_world.errors import DataError


def measured(folder: Path, variant: str, seed: int, error: float, **figures: object) -> None:
    run = folder / f"options-{variant}-{seed}"
    run.mkdir(parents=True)
    errors = [error * (1 + number) for number in range(20)]
    (run / "imagination.json").write_text(json.dumps({"position_errors": errors, **figures}))


def cells(text: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert len({len(row) for row in rows}) == 1
    return {row[0]: row[1:] for row in rows[2:]}


def test_means_ranges_and_ratios_of_the_same_seed(tmp_path):
    for seed, error in enumerate((0.1, 0.3)):
        measured(tmp_path, "all", seed, error, fg_ari=0.9)
        measured(tmp_path, "error-only", seed, error * (2 + seed))
    measured(tmp_path, "no-rare", 2, 0.2)
    rows = cells(table(read_figures(tmp_path, ["no-rare", "all"])))
    assert list(rows) == ["no-rare", "all", "error-only"]
    assert rows["all"][:3] == ["2", "0.2 (0.1 to 0.3)", "1 (0.5 to 1.5)"]
    assert rows["all"][1 + [name for name, _ in COLUMNS].index("FG-ARI")] == "0.9 (0.9 to 0.9)"
    assert rows["error-only"][-1] == "2.5 (2 to 3)"
    assert rows["no-rare"][:2] == ["1", "0.2"]
    assert (rows["all"][-1], rows["no-rare"][-1]) == ("-", "-"), "nothing of the same seed to compare with"


def test_a_measure_that_is_missing_is_a_dash(tmp_path):
    run = tmp_path / "options-all-0"
    run.mkdir()
    (run / "imagination.json").write_text(json.dumps({"position_errors": [0.25], "reward_precision": None}))
    assert cells(table(read_figures(tmp_path)))["all"] == ["1", "0.25", *["-"] * 10]


@pytest.mark.parametrize("text", [None, "{"])
def test_nothing_measured_or_unreadable_is_told(tmp_path, text):
    if text is not None:
        (tmp_path / "options-all-0").mkdir()
        (tmp_path / "options-all-0" / "imagination.json").write_text(text)
    with pytest.raises(DataError, match="world_options"):
        read_figures(tmp_path)
    told = subprocess.run(
        [sys.executable, "-m", "rnem_world.benchmarks.options", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 1
    assert "world_options" in told.stderr
    assert "Traceback" not in told.stderr

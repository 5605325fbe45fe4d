"""What each option of a world model is worth: short runs with all of them beside runs with one taken out.

``scripts/experiments/world_options`` trains and measures the runs;
``python -m rnem_world.benchmarks.options FOLDER`` lays out what is there.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rnem_world.benchmarks.claim_report import look_up
from rnem_world.errors import DataError, RnemWorldError

# The run that the others are compared with.
WHOLE = "all"
# What they are compared by: the position error after five frames.
COMPARED = "position_errors.4"
# Columns: what it is called, and where `rnem-world evaluate --imagine` writes it, by `look_up`'s path.
COLUMNS: tuple[tuple[str, str], ...] = (
    ("position error after 1", "position_errors.0"),
    ("5", "position_errors.4"),
    ("10", "position_errors.9"),
    ("20", "position_errors.19"),
    ("player's after 10", "player_errors.9"),
    ("balls there after 20", "alive.19"),
    ("FG-ARI", "fg_ari"),
    ("shuffled over true actions", "shuffled_ratio"),
    ("reward's average precision, watching", "reward_precision_watching"),
    ("imagining", "reward_precision"),
)

Figures = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""By variant and seed, what was measured."""


def read_figures(folder: Path, variants: Sequence[str] = ()) -> Figures:
    """Reads what has been measured.

    Args:
        folder: Where the runs are, ``options-VARIANT-SEED``.
        variants: In which order; those that aren't named come last, by name.

    Raises:
        DataError: If there is none, or a file can't be read.
    """
    found: dict[str, dict[int, Mapping[str, Any]]] = {variant: {} for variant in variants}
    for path in sorted(folder.glob("options-*/imagination.json")):
        parts = re.fullmatch(r"options-(.+)-(\d+)", path.parent.name)
        if parts is None:
            continue
        try:
            measured = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path} can't be read: {error}. Delete it, and run world_options again"
            ) from None
        found.setdefault(parts[1], {})[int(parts[2])] = measured
    if not any(found.values()):
        raise DataError(
            f"{folder} has no options-VARIANT-SEED/imagination.json: scripts/experiments/world_options writes them"
        )
    return {variant: seeds for variant, seeds in found.items() if seeds}


def table(figures: Figures) -> str:
    """Lays the figures out as a Markdown table: the mean over the seeds, and from where to where they go.

    The last column is the error after five frames over that of the run with all options, seed by seed.

    Args:
        figures: What was measured.
    """
    heads = ["", "seeds", *(name for name, _ in COLUMNS), "error after 5 over that with all"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    whole = figures.get(WHOLE, {})
    for variant, seeds in figures.items():
        cells = [_range([_pick(each, path) for each in seeds.values()]) for _, path in COLUMNS]
        ratios = [
            _pick(each, COMPARED) / _pick(whole[seed], COMPARED)
            for seed, each in seeds.items()
            if seed in whole and variant != WHOLE
        ]
        lines.append(f"| {variant} | {len(seeds)} | {' | '.join(cells)} | {_range(ratios)} |")
    return "\n".join(lines) + "\n"


def _pick(measured: Mapping[str, Any], path: str) -> float:
    """Takes a figure; NaN if it wasn't measured, or not for so many frames."""
    value = look_up(measured, path)
    return float("nan") if value is None else float(value)


def _range(values: Sequence[float]) -> str:
    """Writes a mean and the least and greatest value."""
    known = np.array([value for value in values if np.isfinite(value)])
    if not len(known):
        return "-"
    mean = f"{known.mean():.3g}"
    return mean if len(known) == 1 else f"{mean} ({known.min():.3g} to {known.max():.3g})"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("give a folder: python -m rnem_world.benchmarks.options FOLDER [VARIANT ...]")
    try:
        print(table(read_figures(Path(sys.argv[1]), sys.argv[2:])), end="")
    except RnemWorldError as error:
        sys.exit(str(error))

"""The record of a loop: its configuration and a row for each round, as a file and as text."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rnem_world.agents.loop_config import LoopConfig
from rnem_world.config import build
from rnem_world.errors import CheckpointError
from rnem_world.io import write_json

LOOP_FILE = "loop.json"


def write_loop(folder: Path, config: LoopConfig, rows: list[dict[str, Any]]) -> None:
    """Writes a loop's configuration and its rows.

    Raises:
        OutputError: If they can't be written.
    """
    write_json(folder / LOOP_FILE, {"config": asdict(config), "rounds": rows})


def read_loop(folder: Path) -> tuple[LoopConfig, list[dict[str, Any]]]:
    """Reads a loop's configuration and its rows.

    Raises:
        CheckpointError: If there is none, or it is broken.
    """
    path = folder / LOOP_FILE
    try:
        values = json.loads(path.read_text())
        return build(LoopConfig, values["config"]), list(values["rounds"])
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} holds no loop to resume (no {LOOP_FILE}): run without --resume"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is broken: {error}") from error


def loop_table(rows: list[dict[str, Any]]) -> list[str]:
    """Lays rounds out as lines of text."""
    names = ("round", "real transitions", "return", "in the dream", "normalised", "p against stay")
    table = [names]
    for row in rows:
        score = row["normalised_score"]
        table.append(
            (
                str(row["round"] + 1),
                f"{row['real_transitions']:,}",
                f"{row['return']:.2f} +- {row['standard_error']:.2f}",
                f"{row['dream_return']:.2f}",
                "-" if score is None else f"{score:.2f}",
                f"{row['p_value_against_stay']:.2g}",
            )
        )
    return [
        "  ".join(cell.rjust(max(len(name), 16)) for cell, name in zip(row, names, strict=True))
        for row in table
    ]

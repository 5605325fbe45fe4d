"""A run's folder: which checkpoints it has, which is the best, and what may go.

Names and files only; what is in a checkpoint is the business of :mod:`rnem_world.training.checkpoint`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from rnem_world.errors import CheckpointError, suggest
from rnem_world.io import write_json, writing

CONFIG_FILE, MODEL_FILE, TRAINER_FILE = "config.json", "model.safetensors", "trainer.pt"
CHECKPOINTS, BEST_FILE = "checkpoints", "best.json"
# The name of a checkpoint that is being replaced, within a temporary folder.
DISPLACED = "old"
PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained"
_NAME = re.compile(r"update-\d+")


def pretrained_names() -> list[str]:
    """Lists the worlds that are shipped with the package."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"*/{CONFIG_FILE}"))


def updates_of(run: Path) -> list[Path]:
    """Lists a run's checkpoints, the oldest first."""
    return sorted(path for path in (run / CHECKPOINTS).glob("update-*") if _NAME.fullmatch(path.name))


def best_of(run: Path) -> Path | None:
    """Finds a run's best checkpoint; None if there is none yet, or it was deleted.

    Raises:
        CheckpointError: If ``best.json`` is broken.
    """
    path = run / BEST_FILE
    try:
        values = json.loads(path.read_text())
        best = run / CHECKPOINTS / str(values["checkpoint"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is broken ({error}): delete it, or name a checkpoint in {run / CHECKPOINTS}"
        ) from error
    return best if (best / MODEL_FILE).is_file() else None


def write_best(run: Path, name: str, loss: float, epoch: int) -> None:
    """Says in ``best.json`` which checkpoint is the best.

    Raises:
        OutputError: If it can't be written.
    """
    write_json(run / BEST_FILE, {"checkpoint": name, "validation_loss": loss, "epoch": epoch})


def forget_best(run: Path) -> None:
    """Removes ``best.json``.

    Raises:
        OutputError: If it can't be removed.
    """
    with writing(run / BEST_FILE):
        (run / BEST_FILE).unlink(missing_ok=True)


def find_checkpoint(path: str | Path, prefer: str = "best") -> Path:
    """Finds the checkpoint folder that a path or a shipped name means.

    Args:
        path: A checkpoint, a run (then its best or last checkpoint), or the name of a shipped world.
        prefer: ``best`` or ``last``.

    Raises:
        CheckpointError: If there is none.
    """
    folder = Path(path)
    if (folder / MODEL_FILE).is_file():
        return folder
    updates = updates_of(folder)
    if updates:
        best = best_of(folder) if prefer == "best" else None
        return updates[-1] if best is None else best
    shipped = PRETRAINED / str(path)
    if len(folder.parts) == 1 and (shipped / MODEL_FILE).is_file():
        return shipped
    if folder.exists():
        raise CheckpointError(f"{folder} holds no checkpoint (no {MODEL_FILE} and no {CHECKPOINTS}/update-*)")
    known = pretrained_names()
    hint = f"; of the shipped worlds: {suggest(str(path), known)}" if known else ""
    raise CheckpointError(
        f"there is no checkpoint at {folder}: give a run folder or a checkpoint folder{hint}"
    )


def put_back(run: Path) -> None:
    """Puts a checkpoint back whose replacement a killed run didn't finish."""
    for displaced in (run / CHECKPOINTS).glob(f".*.tmp/{DISPLACED}"):
        place = run / CHECKPOINTS / displaced.parent.name.split(".")[1]
        if not place.exists():
            with suppress(OSError):
                os.replace(displaced, place)


def prune(run: Path, keep: int, protect: set[str]) -> None:
    """Deletes all but the latest ``keep`` checkpoints, the protected ones, and what a killed run left half-written."""
    put_back(run)
    for orphan in (run / CHECKPOINTS).glob(".*.tmp"):
        shutil.rmtree(orphan, ignore_errors=True)
    for folder in updates_of(run)[:-keep]:
        if folder.name not in protect:
            # Renamed first, so that no half-deleted folder ever bears a checkpoint's name.
            doomed = folder.with_name(f".{folder.name}.tmp")
            with suppress(OSError):
                os.replace(folder, doomed)
                shutil.rmtree(doomed, ignore_errors=True)

"""The run's log: one JSON line an entry, TensorBoard beside it; a resumed run's log has no gaps and no doubles."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from rnem_world.errors import OutputError

LOG_FILE, TENSORBOARD = "log.jsonl", "tensorboard"


class RunLog:
    """Writes figures to ``log.jsonl`` and TensorBoard.

    Args:
        run: The run's folder.
        position: Bytes of ``log.jsonl`` to keep: what lies behind was written after the checkpoint that the run
            resumes from, and will be written again.
        update: The update that the run resumes from; TensorBoard forgets what came after it.

    Raises:
        OutputError: If the log can't be written.
    """

    def __init__(self, run: Path, position: int = 0, update: int = 0) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        path = run / LOG_FILE
        try:
            self._file = path.open("a")
            if path.stat().st_size > position:
                os.truncate(path, position)
            self._board = SummaryWriter(str(run / TENSORBOARD), purge_step=update + 1 if position else None)
        except OSError as error:
            raise OutputError(
                f"can't write {path}: {error.strerror or error}; choose another folder"
            ) from error

    @property
    def position(self) -> int:
        """Bytes written so far, all of them on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def write(self, kind: str, update: int, figures: Mapping[str, Any]) -> None:
        """Adds an entry.

        Args:
            kind: What is reported: ``training`` or ``validation``.
            update: The update after which it was measured.
            figures: Numbers by name; nested mappings are joined by ``/`` on TensorBoard, lists are left out there.
        """
        self._file.write(json.dumps({"kind": kind, "update": update, **figures}) + "\n")
        for name, value in _flat(figures):
            if math.isfinite(value):
                self._board.add_scalar(f"{kind}/{name}", value, update)

    def picture(self, name: str, update: int, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Adds a picture to TensorBoard."""
        self._board.add_image(name, image, update, dataformats="HWC")

    def close(self) -> None:
        """Writes out what is left."""
        self._file.close()
        self._board.close()


def _flat(figures: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    entries: list[tuple[str, float]] = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            entries += _flat(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            entries.append((prefix + name, float(value)))
    return entries


def read_log(run: Path) -> list[dict[str, Any]]:
    """Reads a run's log; an unfinished last line is left out."""
    path = run / LOG_FILE
    if not path.is_file():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]

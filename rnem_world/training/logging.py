"""The run's log: one JSON line an entry, TensorBoard beside it; a resumed run's log has no gaps and no doubles."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Mapping
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from rnem_world.io import writing

LOG_FILE, TENSORBOARD = "log.jsonl", "tensorboard"


class RunLog:
    """Writes figures to ``log.jsonl`` and TensorBoard, each entry at once.

    Args:
        run: The run's folder.
        position: Bytes of ``log.jsonl`` to keep: what lies behind was written after the checkpoint that the run
            resumes from, and will be written again.
        update: The update that the run resumes from; TensorBoard forgets what came after it.

    Raises:
        OutputError: If the log can't be written.
    """

    def __init__(self, run: Path, position: int = 0, update: int = 0) -> None:
        self._path = run / LOG_FILE
        with writing(self._path):
            self._file = self._path.open("ab", buffering=0)
            if self._path.stat().st_size > position:
                os.truncate(self._path, position)
            self._board = _EventFile(run / TENSORBOARD, update + 1)

    @property
    def position(self) -> int:
        """Bytes written so far, all of them on the disk.

        Raises:
            OutputError: If they can't be brought there.
        """
        with writing(self._path):
            os.fsync(self._file.fileno())
            return os.fstat(self._file.fileno()).st_size

    def write(self, kind: str, update: int, figures: Mapping[str, Any]) -> None:
        """Adds an entry.

        Args:
            kind: What is reported: ``training``, ``epoch`` or ``validation``.
            update: The update after which it was measured.
            figures: Numbers by name; nested mappings are joined by ``/`` on TensorBoard, lists are left out there.

        Raises:
            OutputError: If it can't be written.
        """
        with writing(self._path):
            _write_all(self._file, (json.dumps({"kind": kind, "update": update, **figures}) + "\n").encode())
        self.show(kind, update, figures)

    def show(self, kind: str, update: int, figures: Mapping[str, Any]) -> None:
        """Adds figures to TensorBoard alone.

        Raises:
            OutputError: If they can't be written.
        """
        from torch.utils.tensorboard.summary import scalar

        with writing(self._path):
            for name, value in _flat(figures):
                if math.isfinite(value):
                    self._board.write(step=update, summary=scalar(f"{kind}/{name}", value))

    def picture(self, name: str, update: int, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Adds a picture to TensorBoard.

        Raises:
            OutputError: If it can't be written.
        """
        from torch.utils.tensorboard.summary import image as picture

        with writing(self._path):
            self._board.write(step=update, summary=picture(name, image, dataformats="HWC"))

    def close(self) -> None:
        """Closes the files; all entries are written already."""
        self._file.close()
        self._board.close()


class _EventFile:
    """A TensorBoard file, written at once: TensorBoard's own writer fails in a thread, after the fact."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto import event_pb2

        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("ab", buffering=0)
        self._event = event_pb2.Event
        self.write(file_version="brain.Event:2")
        # TensorBoard forgets what earlier files say from this step on.
        self.write(step=first_step, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def write(self, **content: Any) -> None:
        """Adds an event."""
        from tensorboard.summary.writer.record_writer import RecordWriter

        buffer = BytesIO()
        RecordWriter(buffer).write(self._event(wall_time=time.time(), **content).SerializeToString())
        _write_all(self._file, buffer.getvalue())


def _write_all(file: FileIO, content: bytes) -> None:
    """Writes unbuffered, so that what fails fails here; the disk may take it in pieces."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


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

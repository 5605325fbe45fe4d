"""A run's folder: its lock, its checkpoints and which is the best, its log, and what may go."""

from __future__ import annotations

import functools
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import numpy as np
from jaxtyping import UInt8

from rnem_world.errors import CheckpointError, OutputError
from rnem_world.io import Lock, put_back_folders, remove_folder, tidy_folders, write_json, writing
from rnem_world.models.world_model import WorldModel
from rnem_world.training.checkpoint import (
    BEST_FILE,
    CHECKPOINTS,
    CONFIG_FILE,
    best_of,
    read_config,
    save_checkpoint,
    updates_of,
    write_run_config,
)
from rnem_world.training.config import RunConfig
from rnem_world.training.logging import RunLog

LOCK_FILE = "training.lock"
Arguments = ParamSpec("Arguments")


@dataclass
class RunProgress:
    """Where a run stands; together with weights and optimizer it is all that resuming needs.

    Attributes:
        epoch: Passes over the training split that are complete.
        batch: Batches of the present pass that are done.
        updates: Updates in all.
        sequences: Sequences seen in all.
        minutes: Training time in all.
        best_loss: The lowest validation loss so far, in nats a frame.
        best_epoch: The epoch that had it, 0 before the first validation.
        best_checkpoint: The name of the checkpoint that had it.
        epoch_loss: Sum of the present pass's losses.
        log_position: Bytes of the log that belong to what is counted here.
    """

    epoch: int = 0
    batch: int = 0
    updates: int = 0
    sequences: int = 0
    minutes: float = 0.0
    best_loss: float = math.inf
    best_epoch: int = 0
    epoch_loss: float = 0.0
    log_position: int = 0
    best_checkpoint: str = ""


def _by_the_first(
    method: Callable[Concatenate[RunFolder, Arguments], None],
) -> Callable[Concatenate[RunFolder, Arguments], None]:
    """Makes a method do nothing in all processes but the one that writes."""

    @functools.wraps(method)
    def guarded(self: RunFolder, /, *arguments: Arguments.args, **options: Arguments.kwargs) -> None:
        if self.writes:
            method(self, *arguments, **options)

    return guarded


class RunFolder:
    """Writes into a run's folder, which only one training at a time may have.

    The folder holds ``config.json``, ``log.jsonl``, ``tensorboard/``, ``checkpoints/update-*`` (the latest ones and
    the best) and ``checkpoints/epoch-*`` (those of ``save_epochs``), and ``best.json``, which names the best.

    Args:
        path: The folder.
        model: The model that is trained.
        config: The run.
        writes: Whether this process writes at all; of several only the first does.
    """

    def __init__(self, path: Path, model: WorldModel, config: RunConfig, writes: bool = True) -> None:
        self.path, self.writes = path.absolute(), writes
        self._model, self._config = model, config
        self._lock = Lock(self.path / LOCK_FILE, f"{path} is being trained")
        self._log: RunLog | None = None
        self._last_save = time.monotonic()

    @contextmanager
    def created(self) -> Iterator[None]:
        """Makes the folder of a new run and takes its lock; if the block fails, what wasn't there before is removed.

        Raises:
            OutputError: If a run is in the way, another training has the folder, or it can't be made.
        """
        if not self.writes:
            yield
            return
        made = next(
            (folder for folder in (*reversed(self.path.parents), self.path) if not folder.exists()), None
        )
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        before = set(self.path.iterdir())
        self._lock.acquire()
        try:
            self._check_free()
            write_run_config(self.path, self._config)
            yield
        except BaseException:
            self._lock.release()
            for path in [made] if made is not None else set(self.path.iterdir()) - before:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            raise

    def _check_free(self) -> None:
        """Refuses a folder with things to lose; what a run left before its first checkpoint may go."""
        if updates_of(self.path):
            raise OutputError(
                f"{self.path} already holds a run: continue it with --resume, or choose another folder with --out"
            )
        if (self.path / CONFIG_FILE).is_file():
            try:
                read_config(self.path)
            except CheckpointError as error:
                raise OutputError(
                    f"{error}; it would be overwritten: choose another folder with --out"
                ) from error

    @_by_the_first
    def reopen(self) -> None:
        """Takes the lock of a run that goes on, and puts back a checkpoint whose replacement was interrupted.

        Raises:
            OutputError: If another training has the folder.
        """
        if self.path.is_dir():
            self._lock.acquire()
        put_back_folders(self.path / CHECKPOINTS)

    @_by_the_first
    def reconfigure(self) -> None:
        """Writes the configuration with which a run goes on."""
        write_run_config(self.path, self._config)

    @_by_the_first
    def note_settle_steps(self, progress: RunProgress, steps: int) -> None:
        """Keeps how often slots are to be shown a first frame, with the run, the present checkpoint and later ones."""
        self._config = replace(self._config, settle_steps=steps)
        self.reconfigure()
        folder = self.checkpoint(progress)
        if folder.is_dir():
            write_run_config(folder, self._config)

    @_by_the_first
    def begin(self, progress: RunProgress) -> None:
        """Takes the lock, if this run doesn't have it yet, and tidies up before a sitting."""
        self._lock.acquire()
        self._prune(progress)
        self._last_save = time.monotonic()

    def close(self) -> None:
        """Closes the log and gives the lock back."""
        if self._log is not None:
            self._log.close()
            self._log = None
        self._lock.release()

    @_by_the_first
    def log(self, kind: str, progress: RunProgress, figures: Mapping[str, Any]) -> None:
        """Adds an entry to the log and to TensorBoard."""
        self._opened(progress).write(kind, progress.updates, figures)

    @_by_the_first
    def log_speed(self, progress: RunProgress, figures: Mapping[str, float]) -> None:
        """Shows on TensorBoard what depends on the machine, and has no place in a log that can be reproduced."""
        self._opened(progress).show("speed", progress.updates, figures)

    @_by_the_first
    def picture(
        self, name: str, progress: RunProgress, draw: Callable[[], UInt8[np.ndarray, "h w 3"]]
    ) -> None:
        """Draws a picture for TensorBoard."""
        self._opened(progress).picture(name, progress.updates, draw())

    def _opened(self, progress: RunProgress) -> RunLog:
        if self._log is None:
            self._log = RunLog(self.path, progress.log_position, progress.updates)
        return self._log

    @_by_the_first
    def save(
        self, progress: RunProgress, learner: Callable[[], dict[str, Any]], is_best: bool = False
    ) -> None:
        """Writes a checkpoint and deletes those that are superseded.

        Args:
            progress: Where the run stands.
            learner: Gives the learner's state.
            is_best: Whether it is the best so far.
        """
        if self._log is not None:
            progress.log_position = self._log.position
        trainer = {**learner(), "progress": asdict(progress)}
        save_checkpoint(self.checkpoint(progress), self._model, self._config, trainer)
        if is_best:
            self.write_best(progress, progress.best_loss)
        self._prune(progress)
        self._last_save = time.monotonic()

    def save_is_due(self) -> bool:
        """Whether the last checkpoint is old enough for another."""
        age = time.monotonic() - self._last_save
        return self.writes and age > 60.0 * self._config.training.checkpoint_minutes

    @_by_the_first
    def keep_epoch(self, progress: RunProgress) -> None:
        """Writes the weights of an epoch that is kept whatever comes after."""
        kept = self.checkpoint(progress).with_name(f"epoch-{progress.epoch:04d}")
        save_checkpoint(kept, self._model, self._config)

    @_by_the_first
    def write_best(self, progress: RunProgress, loss: float) -> None:
        """Says that the present checkpoint is the best."""
        self._write_best(self.checkpoint(progress).name, loss, progress.epoch)

    @_by_the_first
    def restore_best(self, progress: RunProgress) -> None:
        """Makes ``best.json`` name what was best when the resumed checkpoint was saved.

        A run may have been killed before it could write that; or it ended with a validation in the middle of an epoch,
        which a run that goes on doesn't have.
        """
        best = best_of(self.path)
        if progress.best_epoch and not progress.best_checkpoint and best is not None:
            progress.best_checkpoint = best.name
        if progress.best_checkpoint:
            self._write_best(progress.best_checkpoint, progress.best_loss, progress.best_epoch)
        elif not progress.best_epoch:
            with writing(self.path / BEST_FILE):
                (self.path / BEST_FILE).unlink(missing_ok=True)

    def _write_best(self, name: str, loss: float, epoch: int) -> None:
        values = {"checkpoint": name, "validation_loss": loss, "epoch": epoch}
        write_json(self.path / BEST_FILE, values)

    def checkpoint(self, progress: RunProgress) -> Path:
        """The folder of the present checkpoint."""
        return self.path / CHECKPOINTS / f"update-{progress.updates:09d}"

    def _prune(self, progress: RunProgress) -> None:
        prune(self.path, self._config.training.keep_checkpoints, {progress.best_checkpoint})


def prune(run: Path, keep: int, protect: set[str]) -> None:
    """Deletes all but the latest ``keep`` checkpoints, the protected ones, and what a killed run left half-written."""
    tidy_folders(run / CHECKPOINTS)
    for folder in updates_of(run)[:-keep]:
        if folder.name not in protect:
            remove_folder(folder)

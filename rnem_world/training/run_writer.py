"""All that a training writes into its run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from rnem_world.models.world_model import WorldModel
from rnem_world.training import checkpoint, run_folder
from rnem_world.training.config import RunConfig
from rnem_world.training.logging import RunLog
from rnem_world.training.progress import Progress


class RunWriter:
    """Writes checkpoints, the log, and which checkpoint is the best.

    The folder holds ``config.json``, ``log.jsonl``, ``tensorboard/``, ``checkpoints/update-*`` (the latest ones and
    the best) and ``checkpoints/epoch-*`` (those of ``save_epochs``), and ``best.json``, which names the best.

    Args:
        run: The run's folder.
        model: The model that is trained.
        config: The run.
        writes: Whether this process writes at all; of several only the first does.
    """

    def __init__(self, run: Path, model: WorldModel, config: RunConfig, writes: bool) -> None:
        self.run, self.writes = run, writes
        self._model, self._config = model, config
        self._log: RunLog | None = None
        self._last_save = time.monotonic()

    def begin(self, progress: Progress) -> None:
        """Tidies up before a sitting."""
        if self.writes:
            run_folder.prune(self.run, self._config.training.keep_checkpoints, {progress.best_checkpoint})
        self._last_save = time.monotonic()

    def close(self) -> None:
        """Closes the log."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def log(self, kind: str, progress: Progress, figures: Mapping[str, Any]) -> None:
        """Adds an entry to the log and to TensorBoard."""
        if self.writes:
            self._opened(progress).write(kind, progress.updates, figures)

    def log_speed(self, progress: Progress, figures: Mapping[str, float]) -> None:
        """Shows on TensorBoard what depends on the machine, and has no place in a log that can be reproduced."""
        if self.writes:
            self._opened(progress).show("speed", progress.updates, figures)

    def picture(self, progress: Progress, draw: Callable[[], UInt8[np.ndarray, "h w 3"]]) -> None:
        """Draws a picture for TensorBoard."""
        if self.writes:
            self._opened(progress).picture("overview", progress.updates, draw())

    def save(self, progress: Progress, learner: Callable[[], dict[str, Any]], is_best: bool = False) -> None:
        """Writes a checkpoint and deletes those that are superseded.

        Args:
            progress: Where the run stands.
            learner: Gives the learner's state.
            is_best: Whether it is the best so far.
        """
        if not self.writes:
            return
        if self._log is not None:
            progress.log_position = self._log.position
        folder = self.folder(progress)
        trainer = {**learner(), "progress": vars(replace(progress))}
        checkpoint.save_checkpoint(folder, self._model, self._config, trainer)
        if is_best:
            self.write_best(progress, progress.best_loss)
        run_folder.prune(self.run, self._config.training.keep_checkpoints, {progress.best_checkpoint})
        self._last_save = time.monotonic()

    def save_is_due(self) -> bool:
        """Whether the last checkpoint is old enough for another."""
        return (
            self.writes
            and time.monotonic() - self._last_save > 60.0 * self._config.training.checkpoint_minutes
        )

    def keep_epoch(self, progress: Progress) -> None:
        """Writes the weights of an epoch that is kept whatever comes after."""
        if self.writes:
            kept = self.folder(progress).with_name(f"epoch-{progress.epoch:04d}")
            checkpoint.save_checkpoint(kept, self._model, self._config)

    def write_best(self, progress: Progress, loss: float) -> None:
        """Says that the present checkpoint is the best."""
        if self.writes:
            run_folder.write_best(self.run, self.folder(progress).name, loss, progress.epoch)

    def restore_best(self, progress: Progress) -> None:
        """Makes ``best.json`` name what was best when the resumed checkpoint was saved.

        A run may have been killed before it could write that; or it ended with a validation in the middle of an epoch,
        which a run that goes on doesn't have.
        """
        if not self.writes:
            return
        best = run_folder.best_of(self.run)
        if progress.best_epoch and not progress.best_checkpoint and best is not None:
            progress.best_checkpoint = best.name
        if progress.best_checkpoint:
            run_folder.write_best(self.run, progress.best_checkpoint, progress.best_loss, progress.best_epoch)
        elif not progress.best_epoch:
            run_folder.forget_best(self.run)

    def folder(self, progress: Progress) -> Path:
        """The folder of the present checkpoint."""
        return self.run / run_folder.CHECKPOINTS / f"update-{progress.updates:09d}"

    def _opened(self, progress: Progress) -> RunLog:
        if self._log is None:
            self._log = RunLog(self.run, progress.log_position, progress.updates)
        return self._log

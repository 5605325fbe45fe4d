"""The training loop: epochs of updates, validation, checkpoints, and an end that loses nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

from rnem_world.data.batch import Batch
from rnem_world.data.loader import SequenceLoader
from rnem_world.errors import CheckpointError, TrainingError
from rnem_world.evaluation.evaluate import Evaluation, EvaluationConfig, evaluate, unit_frames
from rnem_world.evaluation.pictures import overview
from rnem_world.evaluation.plots import figure_to_array
from rnem_world.models.rollout import roll_out
from rnem_world.models.world_model import WorldModel
from rnem_world.options import build
from rnem_world.seeding import torch_generator
from rnem_world.training import checkpoint
from rnem_world.training.config import RunConfig, TrainingConfig
from rnem_world.training.learner import Learner
from rnem_world.training.logging import RunLog
from rnem_world.training.progress import Progress


class _Stopped(Exception):  # noqa: N818
    """A signal came during the validation."""


class Trainer:
    """Trains a model and keeps its run folder.

    The folder holds ``config.json``, ``log.jsonl``, ``tensorboard/``, ``checkpoints/update-*`` (the latest ones and
    the best) and ``checkpoints/epoch-*`` (those of ``save_epochs``), and ``best.json``, which names the best.

    Args:
        model: The model, on its device.
        config: The run.
        run: Its folder.
        training: Gives the training batches.
        validation: Gives the validation batches.
        report: Receives one line now and then, for people.

    Attributes:
        signal: The number of the signal that ended training, None if none did.
    """

    def __init__(
        self,
        model: WorldModel,
        config: RunConfig,
        run: Path,
        training: SequenceLoader,
        validation: SequenceLoader,
        report: Callable[[str], None],
    ) -> None:
        self.model, self.config, self.run = model, config, run
        self.training, self.validation, self.report = training, validation, report
        self.options: TrainingConfig = config.training
        self.device = next(model.parameters()).device
        self.progress = Progress()
        self.learner = Learner(model, config)
        self._log: RunLog | None = None
        self.signal: int | None = None
        self._stop_reason: str | None = None
        self._sitting_start = self._last_save = time.monotonic()
        self._sitting_minutes = 0.0

    @property
    def log(self) -> RunLog:
        """The run's log, opened when it is first written."""
        if self._log is None:
            self._log = RunLog(self.run, self.progress.log_position, self.progress.updates)
        return self._log

    def begin(self) -> None:
        """Reads the data, and saves the first checkpoint of a new run.

        Raises:
            DataError: If the data is damaged.
            OutputError: If the checkpoint can't be written.
        """
        for loader in (self.training, self.validation):
            loader.epoch(0)
        self._save()

    def resume(self) -> None:
        """Continues from the run's latest checkpoint.

        The learning rate is the configuration's, which may have changed since.

        Raises:
            CheckpointError: If there is none, or it is broken.
        """
        checkpoint.put_back(self.run)
        folders = checkpoint.updates_of(self.run)
        if not folders:
            raise CheckpointError(f"{self.run} holds no checkpoint to resume from: train without --resume")
        state = checkpoint.load_trainer(folders[-1])
        checkpoint.load_weights(self.model, folders[-1])
        try:
            self.learner.load_state_dict(state)
            self.progress = build(Progress, state["progress"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"the training state in {folders[-1]} doesn't fit this run ({error}): delete that folder to resume "
                "an older checkpoint"
            ) from error
        self._restore_best()
        self.report(f"resumed after update {self.progress.updates} ({self.progress.minutes:.1f} min so far)")

    def _restore_best(self) -> None:
        """Makes ``best.json`` name what was best when the resumed checkpoint was saved.

        A run may have been killed before it could write that; or it ended with a validation in the middle of an epoch,
        which a run that goes on doesn't have.
        """
        progress = self.progress
        best = checkpoint.best_of(self.run)
        if progress.best_epoch and not progress.best_checkpoint and best is not None:
            progress.best_checkpoint = best.name
        if progress.best_checkpoint:
            self._write_best(progress.best_checkpoint, progress.best_loss, progress.best_epoch)
        elif not progress.best_epoch:
            with checkpoint.writing(self.run / checkpoint.BEST_FILE):
                (self.run / checkpoint.BEST_FILE).unlink(missing_ok=True)

    def _write_best(self, name: str, loss: float, epoch: int) -> None:
        checkpoint.write_json(
            self.run / checkpoint.BEST_FILE, {"checkpoint": name, "validation_loss": loss, "epoch": epoch}
        )

    def fit(self) -> Evaluation | None:
        """Trains until an end is reached: epochs, patience, ``max_updates``, ``max_minutes``, or a signal.

        An epoch ends with a validation. Where ``max_updates`` ends one early there is a validation too, so that there
        is a best checkpoint; a run that is resumed there goes on as if that hadn't been.

        Returns:
            The last validation, if there was any.

        Raises:
            TrainingError: If the loss is NaN or infinite; the last good checkpoint stays.
            OutputError: If a checkpoint can't be written.
        """
        checkpoint.prune(self.run, self.options.keep_checkpoints, self._protected())
        self._sitting_start = self._last_save = time.monotonic()
        self._sitting_minutes = self.progress.minutes
        evaluation = None
        try:
            with self._signals():
                while (end := self._end()) is None:
                    self._run_batches()
                    if self._stop_reason is None and self.progress.batch == len(self.training):
                        evaluation = self._complete_epoch()
                if self._stop_reason is None and self.progress.batch > 0:
                    evaluation = self._validate_midway()
            self.report(f"stopped after update {self.progress.updates}: {self._stop_reason or end}")
        finally:
            if self._log is not None:
                self._log.close()
                self._log = None
        return evaluation

    def _end(self) -> str | None:
        """Says why training ends here, if it does."""
        progress, options = self.progress, self.options
        if self._stop_reason is not None:
            return self._stop_reason
        if progress.epoch >= options.epochs:
            return f"all {progress.epoch} epochs done"
        if progress.epoch - progress.best_epoch >= options.patience and progress.best_epoch > 0:
            return f"no better validation loss for {options.patience} epochs"
        if self._limit_reached() and progress.batch < len(self.training):
            return f"{progress.updates} updates done"
        return None

    def _limit_reached(self) -> bool:
        limit = self.options.max_updates
        return limit is not None and self.progress.updates >= limit

    def _run_batches(self) -> None:
        """Runs what is left of an epoch's batches, or as many of them as may be."""
        progress, options = self.progress, self.options
        batches = self.training.epoch(progress.epoch, progress.batch)
        bar = tqdm(
            batches,
            desc=f"epoch {progress.epoch + 1}",
            total=len(self.training),
            initial=progress.batch,
            unit="update",
            disable=None,
        )
        figures: dict[str, float] = {}
        for batch in bar:
            started = time.monotonic()
            figures |= self._learn(batch)
            progress.batch += 1
            seconds = time.monotonic() - started
            frames = batch.frames.shape[0] * options.sequence_steps
            figures["frames_per_second"] = frames / seconds
            progress.minutes = self._sitting_minutes + (time.monotonic() - self._sitting_start) / 60.0
            bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items()})
            self._stop_if_due()
            is_over = self._stop_reason is not None or self._limit_reached()
            if is_over or self._save_is_due():
                self._save()
                latest = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
                self.report(f"update {progress.updates} ({progress.minutes:.1f} min): {latest}")
            if is_over:
                bar.close()
                return

    def _learn(self, batch: Batch) -> dict[str, float]:
        progress = self.progress
        batches = progress.epoch * len(self.training) + progress.batch
        is_due = batches % self.options.score_every == 0
        try:
            lesson = self.learner.learn(batch, progress.updates, is_due)
        except TrainingError as error:
            folders = checkpoint.updates_of(self.run)
            raise TrainingError(
                f"{error} (epoch {progress.epoch + 1}): training stopped before it touched the weights; the last good "
                f"checkpoint is {folders[-1] if folders else 'none'}; lower --learning-rate or set --clip-norm, then "
                "--resume"
            ) from error
        progress.updates += lesson.updates
        progress.sequences += batch.frames.shape[0]
        progress.epoch_loss += lesson.loss
        figures = {"loss": lesson.loss, **lesson.figures}
        if is_due:
            self.log.write("training", progress.updates, {**figures, "steps": lesson.steps})
        return figures

    def _complete_epoch(self) -> Evaluation | None:
        """Validates and goes on to the next epoch; if a signal stops it, a resumed run begins again from here."""
        progress, options = self.progress, self.options
        try:
            evaluation = self._evaluate()
        except _Stopped:
            self._save()
            return None
        progress.epoch += 1
        self.log.write(
            "epoch", progress.updates, {"epoch": progress.epoch, "loss": progress.epoch_loss / progress.batch}
        )
        progress.batch, progress.epoch_loss = 0, 0.0
        self._log_validation(evaluation)
        if progress.epoch in options.save_epochs:
            kept = self._folder().with_name(f"epoch-{progress.epoch:04d}")
            checkpoint.save_checkpoint(kept, self.model, self.config)
        is_best = evaluation.loss < progress.best_loss
        if is_best:
            progress.best_loss, progress.best_epoch = evaluation.loss, progress.epoch
            progress.best_checkpoint = self._folder().name
        self._save(is_best)
        return evaluation

    def _validate_midway(self) -> Evaluation | None:
        """Validates in the middle of an epoch; the checkpoint doesn't know of it, see :meth:`fit`."""
        progress = self.progress
        try:
            evaluation = self._evaluate()
        except _Stopped:
            return None
        self._log_validation(evaluation)
        if evaluation.loss < progress.best_loss:
            self._write_best(self._folder().name, evaluation.loss, progress.epoch)
        return evaluation

    def _evaluate(self) -> Evaluation:
        generator = torch_generator(self.options.seed, "validation", device=self.device)
        batches = self._until_stopped(self.validation.epoch(0))
        return evaluate(self.model, batches, self._evaluation_config(), generator)

    def _until_stopped(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            if self._stop_reason is not None:
                raise _Stopped
            yield batch

    def _log_validation(self, evaluation: Evaluation) -> None:
        progress = self.progress
        line = f"epoch {progress.epoch}, update {progress.updates}: validation loss {evaluation.loss:.2f}"
        if "ari" in evaluation.scores:
            line += f", ARI {evaluation.scores['ari']:.3f}"
        self.report(f"{line} ({progress.minutes:.1f} min)")
        self.log.write("validation", progress.updates, {"epoch": progress.epoch, **evaluation.to_dict()})
        self._log_overview()

    def _log_overview(self) -> None:
        batch = next(iter(self.validation.epoch(0))).to(self.device)
        actions = None
        if self.config.model.number_of_actions and batch.actions is not None:
            actions = batch.actions[:1, : self.options.sequence_steps]
        rollout = roll_out(
            self.model,
            unit_frames(batch.frames[:1], batch.maximum_value),
            context=self.options.sequence_steps,
            horizon=0,
            actions=actions,
            noise=self.options.noise.usual_probability,
            generator=torch_generator(self.options.seed, "overview", device=self.device),
        )
        title = f"after {self.progress.updates} updates"
        figure = overview(rollout, unit_frames(batch.frames, batch.maximum_value), 0, title)
        self.log.picture("overview", self.progress.updates, figure_to_array(figure))

    def _evaluation_config(self) -> EvaluationConfig:
        options = self.options
        return EvaluationConfig(
            step_weights=options.weights,
            noise=options.noise.usual_probability,
            loss=options.loss,
            last_steps=options.last_steps,
            ami_sequences=0,
            honest=False,
        )

    def _folder(self) -> Path:
        return self.run / checkpoint.CHECKPOINTS / f"update-{self.progress.updates:09d}"

    def _save(self, is_best: bool = False) -> None:
        progress, folder = self.progress, self._folder()
        if self._log is not None:
            progress.log_position = self._log.position
        trainer = {**self.learner.state_dict(), "progress": vars(replace(progress))}
        checkpoint.save_checkpoint(folder, self.model, self.config, trainer)
        if is_best:
            self._write_best(folder.name, progress.best_loss, progress.best_epoch)
        checkpoint.prune(self.run, self.options.keep_checkpoints, self._protected())
        self._last_save = time.monotonic()

    def _protected(self) -> set[str]:
        return {self.progress.best_checkpoint}

    def _save_is_due(self) -> bool:
        return time.monotonic() - self._last_save > 60.0 * self.options.checkpoint_minutes

    def _stop_if_due(self) -> None:
        options = self.options
        elapsed = (time.monotonic() - self._sitting_start) / 60.0
        if options.max_minutes is not None and elapsed >= options.max_minutes:
            self._stop_reason = f"{options.max_minutes:g} minutes are over; continue with --resume"

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ends training after the present update on Ctrl-C or SIGTERM; a second signal ends it at once."""

        def stop(number: int, frame: FrameType | None) -> None:
            if self._stop_reason is not None:
                raise KeyboardInterrupt
            self.signal = number
            self._stop_reason = f"{signal.Signals(number).name} received; continue with --resume"

        previous: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                previous[number] = signal.signal(number, stop)
            except ValueError:  # not in the main thread: signals are the caller's business
                break
        try:
            yield
        finally:
            for replaced, handler in previous.items():
                signal.signal(replaced, handler)

"""The training loop: epochs of updates, validation, checkpoints, and an end that loses nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from rnem_world.data.batch import Batch
from rnem_world.data.loader import SequenceLoader
from rnem_world.errors import CheckpointError, TrainingError
from rnem_world.evaluation.evaluate import Evaluation
from rnem_world.models.world_model import WorldModel
from rnem_world.options import build
from rnem_world.training import checkpoint, run_folder
from rnem_world.training.config import RunConfig, TrainingConfig
from rnem_world.training.learner import Learner
from rnem_world.training.logging import RunLog
from rnem_world.training.progress import Progress
from rnem_world.training.stopping import Stop, Stopped
from rnem_world.training.validation import Validator


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
        self.validator = Validator(model, config, validation)
        self.progress = Progress()
        self.learner = Learner(model, config)
        self._log: RunLog | None = None
        self._stop = Stop(config.training.max_minutes)
        self._last_save = time.monotonic()
        self._minutes_before = 0.0

    @property
    def signal(self) -> int | None:
        """The number of the signal that ended training, None if none did."""
        return self._stop.signal

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
        run_folder.put_back(self.run)
        folders = run_folder.updates_of(self.run)
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
        best = run_folder.best_of(self.run)
        if progress.best_epoch and not progress.best_checkpoint and best is not None:
            progress.best_checkpoint = best.name
        if progress.best_checkpoint:
            run_folder.write_best(self.run, progress.best_checkpoint, progress.best_loss, progress.best_epoch)
        elif not progress.best_epoch:
            run_folder.forget_best(self.run)

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
        run_folder.prune(self.run, self.options.keep_checkpoints, self._protected())
        self._last_save = time.monotonic()
        self._minutes_before = self.progress.minutes
        evaluation = None
        try:
            with self._stop.watching():
                while (end := self._end()) is None:
                    self._run_batches()
                    if self._stop.reason is None and self.progress.batch == len(self.training):
                        evaluation = self._complete_epoch()
                if self._stop.reason is None and self.progress.batch > 0:
                    evaluation = self._validate_midway()
            self.report(f"stopped after update {self.progress.updates}: {self._stop.reason or end}")
        finally:
            if self._log is not None:
                self._log.close()
                self._log = None
        return evaluation

    def _end(self) -> str | None:
        """Says why training ends here, if it does."""
        progress, options = self.progress, self.options
        if self._stop.reason is not None:
            return self._stop.reason
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
            progress.minutes = self._minutes_before + self._stop.minutes
            bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items()})
            self._stop.look_at_clock()
            is_over = self._stop.reason is not None or self._limit_reached()
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
            folders = run_folder.updates_of(self.run)
            raise TrainingError(
                f"{error} (epoch {progress.epoch + 1}): training stopped before it touched the weights; the last good "
                f"checkpoint is {folders[-1] if folders else 'none'}; lower --learning-rate or set --clip-norm, then "
                "--resume"
            ) from error
        rate = self.options.optimizer.rate_at(progress.updates)
        progress.updates += lesson.updates
        progress.sequences += batch.frames.shape[0]
        progress.epoch_loss += lesson.loss
        figures = {"loss": lesson.loss, **lesson.figures}
        if is_due:
            logged = {**figures, "learning_rate": rate, "steps": lesson.steps}
            self.log.write("training", progress.updates, logged)
        return figures

    def _complete_epoch(self) -> Evaluation | None:
        """Validates and goes on to the next epoch; if a signal stops it, a resumed run begins again from here."""
        progress, options = self.progress, self.options
        try:
            evaluation = self.validator.evaluate(self._stop.check)
        except Stopped:
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
            evaluation = self.validator.evaluate(self._stop.check)
        except Stopped:
            return None
        self._log_validation(evaluation)
        if evaluation.loss < progress.best_loss:
            run_folder.write_best(self.run, self._folder().name, evaluation.loss, progress.epoch)
        return evaluation

    def _log_validation(self, evaluation: Evaluation) -> None:
        progress = self.progress
        line = f"epoch {progress.epoch}, update {progress.updates}: validation loss {evaluation.loss:.2f}"
        if "ari" in evaluation.scores:
            line += f", ARI {evaluation.scores['ari']:.3f}"
        self.report(f"{line} ({progress.minutes:.1f} min)")
        self.log.write("validation", progress.updates, {"epoch": progress.epoch, **evaluation.to_dict()})
        self.log.picture("overview", progress.updates, self.validator.overview(progress.updates))

    def _folder(self) -> Path:
        return self.run / run_folder.CHECKPOINTS / f"update-{self.progress.updates:09d}"

    def _save(self, is_best: bool = False) -> None:
        progress, folder = self.progress, self._folder()
        if self._log is not None:
            progress.log_position = self._log.position
        trainer = {**self.learner.state_dict(), "progress": vars(replace(progress))}
        checkpoint.save_checkpoint(folder, self.model, self.config, trainer)
        if is_best:
            run_folder.write_best(self.run, folder.name, progress.best_loss, progress.best_epoch)
        run_folder.prune(self.run, self.options.keep_checkpoints, self._protected())
        self._last_save = time.monotonic()

    def _protected(self) -> set[str]:
        return {self.progress.best_checkpoint}

    def _save_is_due(self) -> bool:
        return time.monotonic() - self._last_save > 60.0 * self.options.checkpoint_minutes

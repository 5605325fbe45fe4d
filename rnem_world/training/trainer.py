"""The training loop: epochs of updates, validation, checkpoints, and an end that loses nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from rnem_world.config import build
from rnem_world.data.loader import Batch, SequenceLoader
from rnem_world.distributed import ALONE, Processes, Stop, Stopped
from rnem_world.errors import CheckpointError, TrainingError
from rnem_world.evaluation.evaluate import Evaluation
from rnem_world.models.world_model import WorldModel
from rnem_world.training import checkpoint, run_folder
from rnem_world.training.config import RunConfig, TrainingConfig
from rnem_world.training.learner import Learner
from rnem_world.training.progress import Progress
from rnem_world.training.run_lock import RunLock
from rnem_world.training.run_writer import RunWriter
from rnem_world.training.validation import Validator
from rnem_world.training.waiting import WaitingClock


class Trainer:
    """Trains a model and keeps its run folder, see :class:`rnem_world.training.run_writer.RunWriter`.

    Of several processes each has a trainer, and all do the same on their own shares of the data; the first one writes.

    Args:
        model: The model, on its device.
        config: The run.
        run: Its folder.
        training: Gives this process's share of the training batches.
        validation: Gives the validation batches, whole in every process.
        report: Receives one line now and then, for people.
        processes: Those that train together.
    """

    def __init__(
        self,
        model: WorldModel,
        config: RunConfig,
        run: Path,
        training: SequenceLoader,
        validation: SequenceLoader,
        report: Callable[[str], None],
        processes: Processes = ALONE,
    ) -> None:
        self.model, self.config, self.run = model, config, run
        self.training, self.validation, self.report = training, validation, report
        self.processes = processes
        self.options: TrainingConfig = config.training
        self.validator = Validator(model, config, validation, processes)
        self.progress = Progress()
        self.learner = Learner(model, config, processes)
        self.writer = RunWriter(run, model, config, processes.is_first)
        self.lock = RunLock(run)
        self._stop = Stop(config.training.max_minutes, processes)
        self._minutes_before = 0.0
        self._clock = WaitingClock()

    @property
    def signal(self) -> int | None:
        """The number of the signal that ended training, None if none did."""
        return self._stop.signal

    def begin(self) -> None:
        """Reads the data, and saves the first checkpoint of a new run.

        Raises:
            DataError: If the data is damaged.
            OutputError: If the checkpoint can't be written.
        """
        for loader in (self.training, self.validation):
            loader.epoch(0)
        self.writer.save(self.progress, self.learner.state_dict)

    def resume(self) -> None:
        """Continues from the run's latest checkpoint.

        The learning rate is the configuration's, which may have changed since.

        Raises:
            CheckpointError: If there is none, it is broken, or other processes see another one.
        """
        if self.processes.is_first:
            run_folder.put_back(self.run)
        self.processes.wait()
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
        updates = self.progress.updates
        most, negative_least = self.processes.largest([updates, -updates])
        if most != -negative_least:
            raise CheckpointError(
                f"process {self.processes.rank} sees update {updates} in {self.run}, another sees "
                f"{int(most if updates < most else -negative_least)}: keep the run in a folder that all machines share"
            )
        self.writer.restore_best(self.progress)
        self.report(f"resumed after update {updates} ({self.progress.minutes:.1f} min so far)")

    def fit(self) -> Evaluation | None:
        """Trains until an end is reached: epochs, patience, ``max_updates``, ``max_minutes``, or a signal.

        An epoch ends with a validation. Where ``max_updates`` ends one early there is a validation too, so that there
        is a best checkpoint; a run that is resumed there goes on as if that hadn't been.

        Returns:
            The last validation, if there was any.

        Raises:
            TrainingError: If the loss is NaN or infinite; the last good checkpoint stays.
            OutputError: If a checkpoint can't be written, or another process trains in the folder.
        """
        if self.processes.is_first:
            self.lock.acquire()
        evaluation = None
        try:
            self.writer.begin(self.progress)
            self._minutes_before = self.progress.minutes
            with self._stop.watching():
                while (end := self._end()) is None:
                    self._run_batches()
                    if self._stop.reason is None and self.progress.batch == len(self.training):
                        evaluation = self._complete_epoch()
                if self._stop.reason is None and self.progress.batch > 0:
                    evaluation = self._validate_midway()
                # What one process has still to write must not be cut short because another has ended.
                self.processes.wait()
            self.report(f"stopped after update {self.progress.updates}: {self._stop.reason or end}")
        finally:
            self.writer.close()
            self.lock.release()
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
            self._clock.waiting(batches),
            desc=f"epoch {progress.epoch + 1}",
            total=len(self.training),
            initial=progress.batch,
            unit="update",
            disable=None if self.processes.is_first else True,
        )
        figures: dict[str, float] = {}
        for batch in bar:
            started = time.monotonic()
            figures |= self._learn(batch)
            progress.batch += 1
            seconds = time.monotonic() - started
            frames = options.batch_size * options.sequence_steps
            figures["frames_per_second"] = frames / seconds
            figures["waiting"] = self._clock.share(seconds)
            progress.minutes = self._minutes_before + self._stop.minutes
            bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items()})
            self._stop.look()
            is_over = self._stop.reason is not None or self._limit_reached()
            if is_over or self.writer.save_is_due():
                self.writer.save(progress, self.learner.state_dict)
                latest = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
                self.report(f"update {progress.updates} ({progress.minutes:.1f} min): {latest}")
            if is_over:
                bar.close()
                return

    def _learn(self, batch: Batch) -> dict[str, float]:
        progress = self.progress
        batches = progress.epoch * len(self.training) + progress.batch
        is_due = batches % self.options.score_every == 0
        started = time.monotonic()
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
        progress.sequences += self.options.batch_size
        progress.epoch_loss += lesson.loss
        figures = {"loss": lesson.loss, **lesson.figures}
        if is_due:
            logged = {**figures, "learning_rate": rate, "steps": lesson.steps}
            self.writer.log("training", progress, logged)
            seconds = time.monotonic() - started
            speed = {
                "sequences_per_second": self.options.batch_size / seconds,
                "waiting": self._clock.last / (self._clock.last + seconds),
            }
            self.writer.log_speed(progress, speed)
        return figures

    def _complete_epoch(self) -> Evaluation | None:
        """Validates and goes on to the next epoch; if a signal stops it, a resumed run begins again from here."""
        progress, options = self.progress, self.options
        try:
            evaluation = self.validator.evaluate(self._stop.check)
        except Stopped:
            self.writer.save(progress, self.learner.state_dict)
            return None
        progress.epoch += 1
        means = {"epoch": progress.epoch, "loss": progress.epoch_loss / progress.batch}
        self.writer.log("epoch", progress, means)
        progress.batch, progress.epoch_loss = 0, 0.0
        self._log_validation(evaluation)
        if progress.epoch in options.save_epochs:
            self.writer.keep_epoch(progress)
        is_best = evaluation.loss < progress.best_loss
        if is_best:
            progress.best_loss, progress.best_epoch = evaluation.loss, progress.epoch
            progress.best_checkpoint = self.writer.folder(progress).name
        self.writer.save(progress, self.learner.state_dict, is_best)
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
            self.writer.write_best(progress, evaluation.loss)
        return evaluation

    def _log_validation(self, evaluation: Evaluation) -> None:
        progress = self.progress
        line = f"epoch {progress.epoch}, update {progress.updates}: validation loss {evaluation.loss:.2f}"
        if "ari" in evaluation.scores:
            line += f", ARI {evaluation.scores['ari']:.3f}"
        self.report(f"{line} ({progress.minutes:.1f} min)")
        self.writer.log("validation", progress, {"epoch": progress.epoch, **evaluation.to_dict()})
        self.writer.picture(progress, lambda: self.validator.overview(progress.updates))

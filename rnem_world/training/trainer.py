"""The training loop: epochs of updates, validation, checkpoints, and an end that loses nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from tqdm import tqdm

from rnem_world.config import build
from rnem_world.data.dataset import Dataset
from rnem_world.data.loader import Batch
from rnem_world.data.summary import describe_split
from rnem_world.device import check_execution, choose_device
from rnem_world.distributed import ALONE, Processes, Stop, Stopped, process_group
from rnem_world.errors import CheckpointError, TrainingError
from rnem_world.evaluation.one_step import Evaluation, EvaluationConfig, evaluate
from rnem_world.evaluation.pictures import counts_figure, figure_to_array, overview
from rnem_world.evaluation.settling import fit_settle_steps
from rnem_world.models.rollout import RolloutConfig, roll_out
from rnem_world.models.world_model import WorldModel
from rnem_world.seeding import derive_seed, torch_generator
from rnem_world.training import checkpoint
from rnem_world.training.config import RunConfig
from rnem_world.training.dreams import logged_figures, measure_dreams
from rnem_world.training.forecast import describe_cost, forecast
from rnem_world.training.learner import Learner, check_shares
from rnem_world.training.presets import check_trains, fit_model_to, make_loader, some_frames
from rnem_world.training.run import RunFolder, RunProgress


class Trainer:
    """Trains a model and keeps its run folder, see :class:`rnem_world.training.run.RunFolder`.

    It has the folder to itself from the start until the end of :meth:`fit`. Of several processes each has a trainer,
    and all do the same on their own shares of the data; the first one writes.

    Args:
        config: The run, as :func:`rnem_world.training.presets.fit_model_to` completes it.
        dataset: The data.
        run: The run's folder.
        device: Where to train.
        report: Receives one line now and then, for people.
        resume: Continue the run that is there.
        start_from: A checkpoint whose weights the model starts with.
        processes: Those that train together.

    Attributes:
        progress: Where the run stands.
        evaluation: The last validation of this sitting, None before the first.

    Raises:
        ConfigError: If data and model don't fit, or the processes can't share a batch evenly.
        CheckpointError: If there is nothing to resume, or the starting weights belong to another model.
        DataError: If the data is damaged.
        OutputError: If a run is in the way, another training has the folder, or it can't be made; nothing is left
            behind then.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        run: Path,
        device: torch.device,
        report: Callable[[str], None],
        resume: bool = False,
        start_from: str | None = None,
        processes: Processes = ALONE,
    ) -> None:
        # Kept with the run, which may be resumed or evaluated from another working directory.
        config = replace(config, data=str(dataset.path.absolute()))
        self.config, self.options = config, config.training
        self.device, self.report, self.processes = device, report, processes
        check_trains(config, dataset)
        check_shares(self.options, processes)
        check_execution(device, self.options.execution.precision, self.options.execution.compile)
        self.training = make_loader(dataset, "training", config, self.options.train_size, processes)
        self.validation = make_loader(dataset, "validation", config, self.options.valid_size, processes)
        self.model = checkpoint.to_device(self._new_model(start_from), device)
        if not resume and start_from is None:
            self.model.likelihood.prepare(some_frames(dataset).to(device))
        self.learner = Learner(self.model, config, processes)
        self.folder = RunFolder(run, self.model, config, processes.is_first)
        self.progress = RunProgress()
        self.evaluation: Evaluation | None = None
        self._stop = Stop(self.options.max_minutes, processes)
        self._minutes_before = 0.0
        self._waited = self._worked = self._last_wait = 0.0
        if resume:
            self._resume()
        else:
            self._begin()

    def _new_model(self, start_from: str | None) -> WorldModel:
        if start_from is not None:
            return checkpoint.start_model(self.config.model, start_from)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.options.seed, "weights"))
            return WorldModel(self.config.model)

    @property
    def signal(self) -> int | None:
        """The number of the signal that ended training, None if none did."""
        return self._stop.signal

    @property
    def is_interrupted(self) -> bool:
        """Whether a signal or ``max_minutes`` ended training, and not an end of the run's own."""
        return self._stop.reason is not None

    def _begin(self) -> None:
        """Makes the folder of a new run, reads the data, and saves the first checkpoint; or leaves nothing behind."""
        with self.folder.created():
            for loader in (self.training, self.validation):
                loader.epoch(0)
            self.folder.save(self.progress, self.learner.state_dict)

    def _resume(self) -> None:
        """Continues from the run's latest checkpoint; the learning rate is the configuration's, which may be new."""
        self.folder.reopen()
        self.processes.wait()
        folders = checkpoint.updates_of(self.folder.path)
        if not folders:
            raise CheckpointError(
                f"{self.folder.path} holds no checkpoint to resume from: train without --resume"
            )
        state = checkpoint.load_trainer(folders[-1])
        checkpoint.load_weights(self.model, folders[-1])
        try:
            self.learner.load_state_dict(state)
            self.progress = build(RunProgress, state["progress"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"the training state in {folders[-1]} doesn't fit this run ({error}): delete that folder to resume "
                "an older checkpoint"
            ) from error
        updates = self.progress.updates
        most, negative_least = self.processes.largest([updates, -updates])
        if most != -negative_least:
            raise CheckpointError(
                f"process {self.processes.rank} sees update {updates} in {self.folder.path}, another sees "
                f"{int(most if updates < most else -negative_least)}: keep the run in a folder that all machines share"
            )
        self.folder.restore_best(self.progress)
        self.report(f"resumed after update {updates} ({self.progress.minutes:.1f} min so far)")
        self.folder.reconfigure()

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
        try:
            self.folder.begin(self.progress)
            self._minutes_before = self.progress.minutes
            with self._stop.watching():
                while (end := self._end()) is None:
                    self._run_batches()
                    if self._stop.reason is None and self.progress.batch == len(self.training):
                        self._complete_epoch()
                if self._stop.reason is None and self.progress.batch > 0:
                    self._validate_midway()
                # What one process has still to write must not be cut short because another has ended.
                self.processes.wait()
            self.report(f"stopped after update {self.progress.updates}: {self._stop.reason or end}")
        finally:
            self.folder.close()
        return self.evaluation

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
            self._timed(batches),
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
            self._worked += seconds
            figures["frames_per_second"] = options.batch_size * options.sequence_steps / seconds
            figures["waiting"] = self._waited / (self._waited + self._worked)
            progress.minutes = self._minutes_before + self._stop.minutes
            bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items()})
            self._stop.look()
            is_over = self._stop.reason is not None or self._limit_reached()
            if is_over or self.folder.save_is_due():
                self.folder.save(progress, self.learner.state_dict)
                latest = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
                self.report(f"update {progress.updates} ({progress.minutes:.1f} min): {latest}")
            if is_over:
                bar.close()
                return

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Passes batches on and measures how long training waits for each."""
        while True:
            started = time.monotonic()
            batch = next(batches, None)
            self._last_wait = time.monotonic() - started
            if batch is None:
                return
            self._waited += self._last_wait
            yield batch

    def _learn(self, batch: Batch) -> dict[str, float]:
        progress = self.progress
        batches = progress.epoch * len(self.training) + progress.batch
        is_due = batches % self.options.score_every == 0
        started = time.monotonic()
        try:
            lesson = self.learner.learn(batch, progress.updates, is_due)
        except TrainingError as error:
            folders = checkpoint.updates_of(self.folder.path)
            raise TrainingError(
                f"{error} (epoch {progress.epoch + 1}): training stopped before it touched the weights; the last good "
                f"checkpoint is {folders[-1] if folders else 'none'}; {self._cure(batch)}, then --resume"
            ) from error
        rate = self.options.optimizer.rate_at(progress.updates)
        progress.updates += lesson.updates
        progress.sequences += self.options.batch_size
        progress.epoch_loss += lesson.loss
        figures = {"loss": lesson.loss, **lesson.figures}
        if is_due:
            logged = {**figures, "learning_rate": rate, "steps": lesson.steps}
            self.folder.log("training", progress, logged)
            seconds = time.monotonic() - started
            speed = {
                "sequences_per_second": self.options.batch_size / seconds,
                "waiting": self._last_wait / (self._last_wait + seconds),
            }
            self.folder.log_speed(progress, speed)
        return figures

    def _cure(self, batch: Batch) -> str:
        """Says what to do about a loss that isn't finite: no learning rate mends rewards that are too large."""
        # Heads that tell values take the nearest one, whatever a reward is; others square the difference.
        squares = self.config.model.heads and self.config.model.reward_values is None
        seen = batch.rewards if squares else None
        overflows = seen is not None and not bool(seen.square().isfinite().all())
        # Any process may have the rows that spoil the mean of all.
        if any(self.processes.largest([overflows])):
            return f"the rewards are too large to be squared: scale them in {self.config.data}"
        return "lower --learning-rate or set --clip-norm"

    def _complete_epoch(self) -> None:
        """Validates and goes on to the next epoch; if a signal stops it, a resumed run begins again from here."""
        progress, options = self.progress, self.options
        evaluation = self._validate()
        is_best = False
        if evaluation is not None:
            progress.epoch += 1
            means = {"epoch": progress.epoch, "loss": progress.epoch_loss / progress.batch}
            self.folder.log("epoch", progress, means)
            progress.batch, progress.epoch_loss = 0, 0.0
            self._log_validation(evaluation)
            if progress.epoch in options.save_epochs:
                self.folder.keep_epoch(progress)
            is_best = evaluation.loss < progress.best_loss
            if is_best:
                progress.best_loss, progress.best_epoch = evaluation.loss, progress.epoch
                progress.best_checkpoint = self.folder.checkpoint(progress).name
        self.folder.save(progress, self.learner.state_dict, is_best)

    def _validate_midway(self) -> None:
        """Validates in the middle of an epoch; the checkpoint doesn't know of it, see :meth:`fit`."""
        evaluation = self._validate()
        if evaluation is not None:
            self._log_validation(evaluation)
            if evaluation.loss < self.progress.best_loss:
                self.folder.write_best(self.progress, evaluation.loss)

    def _log_validation(self, evaluation: Evaluation) -> None:
        progress = self.progress
        line = f"epoch {progress.epoch}, update {progress.updates}: validation loss {evaluation.loss:.2f}"
        if "ari" in evaluation.scores:
            line += f", ARI {evaluation.scores['ari']:.3f}"
        self.report(f"{line} ({progress.minutes:.1f} min)")
        self.folder.log("validation", progress, {"epoch": progress.epoch, **evaluation.to_dict()})
        self.folder.picture("overview", progress, self.overview)
        self._settle()
        dreams = None
        if self.processes.is_first:
            dreams = measure_dreams(self.model, self.validation.dataset, self.options, self.device)
        if dreams is not None:
            self.folder.log("dreams", progress, logged_figures(dreams))
            told = dreams.rewards
            if told.reward_counts:
                title = f"rewards, watching and after so many imagined frames ({progress.updates} updates)"
                self.folder.picture(
                    "rewards",
                    progress,
                    lambda: figure_to_array(counts_figure(told.reward_counts, told.reward_values, title)),
                )

    def _settle(self) -> None:
        """Measures how often the slots of a world are best shown a first frame."""
        if self.model.heads is None or not self.processes.is_first:
            return
        generator = torch_generator(self.options.seed, "settling", device=self.device)
        space, still = self.config.actions, self.config.still_actions
        was_training = self.model.training
        try:
            data = self.validation.dataset
            found = fit_settle_steps(self.model.eval(), data, "validation", space, still, generator)
        finally:
            self.model.train(was_training)
        if found is not None:
            self.folder.log("settling", self.progress, {"steps": found.steps})
            self.folder.note_settle_steps(self.progress, found.steps)

    def _validate(self) -> Evaluation | None:
        """Evaluates one step ahead, always with the same noise and responsibilities; None if a signal stops it."""

        def watched(batches: Iterable[Batch]) -> Iterator[Batch]:
            for batch in batches:
                self._stop.check()
                yield batch

        options = self.options
        how = EvaluationConfig(
            step_weights=options.weights,
            noise=options.noise.usual_strength,
            loss=options.loss,
            last_steps=options.last_steps,
            ami_sequences=0,
            honest=False,
        )
        generator = torch_generator(options.seed, "validation", device=self.device)
        self.evaluation = None
        with suppress(Stopped):
            batches = watched(self.validation.epoch(0))
            self.evaluation = evaluate(self.model, batches, how, generator, self.processes)
        return self.evaluation

    def overview(self) -> UInt8[np.ndarray, "h w 3"]:
        """Draws the overview figure of the first validation sequence."""
        options = self.options
        batch = next(iter(self.validation.epoch(0))).to(self.device)
        frames = self.model.likelihood.from_uint8(batch.frames[:1], batch.maximum_value)
        actions = None
        if self.config.model.takes_actions and batch.actions is not None:
            actions = batch.actions[:1, : options.sequence_steps]
        rollout = roll_out(
            self.model,
            frames,
            RolloutConfig(options.sequence_steps, 0, noise=options.noise.usual_strength),
            actions,
            torch_generator(options.seed, "overview", device=self.device),
        )
        return figure_to_array(overview(rollout, frames, 0, f"after {self.progress.updates} updates"))


def train(
    data: str | Path,
    config: RunConfig,
    run: str | Path,
    *,
    device: torch.device | str = "auto",
    feed_actions: bool = False,
    architecture: str | None = None,
    takes_all: bool | None = None,
    resume: bool = False,
    start_from: str | None = None,
    report: Callable[[str], None] = lambda line: None,
    processes: Processes = ALONE,
) -> Trainer:
    """Trains a model on a dataset, in a new run or one that goes on.

    Args:
        data: Path of the dataset.
        config: The run, from :mod:`rnem_world.training.presets` for example; for one that goes on its own.
        run: The run's folder.
        device: Where to train; ``auto`` takes CUDA where there is any.
        feed_actions: Whether the model shall see the actions.
        architecture: The architecture; None takes the one for the size of the frames.
        takes_all: Whether to take all of the data that a world model can use; None does for a world model.
        resume: Continue the run that is there.
        start_from: A checkpoint whose weights the model starts with.
        report: Receives lines for people.
        processes: Those that train together.

    Returns:
        The trainer at the end, with the model and the last validation.

    Raises:
        RnemWorldError: See :class:`Trainer` and :meth:`Trainer.fit`.
    """
    place = device if isinstance(device, torch.device) else choose_device(device, processes)
    run = Path(run)
    with process_group(processes, place), Dataset.open(Path(data).absolute()) as dataset:
        if not resume:
            takes_all = config.model.is_world_model if takes_all is None else takes_all
            config = fit_model_to(dataset, config, feed_actions, architecture, takes_all)
        trainer = Trainer(config, dataset, run, place, report, resume, start_from, processes)
        count = sum(parameter.numel() for parameter in trainer.model.parameters())
        among = f" by {processes.world_size} processes" if processes.world_size > 1 else ""
        report(
            f"training {config.model.core} ({count / 1e6:.2f} M parameters, {config.model.slots} slots) on {data}"
            f"{among}, into {run}"
        )
        if not resume:
            report(describe_split(dataset, "training"))
            cost = forecast(trainer.model, config, trainer.training, trainer.validation)
            for line in describe_cost(cost, config) if cost is not None else ():
                report(line)
        trainer.fit()
    return trainer

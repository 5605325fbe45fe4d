"""Measuring trained models by the paths of their checkpoints and data: what programs call, and commands too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnem_world.data.dataset import Dataset
from rnem_world.data.episodes import Windows, find_windows, usual_context
from rnem_world.data.loader import LoaderConfig, SequenceLoader, read_batch
from rnem_world.data.schema import Split
from rnem_world.device import choose_device
from rnem_world.errors import ConfigError, DataError
from rnem_world.evaluation.imagination import check_length, evaluate_imagination
from rnem_world.evaluation.imagination_figures import ImaginationFigures
from rnem_world.evaluation.one_step import Evaluation, EvaluationConfig
from rnem_world.evaluation.one_step import evaluate as evaluate_batches
from rnem_world.evaluation.truth import lasting_frames, read_truth
from rnem_world.models.config import validate_slots
from rnem_world.models.rollout import Imagination, Rollout, RolloutConfig
from rnem_world.models.rollout import roll_out as roll_out_frames
from rnem_world.models.world_model import WorldModel
from rnem_world.seeding import torch_generator
from rnem_world.training.checkpoint import load_model
from rnem_world.training.config import RunConfig
from rnem_world.training.presets import check_fits, wanted_arrays

DEFAULT_SEQUENCES, DEFAULT_DREAMS = 1000, 500
WORLD_CONTEXT = 15
"""Frames that a world model watches before it imagines, unless it is told."""


@dataclass(frozen=True)
class Trained:
    """A trained model, and what its checkpoint says of it."""

    model: WorldModel
    config: RunConfig

    @classmethod
    def load(
        cls, checkpoint: str | Path, device: str | torch.device = "auto", prefer: str = "best"
    ) -> Trained:
        """Loads a model.

        Args:
            checkpoint: A run, a checkpoint, the name of a shipped world, or ``hf://owner/name`` of the Hub.
            device: Where it is to be; ``auto`` takes CUDA where there is any.
            prefer: The ``best`` checkpoint of a run, or its ``last``.

        Raises:
            CheckpointError: If there is none.
            ConfigError: If there is no such device.
        """
        place = device if isinstance(device, torch.device) else choose_device(device)
        return cls(*load_model(checkpoint, place, prefer))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def data(self, given: str | Path | None) -> Path:
        """Says where data is: what was given, or what the model was trained on.

        Raises:
            DataError: If none was given, and the checkpoint only knows the name of what the model was trained on.
        """
        if given is not None:
            return Path(given)
        if self.config.data_path is None:
            raise DataError(
                f"the model was trained on {self.config.data or 'data'!r}, and nobody knows where that is: give the "
                "path of a dataset (`rnem-world collect` makes them)"
            )
        return self.config.data_path


def evaluate(
    checkpoint: str | Path | Trained,
    data: str | Path | None = None,
    *,
    split: Split = "test",
    sequences: int | None = None,
    slots: int | None = None,
    steps: int | None = None,
    noise: float = 0.0,
    ami_sequences: int = 100,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = False,
) -> Evaluation:
    """Measures predictions one step ahead.

    Args:
        checkpoint: A run, a checkpoint, the name of a shipped world, or a loaded model.
        data: Path of a dataset; None takes the one that the model was trained on.
        split: Which sequences.
        sequences: How many at most; None takes the run's test size, or 1,000.
        slots: Number of slots; None takes the model's own.
        steps: Predictions in a sequence, each with the weight 1; None takes the training's.
        noise: Probability that a pixel of an input is flipped; the original evaluates with the training's.
        ami_sequences: Sequences for the slow AMI score.
        batch_size: Sequences at once.
        seed: Of noise and first responsibilities.
        progress: Whether to show a progress bar on a terminal.

    Raises:
        CheckpointError: If there is no such checkpoint.
        ConfigError: If the data doesn't suit the model, or an argument makes no sense.
        DataError: If there is no such dataset, or its sequences are too short.
    """
    from tqdm import tqdm

    trained = checkpoint if isinstance(checkpoint, Trained) else Trained.load(checkpoint)
    options = trained.config.training
    if slots is not None:
        validate_slots(trained.config.model.core, slots)
    weights = options.weights if steps is None else (1.0,) * steps
    with Dataset.open(trained.data(data)) as dataset:
        info = dataset.info(split)
        check_fits(trained.config, info)
        limit = options.test_size or DEFAULT_SEQUENCES if sequences is None else sequences
        batches = LoaderConfig(
            batch_size=batch_size,
            number_of_frames=len(weights) + 1,
            limit=min(limit, info.number_of_sequences),
            memory_gigabytes=options.memory_gigabytes,
            drop_last=False,
            shuffle=False,
        )
        arrays = wanted_arrays(dataset, split, trained.config)
        loader = SequenceLoader(dataset, split, batches, seed=seed, arrays=arrays)
        how = EvaluationConfig(weights, slots, noise, options.loss, options.last_steps, ami_sequences)
        generator = torch_generator(seed, device=trained.device)
        bar = tqdm(
            loader.epoch(0),
            total=len(loader),
            desc=f"noise {noise:g}",
            unit="batch",
            disable=None if progress else True,
        )
        evaluation = evaluate_batches(trained.model, iter(bar), how, generator)
    return replace(evaluation, available=info.number_of_sequences)


@dataclass(frozen=True)
class Dreams:
    """How dreams compare with what really happened.

    Attributes:
        sequences: How many there were.
        has_positions: Whether the data knows where objects are.
        drawn: Figures of dreams in pixels; of a model of the paper, whose data has no positions, in its own soft way.
        latent: Figures of dreams that draw nothing; None for a model that can't.
    """

    sequences: int
    has_positions: bool
    drawn: ImaginationFigures
    latent: ImaginationFigures | None


def evaluate_dreams(
    checkpoint: str | Path | Trained,
    data: str | Path | None,
    horizon: int,
    *,
    context: int | None = None,
    split: Split = "test",
    sequences: int | None = None,
    slots: int | None = None,
    noise: float | None = None,
    batch_size: int = 32,
    seed: int = 0,
) -> Dreams:
    """Measures imagined frames against the true ones.

    Args:
        checkpoint: A run, a checkpoint, the name of a shipped world, or a loaded model.
        data: Path of a dataset; None takes the one that the model was trained on.
        horizon: Frames to imagine.
        context: Predictions from real frames before; None takes 15, or where the data tells that episodes are short as
            many as fit into a quarter of one.
        split: Which sequences.
        sequences: How many at most; None takes 500.
        slots: Number of slots; None takes the model's own.
        noise: Probability that a pixel of a watched frame is flipped; None takes the training's.
        batch_size: Sequences at once.
        seed: Of noise and first responsibilities.

    Raises:
        CheckpointError: If there is no such checkpoint.
        ConfigError: If the data doesn't suit the model, or an argument makes no sense.
        DataError: If there is no such dataset, or its sequences are too short.
    """
    trained = checkpoint if isinstance(checkpoint, Trained) else Trained.load(checkpoint)
    config = trained.config
    noise = config.training.noise.usual_strength if noise is None else noise
    with Dataset.open(trained.data(data)) as dataset:
        info = dataset.info(split)
        check_fits(config, info)
        context = _world_context(dataset) if context is None else context
        how = RolloutConfig(context, horizon, noise=noise, slots=slots)
        check_length(how, info.number_of_frames)
        count = min(DEFAULT_DREAMS if sequences is None else sequences, info.number_of_sequences)
        if count < 1:
            raise ConfigError(f"{count} sequences are asked for: at least 1 is needed")
        truth = read_truth(dataset, split, count, context + horizon + 1, trained.device, context + 1)

    def measure(imagination: Imagination) -> ImaginationFigures:
        generator = torch_generator(seed, "imagination", device=trained.device)
        return evaluate_imagination(
            trained.model, truth, replace(how, imagination=imagination), generator, batch_size
        )

    is_hard = config.model.is_world_model or truth.objects is not None
    return Dreams(
        len(truth.frames),
        truth.objects is not None,
        measure("pixels" if is_hard else "soft"),
        None if trained.model.prior_code is None else measure("latent"),
    )


def _world_context(dataset: Dataset) -> int:
    """Says how many predictions from real frames come before a world model imagines."""
    frames = usual_context(dataset)
    return WORLD_CONTEXT if frames is None else max(frames - 1, 2)


@dataclass(frozen=True)
class RolloutInput:
    """What a rollout watches, and how it goes on.

    Attributes:
        frames: Float (b, context + horizon + 1, c, h, w), the true frames in [0, 1].
        actions: (b, t) or (b, t, d), the true actions; None for a model that takes none.
        lasts: Bool (b, t), which frames are of the episode that is imagined; None if all are.
        sequences: The numbers of the sequences.
        begins: The first frame of each.
        how: How far and how to imagine.
    """

    frames: Tensor
    actions: Tensor | None
    lasts: Tensor | None
    sequences: list[int]
    begins: list[int]
    how: RolloutConfig


def rollout_input(
    trained: Trained,
    data: str | Path | None = None,
    *,
    split: Split = "test",
    sequences: Sequence[int] | None = None,
    count: int = 3,
    context: int | None = None,
    horizon: int = 20,
    imagination: Imagination | None = None,
    slots: int | None = None,
    noise: float | None = None,
) -> RolloutInput:
    """Reads what `roll_out` watches; see there for the arguments.

    Raises:
        ConfigError: If the data doesn't suit the model, or an argument makes no sense.
        DataError: If there is no such dataset or sequence.
    """
    config = trained.config
    with Dataset.open(trained.data(data)) as dataset:
        info = dataset.info(split)
        check_fits(config, info)
        chosen = list(sequences or [])
        if not all(0 <= index < info.number_of_sequences for index in chosen):
            raise DataError(
                f"sequences {chosen}: {split} of {dataset.path} has the sequences 0 to {info.number_of_sequences - 1}"
            )
        if context is None:
            is_world = config.model.is_world_model
            usual = _world_context(dataset) if is_world else config.training.sequence_steps
            context = max(1, min(usual, info.number_of_frames - 1 - horizon))
        how = RolloutConfig(
            context,
            horizon,
            imagination or ("pixels" if config.model.is_world_model else "soft"),
            config.training.noise.usual_strength if noise is None else noise,
            slots,
        )
        how.check_length(info.number_of_frames)
        windows = _rollout_windows(dataset, split, chosen, count, how)
        arrays = ["actions"] if config.model.takes_actions else []
        arrays += ["is_first"] if "is_first" in info.arrays else []
        rows, begins = windows.sequences.tolist(), windows.begins.tolist()
        batch = read_batch(dataset, split, rows, context + horizon + 1, arrays, begins).to(trained.device)
    frames = trained.model.likelihood.from_uint8(batch.frames, batch.maximum_value)
    lasts = None if batch.is_first is None else lasting_frames(batch.is_first)
    return RolloutInput(frames, batch.actions, lasts, rows, begins, how)


def _rollout_windows(
    dataset: Dataset, split: Split, chosen: list[int], count: int, how: RolloutConfig
) -> Windows:
    """Finds where rollouts begin: if it can be, in episodes that go on for as long as is imagined.

    Raises:
        DataError: If no episode is long enough to be watched.
    """
    watched, length = how.context + 1, how.context + how.horizon + 1
    for together in (length, watched):
        found = find_windows(dataset, split, together, length, len(chosen) or count, sequences=chosen or None)
        if len(found.begins) >= (len(chosen) or 1):
            return found
    where = f"sequences {chosen} of {split}" if chosen else split
    raise DataError(
        f"{where} of {dataset.path}: no episode has the {watched} frames to watch and goes on: give a shorter "
        "--context, or other sequences"
    )


def roll_out(
    checkpoint: str | Path | Trained, data: str | Path | None = None, *, seed: int = 0, **options: Any
) -> Rollout:
    """Lets a model watch sequences and imagine on.

    Args:
        checkpoint: A run, a checkpoint, the name of a shipped world, or a loaded model.
        data: Path of a dataset; None takes the one that the model was trained on.
        seed: Of noise and first responsibilities.
        **options: ``split``; ``sequences``, their numbers, by default the first ``count``, 3; ``context``, predictions
            from real frames, by default the training's length, for a world model 15 or less, see `evaluate_dreams`;
            ``horizon``, frames to imagine; ``imagination``, ``soft``, ``pixels`` or ``latent``, by default pixels for a
            world model, else the original's way; ``slots``; ``noise``, the probability that a pixel of an input is
            flipped, by default the training's.

    Raises:
        CheckpointError: If there is no such checkpoint.
        ConfigError: If the data doesn't suit the model, or an argument makes no sense.
        DataError: If there is no such dataset or sequence.
    """
    trained = checkpoint if isinstance(checkpoint, Trained) else Trained.load(checkpoint)
    given = rollout_input(trained, data, **options)
    generator = torch_generator(seed, "rollout", device=trained.device)
    return roll_out_frames(trained.model, given.frames, given.how, given.actions, generator)

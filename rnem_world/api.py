"""Measuring trained models by the paths of their checkpoints and data: what programs call, and commands too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rnem_world.data.dataset import Dataset
from rnem_world.data.loader import LoaderConfig, SequenceLoader, read_batch
from rnem_world.data.schema import Split
from rnem_world.device import choose_device
from rnem_world.errors import ConfigError, DataError
from rnem_world.evaluation.one_step import Evaluation, EvaluationConfig
from rnem_world.evaluation.one_step import evaluate as evaluate_batches
from rnem_world.models.config import validate_slots
from rnem_world.models.rollout import Imagination, Rollout, RolloutConfig
from rnem_world.models.rollout import roll_out as roll_out_frames
from rnem_world.models.world_model import WorldModel
from rnem_world.seeding import torch_generator
from rnem_world.training.checkpoint import load_model
from rnem_world.training.config import RunConfig
from rnem_world.training.presets import check_fits, wanted_arrays

DEFAULT_SEQUENCES = 1000
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
            checkpoint: A run, a checkpoint, or the name of a shipped world.
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
    with Dataset.open(data or trained.config.data) as dataset:
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
        return evaluate_batches(trained.model, iter(bar), how, generator)


def roll_out(
    checkpoint: str | Path | Trained,
    data: str | Path | None = None,
    *,
    split: Split = "test",
    sequences: Sequence[int] | None = None,
    context: int | None = None,
    horizon: int = 20,
    imagination: Imagination | None = None,
    slots: int | None = None,
    noise: float | None = None,
    seed: int = 0,
) -> Rollout:
    """Lets a model watch sequences and imagine on.

    Args:
        checkpoint: A run, a checkpoint, the name of a shipped world, or a loaded model.
        data: Path of a dataset; None takes the one that the model was trained on.
        split: Of which sequences.
        sequences: Their numbers; None takes the first three.
        context: Predictions from real frames; None takes the training's length, for a world model 15, or what the
            data has room for.
        horizon: Frames to imagine.
        imagination: ``soft``, ``pixels`` or ``latent``; None takes pixels for a world model, else the original's way.
        slots: Number of slots; None takes the model's own.
        noise: Probability that a pixel of an input is flipped; None takes the training's.
        seed: Of noise and first responsibilities.

    Raises:
        CheckpointError: If there is no such checkpoint.
        ConfigError: If the data doesn't suit the model, or an argument makes no sense.
        DataError: If there is no such dataset or sequence.
    """
    trained = checkpoint if isinstance(checkpoint, Trained) else Trained.load(checkpoint)
    config = trained.config
    with Dataset.open(data or config.data) as dataset:
        info = dataset.info(split)
        check_fits(config, info)
        chosen = list(range(min(3, info.number_of_sequences))) if sequences is None else list(sequences)
        if not all(0 <= index < info.number_of_sequences for index in chosen):
            raise DataError(
                f"sequences {chosen}: {split} of {dataset.path} has the sequences 0 to {info.number_of_sequences - 1}"
            )
        if context is None:
            usual = WORLD_CONTEXT if config.model.is_world_model else config.training.sequence_steps
            context = min(usual, info.number_of_frames - 1 - horizon)
            if context < 1:
                raise ConfigError(
                    f"{horizon} imagined frames leave no context in sequences of {info.number_of_frames} frames: "
                    "choose fewer"
                )
        how = RolloutConfig(
            context,
            horizon,
            imagination or ("pixels" if config.model.is_world_model else "soft"),
            config.training.noise.usual_probability if noise is None else noise,
            slots,
        )
        how.check_length(info.number_of_frames)
        arrays = ["actions"] if config.model.number_of_actions else []
        batch = read_batch(dataset, split, chosen, context + horizon + 1, arrays=arrays).to(trained.device)
    frames = trained.model.likelihood.from_uint8(batch.frames, batch.maximum_value)
    generator = torch_generator(seed, "rollout", device=trained.device)
    return roll_out_frames(trained.model, frames, how, batch.actions, generator)

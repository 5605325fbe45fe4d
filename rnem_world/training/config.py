"""How a model is trained: every option of the original's training configuration, and of a run on this machine."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from rnem_world.errors import ConfigError, suggest
from rnem_world.models.config import ModelConfig
from rnem_world.models.losses import LossConfig

OptimizerName = Literal["adam", "sgd", "momentum", "adadelta", "adagrad", "rmsprop"]
NoiseType = Literal["bitflip", "none"]


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and the gradient's clipping.

    Attributes:
        name: The optimizer; all but ``momentum``'s and ``sgd``'s own settings are TensorFlow's defaults.
        learning_rate: Its step size.
        momentum: Of ``momentum`` only.
        clip_norm: Largest norm of a gradient; None doesn't clip.
        clip_by: Whether each parameter's gradient is clipped by itself, as the original does, or all together.
    """

    name: OptimizerName = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    clip_norm: float | None = None
    clip_by: Literal["parameter", "global"] = "parameter"

    def __post_init__(self) -> None:
        if self.name not in get_args(OptimizerName):
            raise ConfigError(
                f"unknown optimizer {self.name!r}: {suggest(self.name, get_args(OptimizerName))}"
            )
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0.0):
            raise ConfigError(f"learning_rate is {self.learning_rate}, it must be a number above 0")
        if not 0.0 <= self.momentum < 1.0:
            raise ConfigError(f"momentum is {self.momentum}, it must lie in [0, 1)")
        if self.clip_norm is not None and not self.clip_norm > 0.0:
            raise ConfigError(f"clip_norm is {self.clip_norm}, it must be above 0; leave it out to not clip")
        if self.clip_by not in ("parameter", "global"):
            raise ConfigError(
                f"clip_by is {self.clip_by!r}: {suggest(self.clip_by, ['parameter', 'global'])}"
            )


@dataclass(frozen=True)
class NoiseConfig:
    """The noise on input frames; targets have none. The original keeps it on in evaluation."""

    type: NoiseType = "bitflip"
    probability: float = 0.2

    def __post_init__(self) -> None:
        if self.type not in get_args(NoiseType):
            raise ConfigError(f"unknown noise {self.type!r}: {suggest(self.type, get_args(NoiseType))}")
        if not 0.0 <= self.probability <= 1.0:
            raise ConfigError(f"the noise's probability is {self.probability}, it must lie in [0, 1]")

    @property
    def flip_probability(self) -> float:
        """Probability that a pixel is flipped."""
        return self.probability if self.type == "bitflip" else 0.0


@dataclass(frozen=True)
class TrainingConfig:
    """All that a training run needs beside the model and the data.

    Attributes:
        sequence_steps: Predictions in a sequence; a sequence has one frame more.
        step_weights: Weight of each step's loss: ``all`` alike, the ``last`` alone, or one number a step.
        loss: The weights within a step's loss.
        noise: The noise on the inputs.
        optimizer: The optimizer.
        batch_size: Sequences in an update.
        epochs: Largest number of passes over the training split.
        patience: Epochs without a better validation loss before training stops.
        train_size: Sequences of the training split to use; None uses all. Likewise the next two.
        valid_size: Sequences of the validation split to use.
        test_size: Sequences of the test split to use when evaluating.
        save_epochs: Epochs whose checkpoint is kept whatever its validation loss.
        window: Whether a training sequence is the start of a recorded one or a random piece of it.
        last_steps: Number of last steps that are reported by themselves (the original's dt).
        relational_loss: The array that marks collisions; None takes whichever the data has.
        seed: Seed of the weights, the noise and the order of the data.
        max_updates: Stop after so many updates in all; None doesn't.
        max_minutes: Stop after so many minutes of this sitting; None doesn't.
        checkpoint_minutes: Minutes between checkpoints within an epoch.
        keep_checkpoints: How many of the latest checkpoints are kept, beside the best and ``save_epochs``.
        score_every: Updates between grouping scores in the progress bar and the log.
        memory_gigabytes: A split that fits is kept in memory, a larger one is read as it goes.
    """

    sequence_steps: int = 30
    step_weights: Literal["all", "last"] | tuple[float, ...] = "all"
    loss: LossConfig = field(default_factory=LossConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch_size: int = 64
    epochs: int = 500
    patience: int = 10
    train_size: int | None = None
    valid_size: int | None = 1000
    test_size: int | None = None
    save_epochs: tuple[int, ...] = (1, 5, 10, 20, 50, 100)
    window: Literal["start", "random"] = "start"
    last_steps: int = 10
    relational_loss: Literal["collisions", "events", "none"] | None = None
    seed: int = 0
    max_updates: int | None = None
    max_minutes: float | None = None
    checkpoint_minutes: float = 5.0
    keep_checkpoints: int = 2
    score_every: int = 20
    memory_gigabytes: float = 4.0

    def __post_init__(self) -> None:
        counts = ("sequence_steps", "batch_size", "epochs", "patience", "keep_checkpoints", "score_every")
        for name in (*counts, "last_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, it must be at least 1")
        for name in ("train_size", "valid_size", "test_size", "max_updates"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}, it must be at least 1; leave it out for no limit")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}, it must be at least 0")
        for name in ("checkpoint_minutes", "max_minutes"):
            minutes = getattr(self, name)
            if minutes is not None and not minutes > 0.0:
                raise ConfigError(f"{name} is {minutes}, it must be above 0")
        self.weights  # noqa: B018  # validates the step weights

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each step's loss, one for each of ``sequence_steps``."""
        steps = self.sequence_steps
        if self.step_weights == "all":
            return (1.0,) * steps
        if self.step_weights == "last":
            return (0.0,) * (steps - 1) + (1.0,)
        weights = self.step_weights
        if isinstance(weights, str):
            raise ConfigError(f"step_weights is {weights!r}: choose all, last or a list of {steps} numbers")
        if len(weights) != steps:
            raise ConfigError(
                f"step_weights has {len(weights)} numbers, one for each of {steps} steps is needed"
            )
        if not (all(math.isfinite(weight) and weight >= 0.0 for weight in weights) and sum(weights) > 0.0):
            raise ConfigError(
                f"step_weights is {weights}: every number must be finite and at least 0, and one above 0"
            )
        return weights


@dataclass(frozen=True)
class RunConfig:
    """A training run: what is saved as ``config.json`` beside the weights.

    Attributes:
        model: The model.
        training: Its training.
        data: Path of the dataset.
        environment: Id of the environment that the data came from, empty if unknown.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    data: str = ""
    environment: str = ""

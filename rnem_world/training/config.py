"""How a model is trained: every option of the original's training configuration, and of a run on this machine."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from rnem_world.actions import ActionSpace
from rnem_world.config import (
    Precision,
    check_above_zero,
    check_at_least,
    check_between,
    check_one_of,
    check_types,
)
from rnem_world.errors import ConfigError, suggest
from rnem_world.models.config import LossConfig, ModelConfig

NoiseType = Literal["bitflip", "gaussian", "none"]
OptimizerName = Literal["adam", "sgd", "momentum", "adadelta", "adagrad", "rmsprop"]
ScheduleName = Literal["constant", "cosine", "linear"]
ClipBy = Literal["parameter", "global"]
COLD_START_WEIGHT = 0.2
PARTS = ("encoder", "action_embedding", "core", "decoder", "heads", "prior_code")
# What is left of the learning rate at the end of a schedule, unless the user says otherwise.
FINAL_RATE = 0.01


@dataclass(frozen=True)
class NoiseConfig:
    """The noise on input frames; targets have none.

    Attributes:
        type: Kind of the noise: ``bitflip`` for frames of bits, ``gaussian`` for colours and greys, or ``none``.
        probability: Of bit flips: the probability that a pixel is flipped.
        deviation: Of Gaussian noise: the standard deviation of what is added to each value in [0, 1].
        per_sequence: Whether each sequence draws its own strength between 0 and that.
    """

    type: NoiseType = "bitflip"
    probability: float = 0.2
    deviation: float = 0.3
    per_sequence: bool = False

    def __post_init__(self) -> None:
        check_one_of(self, "type", get_args(NoiseType))
        check_between(self, 0, 1, "probability", "deviation")

    @property
    def strength(self) -> float:
        """How strong it is, as the likelihood that draws it understands it."""
        return {"bitflip": self.probability, "gaussian": self.deviation, "none": 0.0}[self.type]

    @property
    def usual_strength(self) -> float:
        """How strong it is in evaluation and rollouts.

        A model that was trained with one strength has never seen clean inputs, so the noise stays on, as in the
        original; one that has seen all strengths needs none.
        """
        return 0.0 if self.per_sequence else self.strength


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer, the schedule of its learning rate, and the gradient's clipping.

    Attributes:
        name: The optimizer; all but ``momentum``'s and ``sgd``'s own settings are TensorFlow's defaults.
        learning_rate: Step size, the largest one where there is a schedule.
        momentum: Of ``momentum`` only.
        clip_norm: Largest norm of a gradient; None doesn't clip.
        clip_by: Whether each parameter's gradient is clipped by itself, as the original does, or all together.
        clip_factor: Scale gradients down whose norm exceeds so many times its running mean; None doesn't.
        schedule: How the learning rate falls: not at all, along half a cosine, or along a line.
        schedule_after: Updates before the learning rate begins to fall.
        schedule_updates: Updates, counted from the run's first, after which the learning rate has
            fallen to ``final_learning_rate``, where it stays.
        final_learning_rate: Where the learning rate ends; None takes a hundredth of ``learning_rate``.
        warm_up_updates: Updates at the start of a run in which the learning rate rises along a line.
    """

    name: OptimizerName = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    clip_norm: float | None = None
    clip_by: ClipBy = "parameter"
    clip_factor: float | None = None
    schedule: ScheduleName = "constant"
    schedule_after: int = 0
    schedule_updates: int | None = None
    final_learning_rate: float | None = None
    warm_up_updates: int = 0

    def __post_init__(self) -> None:
        check_one_of(self, "name", get_args(OptimizerName))
        check_one_of(self, "clip_by", get_args(ClipBy))
        check_one_of(self, "schedule", get_args(ScheduleName))
        check_at_least(self, 0, "warm_up_updates", "schedule_after")
        check_at_least(self, 1, "clip_factor")
        check_above_zero(self, "learning_rate", "clip_norm")
        if not 0.0 <= self.momentum < 1.0:
            raise ConfigError(f"momentum is {self.momentum}, it must lie in [0, 1)")
        if self.schedule != "constant" and self.schedule_updates is None:
            raise ConfigError(
                f"the learning rate schedule {self.schedule!r} needs schedule_updates (--schedule-updates), the "
                "number of updates at whose end the rate has fallen"
            )
        begin = max(self.warm_up_updates, self.schedule_after)
        if self.schedule_updates is not None and self.schedule_updates <= begin:
            raise ConfigError(
                f"schedule_updates is {self.schedule_updates}, it must be above the {begin} updates before the "
                "learning rate begins to fall (warm_up_updates, schedule_after)"
            )
        final = self.final_learning_rate
        if final is not None and not 0.0 <= final <= self.learning_rate:
            raise ConfigError(
                f"final_learning_rate is {final}, it must lie between 0 and the learning_rate {self.learning_rate}"
            )

    def rate_at(self, updates: int) -> float:
        """Gives the learning rate of an update; it depends on the update's number alone.

        Args:
            updates: Number of updates before it.
        """
        if updates < self.warm_up_updates:
            return self.learning_rate * (updates + 1) / self.warm_up_updates
        if self.schedule == "constant" or self.schedule_updates is None:
            return self.learning_rate
        begin = max(self.warm_up_updates, self.schedule_after)
        part = min(max((updates - begin) / (self.schedule_updates - begin), 0.0), 1.0)
        left = 1.0 - part if self.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * part))
        final = self.final_learning_rate
        final = FINAL_RATE * self.learning_rate if final is None else final
        return final + left * (self.learning_rate - final)


@dataclass(frozen=True)
class ExecutionConfig:
    """How training computes; it changes neither the model nor, up to rounding, what it learns.

    Attributes:
        precision: Of the products and convolutions within the model's layers: ``float32``; ``tf32``, which is float32
            with shorter mantissas and several times quicker on NVIDIA GPUs since Ampere; or ``bf16`` (torch's automatic
            mixed precision), with which weights, slots, losses and the E-step stay in float32.
        compile: Whether ``torch.compile`` makes kernels of its own for the layers.
    """

    precision: Precision = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        check_one_of(self, "precision", get_args(Precision))


@dataclass(frozen=True)
class HeadLossConfig:
    """Weights of the heads' losses beside the pixels' nats.

    Attributes:
        reward_weight: Of the cross-entropy of the reward's value, or the squared error of a reward that is told as a
            number.
        termination_weight: Of the cross-entropy of the termination.
        imagined_weight: Of the same losses on imagined frames, up to ``prior_code.steps`` of them, for a model with a
            prior code; 0 for watched frames alone.
    """

    reward_weight: float = 20.0
    termination_weight: float = 20.0
    imagined_weight: float = 0.0

    def __post_init__(self) -> None:
        check_at_least(self, 0, "reward_weight", "termination_weight", "imagined_weight")


@dataclass(frozen=True)
class ClosedLoopConfig:
    """Short stretches of training in which the model is shown its own frames, as when it imagines.

    Attributes:
        fraction: Part of the sequences of a chunk that have one; 0 for none.
        steps: Most frames of one.
        after_updates: Updates before the first; one-step accuracy comes first.
        latent_fraction: Part of the stretches in which the slots see what the prior code expects in place of the frame,
            for a model that has one.
    """

    fraction: float = 0.0
    steps: int = 2
    after_updates: int = 0
    latent_fraction: float = 0.0

    def __post_init__(self) -> None:
        check_between(self, 0, 1, "fraction", "latent_fraction")
        check_at_least(self, 1, "steps")
        check_at_least(self, 0, "after_updates")


@dataclass(frozen=True)
class PriorCodeConfig:
    """Training of the prior code, by which a model imagines without drawing.

    In each update the model also imagines in pixels, and the prior code learns to lead a latent imagination of the same
    steps to the same codes and slots. Only the prior code's own weights learn from it.

    Attributes:
        fraction: Part of the sequences of a chunk that are imagined.
        steps: Frames to imagine, at most those of a chunk.
        before: Most frames of latent imagination before those; half of the sequences draw a number up to it, the
            others begin at once. The prior code then learns in the slots that long dreams lead to, too.
        after_updates: Updates before it begins.
        weight: Of its loss. It matters beside latent closed loops alone, by which the prior code also learns what helps
            to predict.
    """

    fraction: float = 0.25
    steps: int = 10
    before: int = 0
    after_updates: int = 0
    weight: float = 30.0

    def __post_init__(self) -> None:
        check_above_zero(self, "weight", "fraction")
        check_between(self, 0, 1, "fraction")
        check_at_least(self, 1, "steps")
        check_at_least(self, 0, "after_updates", "before")


@dataclass(frozen=True)
class TrainingConfig:
    """All that a training run needs beside the model and the data.

    Attributes:
        sequence_steps: Predictions in a sequence; a sequence has one frame more.
        step_weights: Weight of each step's loss: ``all`` alike, the ``last`` alone, or one number a step.
        cold_start_steps: Steps at the start of a sequence, while slots still sort themselves out, whose loss weighs a
            fifth.
        chunk_steps: Truncates backpropagation: an update for every so many steps, the slots carried on; None makes one
            update of the whole sequence.
        closed_loop: Training on the model's own frames.
        prior_code: Training of the prior code, for a model that has one.
        head_loss: The weights of the heads' losses.
        loss: The weights within a step's loss.
        noise: The noise on the inputs.
        optimizer: The optimizer.
        batch_size: Sequences in an update, over all processes.
        accumulate: Micro-batches into which a process cuts its share of a batch, to save memory; their gradients are
            added up.
        train_only: Parts of the model that learn, by the names of its modules, as ``heads`` and ``prior_code``; the
            others stay as they are. Empty lets all learn.
        execution: In which precision training computes, and whether compiled.
        epochs: Largest number of passes over the training split.
        patience: Epochs without a better validation loss before training stops.
        train_size: Sequences of the training split to use; None uses all. Likewise the next two.
        valid_size: Sequences of the validation split to use.
        test_size: Sequences of the test split to use when evaluating.
        save_epochs: Epochs whose checkpoint is kept whatever its validation loss.
        window: Whether a training sequence is the start of a recorded one or a random piece of it.
        rare_fraction: Part of the training sequences that are drawn because something rare happens in them, another
            reward than the usual one or an end; the heads' losses are weighted so that what is rare stays rare to
            them. For a model with heads.
        last_steps: Number of last steps that are reported by themselves (the original's dt).
        relational_loss: The array that marks collisions; None takes whichever the data has.
        seed: Seed of the weights, the noise and the order of the data.
        max_updates: Stop after so many updates in all; None doesn't.
        max_minutes: Stop after so many minutes of this sitting; None doesn't.
        checkpoint_minutes: Minutes between checkpoints within an epoch.
        keep_checkpoints: How many of the latest checkpoints are kept, beside the best and ``save_epochs``.
        score_every: Batches between grouping scores in the progress bar and the log.
        memory_gigabytes: A split that fits is kept in memory, a larger one is read as it goes.
    """

    sequence_steps: int = 30
    step_weights: Literal["all", "last"] | tuple[float, ...] = "all"
    cold_start_steps: int = 0
    chunk_steps: int | None = None
    closed_loop: ClosedLoopConfig = field(default_factory=ClosedLoopConfig)
    prior_code: PriorCodeConfig = field(default_factory=PriorCodeConfig)
    head_loss: HeadLossConfig = field(default_factory=HeadLossConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch_size: int = 64
    accumulate: int = 1
    train_only: tuple[str, ...] = ()
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    epochs: int = 500
    patience: int = 10
    train_size: int | None = None
    valid_size: int | None = 1000
    test_size: int | None = None
    save_epochs: tuple[int, ...] = (1, 5, 10, 20, 50, 100)
    window: Literal["start", "random"] = "start"
    rare_fraction: float = 0.0
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
        check_types(self)
        counts = ("sequence_steps", "batch_size", "epochs", "patience", "keep_checkpoints", "score_every")
        limits = ("train_size", "valid_size", "test_size", "max_updates")
        check_at_least(self, 1, *counts, "last_steps", "accumulate", *limits)
        check_at_least(self, 0, "seed", "cold_start_steps")
        check_between(self, 0, 1, "rare_fraction")
        for part in self.train_only:
            if part not in PARTS:
                raise ConfigError(f"train_only names an unknown part {part!r}: {suggest(part, PARTS)}")
        chunk = self.chunk_steps
        if chunk is not None and (chunk < 1 or self.sequence_steps % chunk):
            raise ConfigError(
                f"chunk_steps is {chunk}, it must divide the {self.sequence_steps} steps of a sequence"
            )
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"accumulate is {self.accumulate}, it must divide the batch_size of {self.batch_size}"
            )
        check_above_zero(self, "checkpoint_minutes", "max_minutes")
        for start in range(0, self.sequence_steps, chunk or self.sequence_steps):
            if not any(self.weights[start : start + (chunk or self.sequence_steps)]):
                raise ConfigError(
                    f"step_weights has only zeros in the chunk of {chunk} steps from step {start}: give each chunk a "
                    "weight above 0, or leave chunk_steps out"
                )

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each step's loss, one for each of ``sequence_steps``."""
        steps = self.sequence_steps
        if self.step_weights == "all":
            cold = min(self.cold_start_steps, steps - 1)
            return (COLD_START_WEIGHT,) * cold + (1.0,) * (steps - cold)
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
        data: Where the dataset is, an absolute path; or the name of the preset or game that it is of.
        environment: Id of the environment that the data came from, empty if unknown.
        action_space: That environment's actions, where the data says what they are.
        recipe: How to make that environment, and frames of it, where the data says so; plain values.
        still_actions: Of actions that are whole numbers, the value of each that leaves the picture as it is, from 0;
            -1 where none does. None where nobody has looked: 0 then stands for it.
        settle_steps: How often slots are shown a first frame before anything happens, see
            `rnem_world.evaluation.settling`. None where nobody has measured it.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    data: str = ""
    environment: str = ""
    action_space: ActionSpace | None = None
    recipe: dict[str, Any] | None = None
    still_actions: tuple[int, ...] | None = None
    settle_steps: int | None = None

    def __post_init__(self) -> None:
        if self.settle_steps is not None:
            check_at_least(self, 0, "settle_steps")

    @property
    def actions(self) -> ActionSpace:
        """What an action is: what the data says, or what can be told by the model alone."""
        if self.action_space is not None:
            return self.action_space
        given = self.model.actions
        if given is None:
            return ActionSpace.discrete(max(self.model.number_of_actions, 1))
        shape = (given.length,)
        if given.kind == "box":
            return ActionSpace("box", low=given.low, high=given.high, shape=shape, dtype="float32")
        dtype = "int8" if given.kind == "multi_binary" else "int64"
        return ActionSpace(given.kind, given.sizes, shape=shape, dtype=dtype)

    @property
    def data_path(self) -> Path | None:
        """Where the dataset is; None if it is only named: what has that name in the working directory isn't it."""
        data = Path(self.data)
        return data if len(data.parts) > 1 or data.suffix else None

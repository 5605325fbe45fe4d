"""The optimizers of the original's configuration, with TensorFlow's default settings, and their learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, Optimizer, RMSprop

from rnem_world.errors import ConfigError, suggest

OptimizerName = Literal["adam", "sgd", "momentum", "adadelta", "adagrad", "rmsprop"]
ScheduleName = Literal["constant", "cosine", "linear"]
# What is left of the learning rate at the end of a schedule, unless the user says otherwise.
FINAL_RATE = 0.01


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer, the schedule of its learning rate, and the gradient's clipping.

    Attributes:
        name: The optimizer; all but ``momentum``'s and ``sgd``'s own settings are TensorFlow's defaults.
        learning_rate: Its step size, the largest one where there is a schedule.
        momentum: Of ``momentum`` only.
        clip_norm: Largest norm of a gradient; None doesn't clip.
        clip_by: Whether each parameter's gradient is clipped by itself, as the original does, or all together.
        clip_factor: Scale gradients down whose norm exceeds so many times its running mean; None doesn't.
        schedule: How the learning rate falls: not at all, along half a cosine, or along a line.
        schedule_after: Updates before it begins to fall.
        schedule_updates: Updates, counted from the run's first, after which it has fallen to
            ``final_learning_rate``, where it stays.
        final_learning_rate: Where it ends; None takes a hundredth of ``learning_rate``.
        warm_up_updates: Updates at the start of a run in which the learning rate rises along a line.
    """

    name: OptimizerName = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    clip_norm: float | None = None
    clip_by: Literal["parameter", "global"] = "parameter"
    clip_factor: float | None = None
    schedule: ScheduleName = "constant"
    schedule_after: int = 0
    schedule_updates: int | None = None
    final_learning_rate: float | None = None
    warm_up_updates: int = 0

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
        if self.clip_factor is not None and not self.clip_factor >= 1.0:
            raise ConfigError(
                f"clip_factor is {self.clip_factor}, it must be at least 1; leave it out to not clip"
            )
        if self.clip_by not in ("parameter", "global"):
            raise ConfigError(
                f"clip_by is {self.clip_by!r}: {suggest(self.clip_by, ['parameter', 'global'])}"
            )
        self._check_schedule()

    def _check_schedule(self) -> None:
        if self.schedule not in get_args(ScheduleName):
            raise ConfigError(
                f"unknown learning rate schedule {self.schedule!r}: {suggest(self.schedule, get_args(ScheduleName))}"
            )
        for name in ("warm_up_updates", "schedule_after"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, it must be at least 0")
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


def make_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> Optimizer:
    """Makes the optimizer that the configuration names."""
    parameters, rate = list(parameters), config.learning_rate
    match config.name:
        case "adam":
            return Adam(parameters, lr=rate, eps=1e-8)
        case "sgd":
            return SGD(parameters, lr=rate)
        case "momentum":
            return SGD(parameters, lr=rate, momentum=config.momentum)
        case "adadelta":
            return Adadelta(parameters, lr=rate, rho=0.95, eps=1e-8)
        case "adagrad":
            return Adagrad(parameters, lr=rate, initial_accumulator_value=0.1)
        case "rmsprop":
            return RMSprop(parameters, lr=rate, alpha=0.9, eps=1e-10)


def clip_gradients(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> None:
    """Scales gradients down to the configured norm, in place."""
    if config.clip_norm is None:
        return
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    if config.clip_by == "global":
        nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch._foreach_norm(gradients)
    scales = [(config.clip_norm / norm).clamp(max=1.0) for norm in norms]
    torch._foreach_mul_(gradients, scales)

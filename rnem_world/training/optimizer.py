"""The optimizers of the original's configuration, with TensorFlow's default settings."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, Optimizer, RMSprop

from rnem_world.training.config import OptimizerConfig


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

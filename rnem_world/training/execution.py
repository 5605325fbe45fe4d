"""How the layers of a model are computed in training: in which precision, and compiled or as they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from rnem_world.errors import ConfigError, suggest
from rnem_world.models.world_model import WorldModel

Precision = Literal["float32", "bf16"]
COMPILERS = ("g++", "c++", "clang++")


@dataclass(frozen=True)
class ExecutionConfig:
    """How training computes; it changes neither the model nor, up to rounding, what it learns.

    Attributes:
        precision: Of the products and convolutions within the model's layers. With ``bf16`` (torch's automatic mixed
            precision) weights, slots, losses and the E-step stay in float32.
        compile: Whether ``torch.compile`` makes kernels of its own for the layers.
    """

    precision: Precision = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ConfigError(
                f"unknown precision {self.precision!r}: {suggest(self.precision, get_args(Precision))}"
            )


def check_device(config: ExecutionConfig, device: torch.device) -> None:
    """Checks that a device can compute so.

    Raises:
        ConfigError: If it can't.
    """
    if config.precision == "bf16" and not has_bfloat16(device):
        raise ConfigError(
            f"the device {device} has no bfloat16 of its own, which would make training slower: leave out --precision "
            "(or give float32), or take another --device"
        )
    if config.compile and device.type == "cpu" and not has_compiler():
        raise ConfigError(
            f"--compile needs a C++ compiler ({', '.join(COMPILERS)}, or what the variable CXX names), and there is "
            "none: install one, or leave --compile out"
        )


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 numbers by itself."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":  # what oneDNN says, which computes the products there
        return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def has_compiler() -> bool:
    """Whether there is a C++ compiler."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), *COMPILERS) if name)


def execute_as(model: WorldModel, config: ExecutionConfig) -> None:
    """Makes the model's layers compute as configured, while it is in training mode.

    In evaluation they compute in float32 and uncompiled, so that figures and files don't depend on this.

    Args:
        model: The model, on its device.
        config: How.
    """
    if config == ExecutionConfig():
        return
    for layer in model.children():
        layer.forward = _executing(layer, config)


def _executing(layer: nn.Module, config: ExecutionConfig) -> Callable[..., Any]:
    plain = layer.forward
    quick = torch.compile(plain, dynamic=False) if config.compile else plain

    def forward(*inputs: Any) -> Any:
        if not layer.training:
            return plain(*inputs)
        if config.precision == "float32":
            return quick(*inputs)
        device = next(layer.parameters()).device.type
        with torch.autocast(device, torch.bfloat16):
            outputs = quick(*inputs)
        return _in_float32(outputs)

    return forward


def _in_float32(values: Any) -> Any:
    """Widens a tensor, or all in a named tuple."""
    if isinstance(values, Tensor):
        return values.float()
    if isinstance(values, tuple):
        return type(values)(*(_in_float32(value) for value in values))
    return values

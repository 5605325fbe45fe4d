"""Where and how a program computes: the device, what is copied to it and back, precision, and compiled layers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rnem_world.config import Precision
from rnem_world.distributed import ALONE, Processes
from rnem_world.errors import ConfigError

COMPILERS = ("g++", "c++", "clang++")
# The first NVIDIA GPUs that multiply TF32 numbers are of this compute capability, Ampere.
FIRST_WITH_TF32 = (8, 0)


def choose_device(name: str, processes: Processes = ALONE) -> torch.device:
    """Turns a device's name into a device; ``auto`` takes CUDA where there is any.

    Of several processes on a machine each gets a CUDA device of its own.

    Raises:
        ConfigError: If there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if processes.world_size > 1 and name == "cuda":
        name = f"cuda:{processes.local_rank}"
    elif processes.world_size > 1 and name.startswith("cuda"):
        raise ConfigError(
            f"{name!r} is one device, and there are {processes.world_size} processes that need one each: use --device "
            "cuda, which gives each its own"
        )
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"there is no device {name!r} here ({str(error).splitlines()[0]}): use --device cpu"
        ) from error
    return device


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a tensor to a device; the host doesn't wait until it is there."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def to_host(tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
    """Copies tensors to the host, with one transfer for all of them."""
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return [tensor.numpy().copy() for tensor in tensors]
    return unpack(pack(tensors).cpu().numpy(), tensors)


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Lays tensors out in one row of bytes, each beginning at a multiple of 8."""
    rows = []
    for tensor in tensors:
        row = tensor.flatten().clone(memory_format=torch.contiguous_format).view(torch.uint8)
        rows.append(torch.nn.functional.pad(row, (0, -len(row) % 8)))
    return torch.cat(rows)


def unpack(row: NDArray[np.uint8], like: Sequence[Tensor]) -> list[NDArray[Any]]:
    """Undoes `pack`, without a copy: the arrays are parts of the row."""
    arrays, begin = [], 0
    for tensor in like:
        dtype = torch.empty(0, dtype=tensor.dtype).numpy().dtype
        size = tensor.numel() * dtype.itemsize
        arrays.append(row[begin : begin + size].view(dtype).reshape(tuple(tensor.shape)))
        begin += size + -size % 8
    return arrays


def check_execution(device: torch.device, precision: Precision, compiled: bool) -> None:
    """Checks that a device can compute in a precision, and that layers can be compiled for it.

    Raises:
        ConfigError: If it can't.
    """
    if precision == "bf16" and not has_bfloat16(device):
        raise ConfigError(
            f"the device {device} has no bfloat16 of its own, which would make training slower: leave out --precision "
            "(or give float32), or take another --device"
        )
    if precision == "tf32" and not has_tf32(device):
        raise ConfigError(
            f"the device {device} has no TF32, which NVIDIA GPUs have since Ampere: leave out --precision (or give "
            "float32), or take another --device"
        )
    if compiled and device.type == "cpu" and not has_compiler():
        raise ConfigError(
            f"--compile needs a C++ compiler ({', '.join(COMPILERS)}, or what the variable CXX names), and there is "
            "none: install one, or leave --compile out"
        )


def has_tf32(device: torch.device) -> bool:
    """Whether a device multiplies TF32 numbers."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= FIRST_WITH_TF32


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


@contextmanager
def multiplying(precision: Precision, device: torch.device) -> Iterator[None]:
    """Within this, float32 products and convolutions on CUDA are rounded to TF32 with ``tf32``, else not at all.

    PyTorch has but one such setting for the process; it is afterwards as it was.
    """
    if device.type != "cuda":
        yield
        return
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    try:
        products.allow_tf32 = convolutions.allow_tf32 = precision == "tf32"
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def execute_layers(model: nn.Module, precision: Precision, compiled: bool) -> None:
    """Makes a model's layers, its children with weights, compute in bfloat16 or compiled while it is in training mode.

    In evaluation they compute in float32 and uncompiled, so that figures and files don't depend on this. TF32 is the
    matter of :func:`multiplying`.

    Args:
        model: The model, on its device.
        precision: Of products and convolutions.
        compiled: Whether ``torch.compile`` makes kernels of its own.
    """
    if precision == "bf16" or compiled:
        for layer in model.children():
            if next(layer.parameters(), None) is not None:
                layer.forward = _executing(layer, precision, compiled)


def _executing(layer: nn.Module, precision: Precision, compiled: bool) -> Callable[..., Any]:
    plain = layer.forward
    quick = torch.compile(plain, dynamic=False) if compiled else plain

    def forward(*inputs: Any) -> Any:
        if not layer.training:
            return plain(*inputs)
        if precision != "bf16":
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

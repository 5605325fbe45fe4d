"""Many tensors from a device to the host, with one transfer for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


def to_host(tensors: Sequence[Tensor]) -> list[Array]:
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


def unpack(row: NDArray[np.uint8], like: Sequence[Tensor]) -> list[Array]:
    """Undoes `pack`."""
    arrays, begin = [], 0
    for tensor in like:
        dtype = torch.empty(0, dtype=tensor.dtype).numpy().dtype
        size = tensor.numel() * dtype.itemsize
        arrays.append(row[begin : begin + size].view(dtype).reshape(tuple(tensor.shape)).copy())
        begin += size + -size % 8
    return arrays

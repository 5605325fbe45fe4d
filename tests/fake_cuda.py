"""A graphics card that isn't there: tensors know their shape and device, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode


class Indexing(TorchFunctionMode):
    """Indexes by operators: square brackets ask for the device's driver, which isn't there."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function is not torch.Tensor.__getitem__:
            result = function(*arguments, **(keywords or {}))
            if function in (torch.Tensor.cpu, torch.Tensor.to) and result.device != arguments[0].device:
                raise AssertionError("a hidden transfer")
            return result
        tensor, key = arguments
        keys = list(key) if isinstance(key, tuple) else [key]
        if any(each is Ellipsis for each in keys):
            place = next(index for index, each in enumerate(keys) if each is Ellipsis)
            given = sum(each is not None for each in keys) - 1
            keys[place : place + 1] = [slice(None)] * (tensor.dim() - given)
        dimension, advanced = 0, {}
        for each in keys:
            if each is None:
                tensor = tensor.unsqueeze(dimension)
            elif isinstance(each, int):
                tensor = tensor.select(dimension, each)
                continue
            elif isinstance(each, slice):
                tensor = torch.ops.aten.slice.Tensor(tensor, dimension, each.start, each.stop, each.step or 1)
            else:
                advanced[dimension] = each
            dimension += 1
        if advanced:
            tensor = torch.ops.aten.index.Tensor(tensor, [advanced.get(place) for place in range(dimension)])
        return tensor


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Within this, tensors may be made on ``cuda``; to look at one, or to move it, is an error."""
    with FakeTensorMode(allow_non_fake_inputs=True), Indexing():
        yield


def put_on_cuda(module: nn.Module, requires_grad: bool = False) -> nn.Module:
    """Replaces a module's parameters and buffers by empty ones on ``cuda``."""
    for part in module.modules():
        for kind in (part._parameters, part._buffers):
            for name, tensor in kind.items():
                if tensor is not None:
                    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                    is_parameter = kind is part._parameters
                    kind[name] = nn.Parameter(empty, requires_grad) if is_parameter else empty
    return module

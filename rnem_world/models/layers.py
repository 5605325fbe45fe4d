"""Layers that several parts share: matrix products by the quicker library, layer norm, and resize-convolutions.

Layer norm takes mean and variance over everything but the batch, with eps 1e-12 and, on maps, one scale and shift
per channel. That is group norm with one group, and what the paper's program has.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rnem_world.device import multiplying

CUDA = torch.device("cuda")
# Added to the variance by layer norm.
EPSILON = 1e-12
# Convolutions of fewer channels fill no vector of the processor.
FEW_CHANNELS = 4
# Multiplications below which a call costs more than the product.
FEWEST_PRODUCTS = 2**20
# oneDNN falls back to a very slow loop for some narrow matrices, and gains nothing on them.
SMALLEST_AXIS = 16


Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def own_precision(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Lets a function compute in the model's own precision, whatever ``torch.autocast`` its caller is in.

    On CUDA nothing is rounded to TF32 either, which PyTorch by itself does in convolutions.
    """

    @functools.wraps(function)
    def run(*args: Parameters.args, **keywords: Parameters.kwargs) -> Result:
        ambient = [device for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)]
        on_cuda = torch.cuda.is_initialized()  # else there is no tensor there
        if not ambient and not on_cuda:
            return function(*args, **keywords)
        with contextlib.ExitStack() as stack:
            for device in ambient:
                stack.enter_context(torch.autocast(device, enabled=False))
            if on_cuda:
                stack.enter_context(multiplying("float32", CUDA))
            return function(*args, **keywords)

    return run


class _OneDNNAffine(torch.autograd.Function):
    """``x w' + b`` and its gradients, each as one oneDNN product."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, inputs: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return _product(inputs, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        needs: tuple[bool, ...] = ctx.needs_input_grad  # type: ignore[attr-defined]
        gradient = gradients[0].contiguous()
        return (
            _product(gradient, weight.t()) if needs[0] else None,
            _product(gradient.t(), inputs.t()) if needs[1] else None,
            gradient.sum(dim=0) if needs[2] else None,
        )


def _product(rows: Tensor, columns: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, columns, bias, "none", [], "")
    return product


@functools.cache
def has_onednn() -> bool:
    """Whether this PyTorch has oneDNN's linear operator, and it does what is expected of it.

    The operator is not part of PyTorch's public interface, so another release may have it otherwise or not at all.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    rows, columns = torch.eye(SMALLEST_AXIS), torch.arange(2.0 * SMALLEST_AXIS).view(2, SMALLEST_AXIS)
    try:
        product = _product(rows, columns, torch.ones(2))
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(product, columns.t() + 1.0)


def suits_onednn(inputs: Tensor, weight: Tensor) -> bool:
    """Whether a product should go to oneDNN: single precision on the CPU, and large enough."""
    if torch.compiler.is_compiling():  # which can't lower the operator for weights that change, nor export it
        return False
    outputs, width = weight.shape
    rows = inputs.numel() // width
    return (
        min(rows, outputs, width) >= SMALLEST_AXIS
        and rows * outputs * width >= FEWEST_PRODUCTS
        and weight.device.type == "cpu"
        and inputs.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and has_onednn()
    )


def affine(
    inputs: Float[Tensor, "*n i"],
    weight: Float[Tensor, "o i"],
    bias: Float[Tensor, " o"] | None,
) -> Float[Tensor, "*n o"]:
    """Computes ``x w' + b`` for every row x.

    ``F.linear`` multiplies by MKL, which uses half the width of the vector units of some AMD processors; oneDNN,
    which PyTorch convolves with, knows them all.

    Args:
        inputs: The rows.
        weight: w.
        bias: b.
    """
    if not suits_onednn(inputs, weight):
        return F.linear(inputs, weight, bias)
    # Where rows lie apart, oneDNN falls back to its slow loop too.
    rows = inputs.reshape(-1, inputs.shape[-1]).contiguous()
    outputs: Tensor = _OneDNNAffine.apply(rows, weight.contiguous(), bias)  # type: ignore[no-untyped-call]
    return outputs.view(*inputs.shape[:-1], weight.shape[0])


class Affine(nn.Linear):
    """A fully connected layer, with Glorot-uniform weights and zero biases."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias=bias)
        nn.init.xavier_uniform_(self.weight)
        if bias:
            nn.init.zeros_(self.bias)

    def forward(self, input: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        """Multiplies every row; see :func:`affine`."""
        return affine(input, self.weight, self.bias)


class VectorNorm(nn.LayerNorm):
    """Layer norm over the last axis."""

    def __init__(self, size: int) -> None:
        super().__init__(size, eps=EPSILON)


class MapNorm(nn.GroupNorm):
    """Layer norm over channels, height and width together, with a scale and a shift per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels, eps=EPSILON)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Gives the zeros before and after an axis under TensorFlow's rule SAME.

    The output then has ``ceil(size / stride)`` elements; an odd number of zeros puts the extra one behind.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConvolution(nn.Conv2d):
    """A convolution of maps of one height and width, padded by the rule SAME."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, size: tuple[int, int]) -> None:
        rows, columns = (same_padding(each, kernel, stride) for each in size)
        symmetric = rows[0] == rows[1] and columns[0] == columns[1]
        super().__init__(inputs, outputs, kernel, stride, padding=(rows[0], columns[0]) if symmetric else 0)
        self.around = (*columns, *rows)
        self.pads_first = not symmetric
        self.output_size = (-(-size[0] // stride), -(-size[1] // stride))
        # Few channels leave the processor's vectors empty; blocks of stride x stride pixels fill them.
        self.by_blocks = stride > 1 and kernel % stride == 0 and inputs < FEW_CHANNELS
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]  # the bias exists: nn.Conv2d's default

    def forward(self, input: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        """Convolves; h2 = ceil(h / stride)."""
        if self.by_blocks:
            blocks = F.pixel_unshuffle(F.pad(input, self.around), self.stride[0])
            blocks = blocks.contiguous(memory_format=torch.channels_last)
            return F.conv2d(blocks, F.pixel_unshuffle(self.weight, self.stride[0]), self.bias)
        if self.pads_first:
            input = F.pad(input, self.around)
        return super().forward(input)


def phase_taps(kernel: int, scale: int) -> tuple[Float[Tensor, "scale width kernel"], int]:
    """Says which inputs a convolution behind a nearest-neighbour resize really reads.

    Output pixel ``scale * i + phase`` of a SAME convolution over the resized axis sums ``kernel`` taps; tap d reads
    input ``i + floor((phase - before + d) / scale)``. Several taps read the same input, so their weights may be
    added first: the resized map is never made.

    Returns:
        A 0/1 tensor (phase, input offset, tap), and the offset that its first column stands for (at most 0).
    """
    before = (kernel - 1) // 2
    first = (-before) // scale
    last = (scale - 1 - before + kernel - 1) // scale
    taps = torch.zeros(scale, last - first + 1, kernel)
    for phase in range(scale):
        for tap in range(kernel):
            taps[phase, (phase - before + tap) // scale - first, tap] = 1.0
    return taps, first


class ResizeConvolution(nn.Module):
    """A nearest-neighbour resize followed by a SAME convolution with stride 1, computed without the resize.

    A whole factor folds into one operation on the small map that is equal in exact arithmetic: a transposed
    convolution whose kernel is the original one convolved with a square of ones, or, where there are few output
    channels, a convolution that makes all phases at once, followed by a pixel shuffle.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, scale: int, size: tuple[int, int], offset: int = 0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.weight)
        self.scale = scale
        self.output_size = (scale * size[0] + offset, scale * size[1] + offset)
        self.padding = ((kernel - 1) // 2, kernel // 2)
        self.folds = offset == 0
        self.by_phases = outputs < 4
        taps, first = phase_taps(kernel, scale)
        self.phase_padding = (-first, taps.shape[1] - 1 + first)
        self.register_buffer("taps", taps, persistent=False)
        self.taps: Tensor

    def forward(self, maps: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        """Resizes and convolves; h2 = scale * h + offset."""
        if not self.folds:
            resized = F.interpolate(maps, size=self.output_size, mode="nearest")
            before, after = self.padding
            return F.conv2d(F.pad(resized, (before, after, before, after)), self.weight, self.bias)
        if self.by_phases:
            return self._by_phases(maps)
        return self._transposed(maps)

    def _by_phases(self, maps: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        scale, outputs = self.scale, self.weight.shape[0]
        kernels = torch.einsum("oiyx,auy,bvx->oabiuv", self.weight, self.taps, self.taps)
        kernels = kernels.reshape(outputs * scale * scale, *kernels.shape[3:])
        bias = self.bias.repeat_interleave(scale * scale)
        before, after = self.phase_padding
        if before == after:
            phases = F.conv2d(maps, kernels, bias, padding=before)
        else:
            phases = F.conv2d(F.pad(maps, (before, after, before, after)), kernels, bias)
        return F.pixel_shuffle(phases, scale)

    def _transposed(self, maps: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        # Output p receives input i through the taps with floor((p - before + d) / scale) = i; correlating the
        # flipped kernel with a square of ones adds exactly those, for each distance p - scale * i.
        scale, kernel = self.scale, self.weight.shape[2]
        flipped = self.weight.flip(2, 3).transpose(0, 1)
        inputs, outputs = flipped.shape[:2]
        ones = flipped.new_ones(1, 1, scale, scale)
        folded = F.conv2d(flipped.reshape(-1, 1, kernel, kernel), ones, padding=scale - 1)
        folded = folded.view(inputs, outputs, kernel + scale - 1, kernel + scale - 1)
        padding = kernel - 1 - self.padding[0]
        output_padding = self.output_size[0] - (
            (maps.shape[2] - 1) * scale - 2 * padding + kernel + scale - 1
        )
        return F.conv_transpose2d(
            maps, folded, self.bias, stride=scale, padding=padding, output_padding=output_padding
        )

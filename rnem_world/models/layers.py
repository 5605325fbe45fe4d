"""Layers that several parts share: layer norm as the paper's program has it, and resize-convolutions.

Layer norm takes mean and variance over everything but the batch, with eps 1e-12 and, on maps, one scale and shift
per channel. That is group norm with one group.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-12
FEW_CHANNELS = 4


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
    """A convolution of square maps padded by the rule SAME."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, size: int) -> None:
        before, after = same_padding(size, kernel, stride)
        symmetric = before == after
        super().__init__(inputs, outputs, kernel, stride, padding=before if symmetric else 0)
        self.extra_padding = None if symmetric else (before, after, before, after)
        self.output_size = -(-size // stride)
        # Few channels leave the processor's vectors empty; blocks of stride x stride pixels fill them.
        self.by_blocks = stride > 1 and kernel % stride == 0 and inputs < FEW_CHANNELS
        self.around = (before, after, before, after)
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]  # the bias exists: nn.Conv2d's default

    def forward(self, input: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        """Convolves; h2 = ceil(h / stride)."""
        if self.by_blocks:
            blocks = F.pixel_unshuffle(F.pad(input, self.around), self.stride[0])
            blocks = blocks.contiguous(memory_format=torch.channels_last)
            return F.conv2d(blocks, F.pixel_unshuffle(self.weight, self.stride[0]), self.bias)
        if self.extra_padding is not None:
            input = F.pad(input, self.extra_padding)
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
        self, inputs: int, outputs: int, kernel: int, scale: int, size: int, offset: int = 0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.weight)
        self.scale = scale
        self.output_size = scale * size + offset
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
            resized = F.interpolate(maps, size=(self.output_size, self.output_size), mode="nearest")
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
        output_padding = self.output_size - ((maps.shape[2] - 1) * scale - 2 * padding + kernel + scale - 1)
        return F.conv_transpose2d(
            maps, folded, self.bias, stride=scale, padding=padding, output_padding=output_padding
        )

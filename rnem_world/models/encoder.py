"""The encoder: from each slot's masked error to a vector."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rnem_world.models.affine import Affine
from rnem_world.models.config import ImageArchitecture
from rnem_world.models.layers import MapNorm, SameConvolution, VectorNorm


class Encoder(nn.Module):
    """Convolutions with layer norm and ELU, then one fully connected layer of the same kind."""

    def __init__(self, architecture: ImageArchitecture, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        size = architecture.image_size
        for layer in architecture.convolutions:
            convolution = SameConvolution(channels, layer.channels, layer.kernel, layer.stride, size)
            self.convolutions.append(convolution)
            self.norms.append(MapNorm(layer.channels))
            size, channels = convolution.output_size, layer.channels
        self.linear = Affine(size * size * channels, architecture.encoding_size)
        self.norm = VectorNorm(architecture.encoding_size)

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Encodes one map for every slot of every sequence (n = batch * slots)."""
        maps = maps.contiguous(memory_format=torch.channels_last)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            maps = F.elu(norm(convolution(maps)))
        # Rows, columns, channels: the order of the original's weights, and of the memory.
        vectors = maps.permute(0, 2, 3, 1).flatten(1)
        return F.elu(self.norm(self.linear(vectors)))

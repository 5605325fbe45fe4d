"""Vision: encoders from what a slot sees to a vector, and decoders from a slot to the maps that it draws."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rnem_world.models.config import ImageArchitecture, ProjectionArchitecture
from rnem_world.models.layers import Affine, MapNorm, ResizeConvolution, SameConvolution, VectorNorm


class Encoder(nn.Module):
    """Convolutions with layer norm and ELU, then one fully connected layer of the same kind."""

    def __init__(self, architecture: ImageArchitecture, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        size = architecture.size
        for layer in architecture.convolutions:
            convolution = SameConvolution(channels, layer.channels, layer.kernel, layer.stride, size)
            self.convolutions.append(convolution)
            self.norms.append(MapNorm(layer.channels))
            size, channels = convolution.output_size, layer.channels
        self.linear = Affine(size[0] * size[1] * channels, architecture.encoding_size)
        self.norm = VectorNorm(architecture.encoding_size)

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Encodes one map for every slot of every sequence (n = batch * slots)."""
        maps = maps.contiguous(memory_format=torch.channels_last)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            maps = F.elu(norm(convolution(maps)))
        # Rows, columns, channels: the order of the original's weights, and of the memory.
        vectors = maps.permute(0, 2, 3, 1).flatten(1)
        return F.elu(self.norm(self.linear(vectors)))


class Decoder(nn.Module):
    """Two fully connected layers and resize-convolutions, with layer norm and ReLU except at the end."""

    def __init__(self, architecture: ImageArchitecture, inputs: int, channels: int) -> None:
        super().__init__()
        *map_size, map_channels = architecture.decoder_map
        self.map_shape = (*map_size, map_channels)
        self.height, self.width = architecture.size
        hidden = architecture.decoder_hidden_size
        map_elements = math.prod(self.map_shape)
        self.linears = nn.ModuleList([Affine(inputs, hidden), Affine(hidden, map_elements)])
        self.linear_norms = nn.ModuleList([VectorNorm(hidden), VectorNorm(map_elements)])
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        size, previous = (self.map_shape[0], self.map_shape[1]), map_channels
        last = len(architecture.upsamplings) - 1
        for index, layer in enumerate(architecture.upsamplings):
            outputs = channels if index == last else layer.channels
            convolution = ResizeConvolution(previous, outputs, layer.kernel, layer.scale, size, layer.offset)
            self.convolutions.append(convolution)
            if index < last:
                self.norms.append(MapNorm(outputs))
            size, previous = convolution.output_size, outputs

    def forward(self, vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n c h w"]:
        """Decodes one vector for every slot of every sequence (n = batch * slots) into logits."""
        for layer, norm in zip(self.linears, self.linear_norms, strict=True):
            vectors = F.relu(norm(layer(vectors)))
        maps: Tensor = vectors.unflatten(1, self.map_shape)
        maps = maps.permute(0, 3, 1, 2)
        for convolution, norm in zip(self.convolutions, self.norms, strict=False):
            maps = F.relu(norm(convolution(maps)))
        logits: Tensor = self.convolutions[-1](maps)
        return logits[:, :, : self.height, : self.width]


def _means(maps: Float[Tensor, "n c h w"], size: tuple[int, int]) -> Float[Tensor, "n c p q"]:
    """Means over the rectangles of a grid: of as many as there are pixels they are the pixels."""
    height, width = maps.shape[-2:]
    if (height, width) == size:
        return maps
    if height % size[0] == 0 and width % size[1] == 0:
        return F.avg_pool2d(maps, (height // size[0], width // size[1]))
    return F.adaptive_avg_pool2d(maps, size)


class ProjectionEncoder(nn.Module):
    """Row sums, column sums and means over squares of every channel, then two fully connected layers.

    Where a compact object is, and how large, is a linear function of such sums.
    """

    def __init__(self, architecture: ProjectionArchitecture, channels: int) -> None:
        super().__init__()
        (height, width), self.pooled_size = architecture.size, architecture.pooled_size
        features = channels * (height + width + math.prod(self.pooled_size))
        encoding = architecture.encoding_size
        # A ball's row sums are of the size of its diameter; means over squares are below 1.
        self.row_scale, self.column_scale = 4.0 / width, 4.0 / height
        self.linear = Affine(features, encoding)
        self.norm = VectorNorm(encoding)
        self.second = Affine(encoding, encoding)
        self.second_norm = VectorNorm(encoding)

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Encodes one map for every slot of every sequence (n = batch * slots)."""
        rows = maps.sum(dim=3) * self.row_scale
        columns = maps.sum(dim=2) * self.column_scale
        pooled = _means(maps, self.pooled_size)
        features = torch.cat([rows.flatten(1), columns.flatten(1), pooled.flatten(1)], dim=1)
        hidden = F.elu(self.norm(self.linear(features)))
        return F.elu(self.second_norm(self.second(hidden)))


class ProjectionDecoder(nn.Module):
    """Logits as a sum of a row profile, a column profile and a few products of both."""

    def __init__(self, architecture: ProjectionArchitecture, inputs: int, channels: int) -> None:
        super().__init__()
        (self.height, self.width), self.channels = architecture.size, channels
        self.profiles_of_each = 1 + architecture.rank
        hidden = architecture.decoder_hidden_size
        self.first = Affine(inputs, hidden)
        self.first_norm = VectorNorm(hidden)
        self.second = Affine(hidden, hidden)
        self.second_norm = VectorNorm(hidden)
        self.profiles = Affine(hidden, channels * (self.height + self.width) * self.profiles_of_each)

    def forward(self, vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n c h w"]:
        """Decodes one vector for every slot of every sequence (n = batch * slots) into logits."""
        hidden = F.relu(self.first_norm(self.first(vectors)))
        hidden = F.relu(self.second_norm(self.second(hidden)))
        number = self.profiles_of_each
        profiles = self.profiles(hidden).view(-1, number * (self.height + self.width))
        rows = profiles[:, : number * self.height].unflatten(1, (number, self.height))
        columns = profiles[:, number * self.height :].unflatten(1, (number, self.width))
        # rank + 1 products and the sum of the first profiles, in one small matrix product each
        logits = torch.matmul(rows[:, 1:].transpose(1, 2), columns[:, 1:])
        logits = logits + rows[:, 0, :, None] + columns[:, 0, None, :]
        result: Tensor = logits.view(-1, self.channels, self.height, self.width)
        return result

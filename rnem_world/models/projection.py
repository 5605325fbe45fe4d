"""An encoder and a decoder without convolutions: objects by their shadows on the two axes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rnem_world.models.affine import Affine
from rnem_world.models.config import ProjectionArchitecture
from rnem_world.models.layers import VectorNorm


class ProjectionEncoder(nn.Module):
    """Row sums, column sums and means over squares of every channel, then two fully connected layers.

    Where a compact object is, and how large, is a linear function of such sums.
    """

    def __init__(self, architecture: ProjectionArchitecture, channels: int) -> None:
        super().__init__()
        size, self.pooled_size = architecture.image_size, architecture.pooled_size
        features = channels * (2 * size + self.pooled_size**2)
        width = architecture.encoding_size
        # A ball's row sums are of the size of its diameter; means over squares are below 1.
        self.scale = 4.0 / size
        self.linear = Affine(features, width)
        self.norm = VectorNorm(width)
        self.second = Affine(width, width)
        self.second_norm = VectorNorm(width)

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Encodes one map for every slot of every sequence (n = batch * slots)."""
        rows = maps.sum(dim=3) * self.scale
        columns = maps.sum(dim=2) * self.scale
        pooled = F.adaptive_avg_pool2d(maps, self.pooled_size)
        features = torch.cat([rows.flatten(1), columns.flatten(1), pooled.flatten(1)], dim=1)
        hidden = F.elu(self.norm(self.linear(features)))
        return F.elu(self.second_norm(self.second(hidden)))


class ProjectionDecoder(nn.Module):
    """Logits as a sum of a row profile, a column profile and a few products of both."""

    def __init__(self, architecture: ProjectionArchitecture, inputs: int, channels: int) -> None:
        super().__init__()
        self.size, self.rank, self.channels = architecture.image_size, architecture.rank, channels
        hidden = architecture.decoder_hidden_size
        self.first = Affine(inputs, hidden)
        self.first_norm = VectorNorm(hidden)
        self.second = Affine(hidden, hidden)
        self.second_norm = VectorNorm(hidden)
        self.profiles = Affine(hidden, channels * 2 * self.size * (1 + self.rank))

    def forward(self, vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n c h w"]:
        """Decodes one vector for every slot of every sequence (n = batch * slots) into logits."""
        hidden = F.relu(self.first_norm(self.first(vectors)))
        hidden = F.relu(self.second_norm(self.second(hidden)))
        profiles = self.profiles(hidden).view(-1, 2, 1 + self.rank, self.size)
        rows, columns = profiles.unbind(dim=1)
        # rank + 1 products and the sum of the first profiles, in one small matrix product each
        logits = torch.matmul(rows[:, 1:].transpose(1, 2), columns[:, 1:])
        logits = logits + rows[:, 0, :, None] + columns[:, 0, None, :]
        result: Tensor = logits.view(-1, self.channels, self.size, self.size)
        return result

"""The decoder: from each slot's vector to the logits of its frame."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rnem_world.models.affine import Affine
from rnem_world.models.config import ImageArchitecture
from rnem_world.models.layers import MapNorm, ResizeConvolution, VectorNorm


class Decoder(nn.Module):
    """Two fully connected layers and resize-convolutions, with layer norm and ReLU except at the end."""

    def __init__(self, architecture: ImageArchitecture, inputs: int, channels: int) -> None:
        super().__init__()
        self.map_size, self.map_channels = architecture.decoder_map
        hidden = architecture.decoder_hidden_size
        map_elements = self.map_size**2 * self.map_channels
        self.linears = nn.ModuleList([Affine(inputs, hidden), Affine(hidden, map_elements)])
        self.linear_norms = nn.ModuleList([VectorNorm(hidden), VectorNorm(map_elements)])
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        size, previous = self.map_size, self.map_channels
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
        maps: Tensor = vectors.unflatten(1, (self.map_size, self.map_size, self.map_channels))
        maps = maps.permute(0, 3, 1, 2)
        for convolution, norm in zip(self.convolutions, self.norms, strict=False):
            maps = F.relu(norm(convolution(maps)))
        logits: Tensor = self.convolutions[-1](maps)
        return logits

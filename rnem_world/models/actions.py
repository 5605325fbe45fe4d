"""Actions of every kind: one whole number, several of them, bits, or real numbers; and what the core is fed of them."""

from __future__ import annotations

import itertools
from typing import TypeAlias

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional as F

from rnem_world.errors import ConfigError
from rnem_world.models.config import ModelConfig
from rnem_world.models.layers import Affine, VectorNorm

# Integers (b,), integers (b, d) or floats (b, d), as a model's configuration says.
Actions: TypeAlias = Num[Tensor, "b ..."]
# Places between the bounds of a real number that have an embedding of their own; between them it is interpolated.
PLACES = 5


class ActionEmbedding(nn.Module):
    """One fully connected layer with layer norm and ReLU over actions as vectors.

    One whole number is a one-hot vector, several are theirs side by side, bits are 0 and 1. A real number is spread
    over five places between its bounds, the two next to it sharing 1 by nearness: a single linear feature would lose
    its size to the layer norm. What lies outside the bounds counts as the bound.

    Args:
        config: The model's, with actions of one kind or another.
    """

    offsets: Tensor
    low: Tensor
    spacing: Tensor
    places: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        actions = config.actions
        self.kind = "discrete" if actions is None else actions.kind
        self.length = 0 if actions is None else actions.length
        features = config.number_of_actions
        self.described = f"numbers below {features}"
        if actions is not None:
            self.described = f"{self.kind} of {self.length}"
            features = {"multi_discrete": sum(actions.sizes), "multi_binary": self.length, "box": 0}[
                actions.kind
            ]
            if actions.kind == "multi_discrete":
                offsets = [0, *itertools.accumulate(actions.sizes[:-1])]
                self._keep("offsets", torch.tensor(offsets))
            if actions.kind == "box":
                features = PLACES * self.length
                low, high = torch.tensor(actions.low), torch.tensor(actions.high)
                self._keep("low", low)
                self._keep("spacing", (high - low) / (PLACES - 1))
                self._keep("places", torch.arange(PLACES, dtype=low.dtype))
        self.linear = Affine(features, config.action_size)
        self.norm = VectorNorm(config.action_size)

    def _keep(self, name: str, values: Tensor) -> None:
        """Keeps constants that follow the model from device to device; the configuration has them already."""
        self.register_buffer(name, values, persistent=False)

    def forward(self, actions: Actions) -> Float[Tensor, "b a"]:
        """Embeds one action a sequence.

        Raises:
            ConfigError: If actions have the shape of another kind.
        """
        if actions.shape[1:] != ((self.length,) if self.length else ()):
            expected = f"{self.length} numbers" if self.length else "one number"
            raise ConfigError(
                f"actions of the shape {tuple(actions.shape)} were given, and the model knows {self.described}: "
                f"expected {expected} a sequence"
            )
        embedded: Tensor
        match self.kind:
            case "discrete":  # a product with one-hot vectors picks columns
                embedded = self.linear.weight.t()[actions] + self.linear.bias
            case "multi_discrete":
                embedded = self.linear.weight.t()[actions + self.offsets].sum(dim=1) + self.linear.bias
            case "multi_binary":
                embedded = self.linear(actions.to(self.linear.weight.dtype))
            case _:
                embedded = self.linear(self._spread(actions.to(self.linear.weight.dtype)).flatten(1))
        return F.relu(self.norm(embedded))

    def _spread(self, actions: Float[Tensor, "b d"]) -> Float[Tensor, "b d places"]:
        """Spreads real numbers over places: 1 at a place, falling to 0 at those beside it."""
        position = ((actions - self.low) / self.spacing).clamp(0.0, PLACES - 1.0)
        return (1.0 - (position[..., None] - self.places).abs()).clamp(min=0.0)

    def zeros(self, batch_size: int) -> Actions:
        """Gives actions that are all 0: number 0, no bit, or real zeros."""
        like = self.linear.weight
        if self.kind == "box":
            return like.new_zeros(batch_size, self.length)
        shape = (batch_size, self.length) if self.length else (batch_size,)
        return torch.zeros(shape, dtype=torch.int64, device=like.device)

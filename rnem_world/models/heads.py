"""Heads on the slots: what a transition earns, and whether it ends the episode."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rnem_world.models.affine import Affine
from rnem_world.models.layers import VectorNorm


class HeadOutput(NamedTuple):
    """What the heads say of a transition.

    Attributes:
        rewards: Float (b, k), each slot's share of the reward; their sum is the prediction.
        termination: Float (b,), logit that the transition ends the episode.
    """

    rewards: Tensor
    termination: Tensor


class Heads(nn.Module):
    """One hidden layer on every slot, and a share of the reward and of the termination's logit from each.

    Shares that add up make visible which object earns what, and let the number of slots change.
    """

    def __init__(self, inputs: int, hidden_size: int = 64) -> None:
        super().__init__()
        self.hidden = Affine(inputs, hidden_size)
        self.norm = VectorNorm(hidden_size)
        self.shares = Affine(hidden_size, 2)

    def forward(self, slots: Float[Tensor, "b k d"]) -> HeadOutput:
        """Reads the slots after a transition."""
        rewards, terminations = self.shares(F.elu(self.norm(self.hidden(slots)))).unbind(dim=2)
        return HeadOutput(rewards, terminations.sum(dim=1))

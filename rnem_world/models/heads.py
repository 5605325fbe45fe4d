"""Small networks on the slots: what a transition earns, whether it ends the episode, what slots would see next."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rnem_world.models.layers import Affine, VectorNorm


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


class PriorCode(nn.Module):
    """Expects a slot's code from the slot itself.

    A model that imagines in pixels draws its slots, makes the frame black and white, sorts the pixels to the slots and
    encodes them. All of that is a function of the slots, and nearly of each by itself: the slot tells what it draws
    now, and the slot of the step before what it drew then. Two hidden layers learn that function; they end as the
    encoders do, so that their codes have the same range.
    """

    def __init__(self, state_size: int, encoding_size: int, hidden_size: int = 256) -> None:
        super().__init__()
        self.first = Affine(2 * state_size, hidden_size)
        self.first_norm = VectorNorm(hidden_size)
        self.second = Affine(hidden_size, hidden_size)
        self.second_norm = VectorNorm(hidden_size)
        self.code = Affine(hidden_size, encoding_size)
        self.code_norm = VectorNorm(encoding_size)

    def forward(
        self, before: Float[Tensor, "b k s"], theta: Float[Tensor, "b k s"]
    ) -> Float[Tensor, "b k e"]:
        """Expects the codes of the frame that ``theta`` draws.

        Args:
            before: The slots one step earlier, which drew the frame before.
            theta: The slots.
        """
        hidden = F.elu(self.first_norm(self.first(torch.cat([before, theta], dim=2))))
        hidden = F.elu(self.second_norm(self.second(hidden)))
        return F.elu(self.code_norm(self.code(hidden)))

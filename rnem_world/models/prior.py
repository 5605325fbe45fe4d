"""The prior code: what the encoder would make of the model's own frame, without drawing it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rnem_world.models.affine import Affine
from rnem_world.models.layers import VectorNorm


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

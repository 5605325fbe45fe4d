"""What dreams are made of. `WorldModel.start_imagination` makes them and `WorldModel.dream_step` takes them further."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

DreamImagination = Literal["latent", "pixels"]


@dataclass(frozen=True)
class DreamState:
    """All that a dream's future depends on, beside the actions.

    Attributes:
        theta: Float (b, k, s), the slots.
        output: Float (b, k, d), what the decoder reads of them.
        code: Float (b, k, e), what each slot sees of the current frame, or expects to see.
        frame: Float (b, c, h, w), the current frame, made hard, for models whose slots see motion and that
            imagine in pixels; None otherwise.
    """

    theta: Tensor
    output: Tensor
    code: Tensor
    frame: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> DreamState:
        """Applies a function to every tensor, as ``lambda tensor: tensor[rows]`` to pick dreams."""
        frame = None if self.frame is None else function(self.frame)
        return DreamState(function(self.theta), function(self.output), function(self.code), frame)


@dataclass(frozen=True)
class DreamStep:
    """One imagined transition.

    Attributes:
        state: The dream after it.
        rewards: Float (b, k), each slot's share of the reward; None without heads.
        termination: Float (b,), the logit that the episode ends; None without heads.
        attention: Float (b, k, k - 1), each slot's attention to the others in increasing order; None without.
        prediction: Float (b, k, m, h, w), what the slots predict; None in latent imagination, where nothing is drawn.
    """

    state: DreamState
    rewards: Tensor | None
    termination: Tensor | None
    attention: Tensor | None
    prediction: Tensor | None


@dataclass(frozen=True)
class Picture:
    """What the slots draw.

    Attributes:
        prediction: Float (b, k, m, h, w), for each slot what its likelihood makes of it.
        frame: Float (b, c, h, w), the dream's frame, made hard.
        gamma: Float (b, k, 1, h, w), the slots' responsibilities for it.
    """

    prediction: Tensor
    frame: Tensor
    gamma: Tensor

"""What dreams are made of, and how they start; `WorldModel.dream_step` takes them a step further."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from jaxtyping import Float
from torch import Tensor

from rnem_world.errors import ConfigError, suggest

if TYPE_CHECKING:
    from rnem_world.models.world_model import SlotState, WorldModel

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


def check_imagination(
    model: WorldModel, imagination: str, known: Sequence[str] = get_args(DreamImagination)
) -> None:
    """Checks that the model can imagine in this way, one of those known.

    Raises:
        ConfigError: If the way is unknown, or the model has no prior code for latent imagination.
    """
    if imagination not in known:
        raise ConfigError(f"unknown imagination {imagination!r}: {suggest(imagination, known)}")
    if imagination == "latent":
        model.require_prior_code()


def start_imagination(
    model: WorldModel,
    state: SlotState,
    output: Float[Tensor, "b k d"],
    frame: Float[Tensor, "b c h w"],
) -> DreamState:
    """Starts dreams from the last real frame.

    Args:
        model: The model.
        state: The slots after the E-step on that frame.
        output: The output of the transition that led to them.
        frame: The last real frame, in [0, 1].
    """
    return DreamState(
        state.theta, output, model.encode(state, frame), frame if model.likelihood.sees_motion else None
    )

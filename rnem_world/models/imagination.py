"""Dreams that are stepped one action at a time: the slots, and what they are about to see."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, ParamSpec, TypeVar, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from rnem_world.errors import ConfigError, suggest
from rnem_world.models.world_model import SlotState, WorldModel

DreamImagination = Literal["latent", "pixels"]
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def own_precision(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Lets a function compute in the model's own precision, whatever ``torch.autocast`` its caller is in."""

    @functools.wraps(function)
    def run(*args: Parameters.args, **keywords: Parameters.kwargs) -> Result:
        ambient = [device for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)]
        if not ambient:
            return function(*args, **keywords)
        with contextlib.ExitStack() as stack:
            for device in ambient:
                stack.enter_context(torch.autocast(device, enabled=False))
            return function(*args, **keywords)

    return run


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


def draw(model: WorldModel, output: Float[Tensor, "b k d"]) -> Picture:
    """Draws a dream's slots."""
    return picture_of(model, model.likelihood.predict(model.decode(output)))


def picture_of(model: WorldModel, prediction: Float[Tensor, "b k m h w"]) -> Picture:
    """Makes the model's own frame of what the slots predict, and shares its pixels out by the E-step."""
    frame = model.likelihood.own_frame(prediction)
    return Picture(prediction, frame, model.likelihood.e_step(prediction, frame))


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


def dream_step(
    model: WorldModel,
    state: DreamState,
    actions: Int64[Tensor, " b"] | None,
    imagination: DreamImagination = "latent",
) -> DreamStep:
    """Imagines one transition of every dream.

    ``pixels`` draws the slots, makes their frame hard, and lets the slots see it as if it were real;
    ``latent`` lets the prior code tell what they would see. The result equals that of
    :func:`rnem_world.models.rollout.imagine` in the same way and without noise.

    Args:
        model: The model.
        state: The dreams.
        actions: One action each; None for a model without actions.
        imagination: ``latent`` or ``pixels``.

    Raises:
        ConfigError: If actions are missing or not wanted, or the model has no prior code.
    """
    step = model.core(state.theta, state.code, model.embed(actions, state.theta.shape[1]))
    heads = None if model.heads is None else model.heads(step.output)
    prediction = None
    if imagination == "latent":
        after = DreamState(step.theta, step.output, model.expect(state.theta, step.theta))
    else:
        picture = draw(model, step.output)
        prediction = picture.prediction
        seen = SlotState(step.theta, prediction, picture.gamma, state.frame)
        frame = picture.frame if model.likelihood.sees_motion else None
        after = DreamState(step.theta, step.output, model.encode(seen, picture.frame), frame)
    return DreamStep(
        after,
        None if heads is None else heads.rewards,
        None if heads is None else heads.termination,
        step.attention,
        prediction,
    )

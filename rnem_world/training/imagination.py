"""Learning from what the model imagines: the prior code from imagination in pixels, the heads from what really came."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.func import functional_call

from rnem_world.device import send
from rnem_world.models.actions import Actions
from rnem_world.models.cores import CoreOutput
from rnem_world.models.heads import HeadOutput, read_heads
from rnem_world.models.world_model import SlotState, WorldModel

Judge = Callable[[HeadOutput, int], Tensor]
"""Gives what the heads' output of a step costs, Float (n,)."""


class ImaginationLosses(NamedTuple):
    """What imagining costs.

    Attributes:
        codes: Float (), the prior code's error, with a gradient for its weights alone.
        heads: Float (), the heads' loss, with a gradient for their weights alone; 0 if nobody judges them.
    """

    codes: Tensor
    heads: Tensor


def imagination_losses(
    model: WorldModel,
    state: SlotState,
    frame: Float[Tensor, "n c h w"],
    actions: Actions | None,
    steps: int,
    weights: Float32[np.ndarray, " n"],
    before: Int64[np.ndarray, " n"],
    judge: Judge | None = None,
) -> ImaginationLosses:
    """Compares latent imagination with imagination in pixels, from the same slots under the same actions.

    Imagination in pixels draws its slots and sorts them out anew in every frame, so that what it says stays sharp; the
    prior code learns to say the same. A latent dream that goes on for long leads to slots that have not just watched
    real frames, where a prior code that has learned from nothing else lets objects slow down. So some sequences are
    imagined for a while first, and both ways part there.

    Args:
        model: A model with a prior code.
        state: The slots before the first frame; no gradient flows into them.
        frame: The first frame.
        actions: What is done, at least ``steps`` actions.
        steps: Frames to imagine.
        weights: Of the sequences, on the host.
        before: Frames of latent imagination before those, on the host.
        judge: Judges what the heads say of imagined steps, where imagination began with the real frame: only there is
            it known what came.

    Returns:
        Squared errors of the codes and of the slots that they lead to, and the heads' losses; means over steps of the
        weighted sums over sequences.
    """
    device = state.theta.device
    expect = model.require_prior_code().mean  # not spread: that would teach it to make up for the spreading
    weight, is_real = (send(torch.from_numpy(each), device) for each in (weights, before == 0))
    frozen = {name: parameter.detach() for name, parameter in model.core.named_parameters()}
    losses: list[Tensor] = []
    judged: list[Tensor] = []
    with torch.no_grad():
        code = model.encode(state, frame)
    theta, expected = state.theta, code
    if before.any():
        with torch.no_grad():
            earlier, state, frame = _imagine_on(model, state, code, frame, actions, before)
            code = model.encode(state, frame)
        theta = state.theta
        expected = torch.where(is_real[:, None, None], code, expect(earlier, theta))
        losses.append((weight * _error(expected, code)).sum())
    for step in range(steps):
        done = None if actions is None else actions[:, step]
        with torch.no_grad():
            transition = model.predict_from(state.theta, code, done, frame)
            frame = model.likelihood.own_frame(transition.prediction)
            state = model.update(transition, frame)
            code = model.encode(state, frame)
            action = model.embed(done, theta.shape[1])
        after: CoreOutput = functional_call(model.core, frozen, (theta, expected, action))
        expected = expect(theta, after.theta)
        theta = after.theta
        losses.append((weight * (_error(expected, code) + _error(theta, state.theta))).sum())
        if judge is not None and model.heads is not None:
            judged.append((weight * is_real * judge(_tell(model, after), step)).sum())
    codes = torch.stack(losses).mean()
    return ImaginationLosses(codes, torch.stack(judged).mean() if judged else torch.zeros_like(codes))


def _error(found: Tensor, wanted: Tensor) -> Float[Tensor, " n"]:
    return (found - wanted).square().mean(dim=(1, 2))


def _tell(model: WorldModel, step: CoreOutput) -> HeadOutput:
    """Lets the heads read slots that learn nothing from it."""
    if model.heads is None:
        raise ValueError("the model has no heads")
    effect = None if step.effect is None else step.effect.detach()
    seen = step._replace(output=step.output.detach(), effect=effect)
    return read_heads(model.heads, seen, model.config.heads_see)


def _imagine_on(
    model: WorldModel,
    state: SlotState,
    code: Float[Tensor, "n k e"],
    frame: Float[Tensor, "n c h w"],
    actions: Actions | None,
    numbers: Int64[np.ndarray, " n"],
) -> tuple[Tensor, SlotState, Tensor]:
    """Imagines latently for a number of frames that each sequence has of its own, its actions over and over again.

    Returns:
        The slots one step before the end; all of the slots' state at the end, as if they had watched their own frames;
        and their own frame at the end.
    """
    theta = before = state.theta
    output = earlier = torch.zeros_like(theta[:, :, : model.config.hidden_size])
    left = send(torch.from_numpy(numbers), theta.device)
    for step in range(int(numbers.max())):
        done = None if actions is None else actions[:, step % actions.shape[1]]
        after = model.core(theta, code, model.embed(done, theta.shape[1]))
        goes_on = (left > step)[:, None, None]
        code = torch.where(goes_on, model.expect(theta, after.theta), code)
        before = torch.where(goes_on, theta, before)
        theta = torch.where(goes_on, after.theta, theta)
        earlier = torch.where(goes_on, output, earlier)
        output = torch.where(goes_on, after.output, output)
    picture = model.draw(output)
    has_gone = (left > 0)[:, None, None, None]
    previous = state.frame
    if previous is not None:
        shown = torch.where((left > 1)[:, None, None, None], model.draw(earlier).frame, frame)
        previous = torch.where(has_gone, shown, previous)
    state = SlotState(
        theta,
        torch.where(has_gone[..., None], picture.prediction, state.prediction),
        torch.where(has_gone[..., None], picture.gamma, state.gamma),
        previous,
    )
    return before, state, torch.where(has_gone, picture.frame, frame)

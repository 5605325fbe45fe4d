"""Latent dreams that keep moving: expected codes are spread again as far as what moves needs it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rnem_world.data.dataset import Dataset
from rnem_world.data.episodes import usual_context
from rnem_world.data.schema import Split
from rnem_world.errors import DataError
from rnem_world.evaluation.truth import Truth, read_truth
from rnem_world.models.layers import own_precision
from rnem_world.models.rollout import imagine, observe
from rnem_world.models.world_model import DreamState, SlotState, WorldModel

EXPONENTS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
"""Powers of the codes' spread over that of what is expected, among which is chosen; 0 changes nothing."""
SEQUENCES, CONTEXT, SHORT, LONG = 96, 16, 10, 80
"""Dreams that are looked at, after so many real frames; how far they are to stay right, and for how long to move."""
_LARGEST = 3.0


class CodeSpread(NamedTuple):
    """How codes are spread, in imagination in pixels.

    Attributes:
        expected: Float (e,), means of what the prior code expects.
        seen: Float (e,), means of what the encoder then makes of the frame.
        ratio: Float (e,), standard deviations of the latter over those of the former.
    """

    expected: Tensor
    seen: Tensor
    ratio: Tensor

    def gain(self, exponent: float) -> tuple[Tensor, Tensor]:
        """Gives gain and shift for an exponent: with 1 codes are spread as they ought to be.

        With 2 a slope is undone that least squares have made too flat because the slots themselves, and not only what
        is drawn, are off now and then.
        """
        gain = self.ratio.clamp(1.0 / _LARGEST, _LARGEST) ** exponent
        return gain, (self.seen - gain * self.expected if exponent else torch.zeros_like(gain))


class CodeGain(NamedTuple):
    """What was chosen.

    Attributes:
        exponent: One of `EXPONENTS`.
        motion: By exponent, how much changes from frame to frame towards the end of a long latent dream, over what does
            in the data.
        errors: By exponent, how far frames are off within `SHORT` imagined ones: mean absolute differences.
    """

    exponent: float
    motion: dict[float, float]
    errors: dict[float, float]


@torch.no_grad()
@own_precision
def fit_code_gain(
    model: WorldModel, dataset: Dataset, split: Split, generator: torch.Generator
) -> CodeGain | None:
    """Chooses how far a model's expected codes are spread, and does so.

    Of the exponents that one is taken with which long latent dreams move most nearly as much as the data does, at the
    least cost of what short ones get right.

    Args:
        model: A model in evaluation mode; its prior code's gain and shift are set.
        dataset: Its data.
        split: Which sequences to look at.
        generator: Draws first responsibilities, on the model's device.

    Returns:
        None, and nothing is changed, for a model whose prior code has learnt nothing, or if sequences or all
        episodes are too short.
    """
    prior = model.prior_code
    context = usual_context(dataset) or CONTEXT
    needed = context + SHORT + 1
    if prior is None or not prior.has_learned or dataset.info(split).number_of_frames < needed or context < 3:
        return None
    try:
        truth = read_truth(dataset, split, SEQUENCES, needed, prior.gain.device, context, with_objects=False)
    except DataError:
        return None
    state, spread = _measure(model, truth, context, generator)
    differences = (truth.frames[:, 1:] - truth.frames[:, :-1]).abs().mean(dim=(2, 3, 4))
    lasts = truth.lasting(slice(1, None))
    real = float((differences * lasts).sum() / lasts.sum())
    motion: dict[float, float] = {}
    errors: dict[float, float] = {}
    for exponent in EXPONENTS:
        prior.spread(*spread.gain(exponent))
        errors[exponent], moved = _dream(model, state, truth, context)
        motion[exponent] = moved / max(real, 1e-9)
    chosen = choose(motion, errors)
    prior.spread(*spread.gain(chosen))
    return CodeGain(chosen, motion, errors)


def choose(motion: dict[float, float], errors: dict[float, float]) -> float:
    """Chooses an exponent: frames that are 5 % further off count as much as motion that is 10 % wrong.

    Planners look ahead for as long as the former are measured; long episodes need the latter.

    Args:
        motion: By exponent, over the data's.
        errors: By exponent.
    """

    def cost(exponent: float) -> float:
        return abs(math.log(max(motion[exponent], 1e-6))) + 2.0 * math.log(max(errors[exponent], 1e-6))

    return min(motion, key=cost)


def _measure(
    model: WorldModel, truth: Truth, context: int, generator: torch.Generator
) -> tuple[DreamState, CodeSpread]:
    """Watches, and compares codes with what is expected of them while imagining in pixels.

    Returns:
        Where dreams begin, and the spread.
    """
    prior = model.require_prior_code()
    frames, actions = truth.frames, truth.actions if model.config.takes_actions else None
    state: SlotState = model.initial_state(len(frames), generator=generator)
    before = output = state.theta
    for transition, after in observe(model, state, frames[:, :context], frames[:, 1 : context + 1], actions):
        before, state, output = state.theta, after, transition.output
    frame = frames[:, context]
    start = model.start_imagination(state, output, frame)
    expected: list[Tensor] = []
    seen: list[Tensor] = []
    done = None if actions is None else actions[:, context:]
    for shown, _, after in imagine(model, state, SHORT, done, "pixels", first_frame=frame):
        expected.append(prior.mean(before, state.theta))
        seen.append(model.encode(state, shown))
        before, state = state.theta, after
    said, wanted = torch.stack(expected).flatten(0, 2), torch.stack(seen).flatten(0, 2)
    ratio = wanted.std(dim=0) / said.std(dim=0).clamp(min=1e-3)
    return start, CodeSpread(said.mean(dim=0), wanted.mean(dim=0), ratio)


def _dream(model: WorldModel, state: DreamState, truth: Truth, context: int) -> tuple[float, float]:
    """Dreams latently for long, under the actions that were done, over and over again.

    Returns:
        How far the first `SHORT` frames are off, and how much changes from frame to frame in the last three quarters.
    """
    actions = truth.actions if model.config.takes_actions else None
    done: Float[Tensor, "..."] | None = None if actions is None else actions[:, context : context + SHORT]
    last, errors, moved = truth.frames[:, context], [], []
    lasts = truth.lasting(slice(context + 1, context + SHORT + 1))
    for step in range(LONG):
        state = model.dream_step(state, None if done is None else done[:, step % SHORT]).state
        frame = model.draw(state.output).frame
        if step < SHORT:
            off = (frame - truth.frames[:, context + 1 + step]).abs().mean(dim=(1, 2, 3))
            errors.append((off * lasts[:, step]).sum() / lasts[:, step].sum().clamp(min=1))
        if step >= LONG // 4:
            moved.append((frame - last).abs().mean())
        last = frame
    return float(torch.stack(errors).mean()), float(torch.stack(moved).mean())

"""How often slots are shown a first frame before anything happens: so often that they are right about what follows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rnem_world.actions import ActionSpace
from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import Split
from rnem_world.errors import DataError
from rnem_world.evaluation.truth import Truth, read_truth
from rnem_world.models.layers import own_precision
from rnem_world.models.rollout import observe
from rnem_world.models.world_model import WorldModel

SETTLE_STEPS = (0, 1, 2, 3, 4, 6)
"""Numbers of times among which is chosen."""
SEQUENCES, TRANSITIONS = 48, 8
"""Episodes that are looked at, and how many of their first transitions are told ahead."""


class Settling(NamedTuple):
    """What was chosen.

    Attributes:
        steps: One of `SETTLE_STEPS`.
        losses: By number of times, how far the frames that followed were off, in nats a frame.
    """

    steps: int
    losses: dict[int, float]


@torch.no_grad()
@own_precision
def fit_settle_steps(
    model: WorldModel,
    dataset: Dataset,
    split: Split,
    space: ActionSpace,
    still: tuple[int, ...] | None,
    generator: torch.Generator,
) -> Settling | None:
    """Chooses how often slots are shown a first frame, by what they then expect of the frames that follow.

    Looking again lets slots part, and lets them believe that nothing moves. Which matters more depends on the world:
    slots that have learned from first frames of episodes may need no second look.

    Args:
        model: A model in evaluation mode.
        dataset: Its data.
        split: Which episodes to look at.
        space: What an action is.
        still: What leaves the picture as it is, see `rnem_world.data.still.still_actions`.
        generator: Draws first responsibilities, on the model's device.

    Returns:
        None if sequences or all episodes are too short.
    """
    if dataset.info(split).number_of_frames <= TRANSITIONS:
        return None
    device = generator.device
    try:
        truth = read_truth(
            dataset, split, SEQUENCES, TRANSITIONS + 1, device, at_first=True, with_objects=False
        )
    except DataError:
        return None
    chance = generator.get_state()
    losses: dict[int, float] = {}
    for steps in SETTLE_STEPS:
        generator.set_state(chance)
        losses[steps] = _loss(model, truth, steps, space, still, generator)
    return Settling(min(losses, key=losses.__getitem__), losses)


def _loss(
    model: WorldModel,
    truth: Truth,
    steps: int,
    space: ActionSpace,
    still: tuple[int, ...] | None,
    generator: torch.Generator,
) -> float:
    """Shows first frames so often, and gives the mean error of the frames that are expected after them."""
    likelihood, takes_actions = model.likelihood, model.config.takes_actions
    first, number = truth.frames[:, 0], len(truth.frames)
    state = model.initial_state(number, generator=generator)
    for turn in range(steps):
        stay: Tensor | None = None
        if takes_actions:
            stay = torch.from_numpy(space.still(still, turn)).to(first.device)
            stay = stay.expand(number, *stay.shape)
        state = model.update(model.predict(state, first, stay), first)
    actions = truth.actions if takes_actions else None
    lasts = truth.lasting(slice(1, None))
    total = truth.frames.new_zeros(())
    for step, (transition, _) in enumerate(
        observe(model, state, truth.frames[:, :-1], truth.frames[:, 1:], actions)
    ):
        expected = likelihood.soft_frame(transition.prediction)
        total += (likelihood.frame_loss(expected, truth.frames[:, step + 1]) * lasts[:, step]).sum()
    return float(total / lasts.sum())

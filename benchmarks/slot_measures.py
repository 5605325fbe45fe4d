"""What slots do while a model watches: whom they attend to when balls touch, and what they know of hidden balls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from rnem_world.api import Trained
from rnem_world.benchmarks.claim_measures import Watching
from rnem_world.data.dataset import Dataset
from rnem_world.evaluation.truth import Objects, Truth, constant_velocity, read_truth
from rnem_world.models.layers import own_precision
from rnem_world.models.rollout import observe
from rnem_world.seeding import torch_generator

TOUCHING = 0.25
"""Balls touch in a step where the gap between them, before or after it, is below this part of a mean radius."""
HIDDEN_FOR = (5, 10, 15)
"""Frames for which a ball has been hidden when its place is read out of its slot."""
STEPS, WATCHED = 30, 50
"""Frames in which attention is measured, and hidden balls."""
SETTLED = 10
"""Frames after which slots have sorted themselves out."""


@dataclass(frozen=True)
class Step:
    """One step of watching.

    Attributes:
        time: The number of the frame that was predicted.
        theta: The slots that predicted it.
        owner: The slot that has most of each ball in that frame; of a hidden ball any.
        attention: How far each slot attended to each other one, 0 on the diagonal; None without.
    """

    time: int
    theta: Float[Tensor, "b k h"]
    owner: Int64[Tensor, "b n"]
    attention: Float[Tensor, "b k k"] | None


def attention(watching: Watching) -> dict[str, float]:
    """Measures how far slots attend to one another.

    Args:
        watching: Which model, and what it watches.

    Returns:
        Mean attention of a ball's slot ``touching``, to the slot of a ball that touches it in this step, ``apart``, to
        that of one that doesn't, and ``empty``, to a slot without a ball. Empty for a model without attention.
    """
    sums: dict[str, tuple[float, int]] = {}
    for part in _read(watching, STEPS):
        objects, owner = part.require_objects(), None
        for step in watch(watching.trained, part, watching.slots):
            if step.attention is None:
                return {}
            if owner is not None and step.time > SETTLED:
                kinds = _kinds_of_pairs(objects, owner, step.time, watching.slots)
                for name, chosen in kinds.items():
                    total, count = sums.get(name, (0.0, 0))
                    sums[name] = total + float(step.attention[chosen].sum()), count + int(chosen.sum())
            owner = step.owner
    return {name: total / count for name, (total, count) in sums.items() if count}


def hidden(watching: Watching) -> dict[str, Any]:
    """Measures whether slots know where balls are that a curtain hides.

    A ridge regression, fitted on the validation split, reads a ball's place out of theta of the slot that had it when
    it was last seen; it is measured on the test split, whichever is watched otherwise.

    Args:
        watching: Which model, and that it watches balls behind a curtain.

    Returns:
        ``visible``, the error for balls in sight; by the number of frames that a ball has been hidden ``slots`` and
        ``constant_velocity``, errors in radii, and ``cases``, how many balls; ``same_slot``, part of the balls that
        their slot takes again when they are back after at least five frames.
    """
    from sklearn.linear_model import RidgeCV

    fitted = _track(replace(watching, split="validation"))
    probe = RidgeCV(alphas=np.logspace(-3, 2, 6)).fit(fitted.thetas, fitted.positions)
    found = _track(replace(watching, split="test"))
    errors = np.linalg.norm(probe.predict(found.thetas) - found.positions, axis=1) / found.radii

    def by_time(values: np.ndarray) -> dict[str, float]:
        chosen = {number: values[found.hidden_for == number] for number in HIDDEN_FOR}
        return {str(number): float(each.mean()) for number, each in chosen.items() if len(each)}

    return {
        "visible": float(errors[found.hidden_for == 0].mean()),
        "slots": by_time(errors),
        "constant_velocity": by_time(found.straight),
        "cases": {str(number): int((found.hidden_for == number).sum()) for number in HIDDEN_FOR},
        "same_slot": found.same_slot,
    }


@torch.no_grad()
@own_precision
def watch(trained: Trained, truth: Truth, slots: int) -> list[Step]:
    """Runs a model over clean frames and says which slot has which ball.

    Args:
        trained: The model.
        truth: Frames with their objects.
        slots: Number of slots.
    """
    model, objects = trained.model, truth.require_objects()
    generator = torch_generator(0, "watching", device=trained.device)
    state = model.initial_state(truth.frames.shape[0], slots, generator)
    numbers = torch.arange(1, objects.positions.shape[2] + 1, device=trained.device)
    steps = []
    seen = observe(model, state, truth.frames[:, :-1], truth.frames[:, 1:], None)
    for time, (transition, after) in enumerate(seen, start=1):
        masks = objects.groups[:, time, None] == numbers[:, None, None]
        owner = torch.einsum("bnhw,bkhw->bnk", masks.float(), after.gamma[:, :, 0]).argmax(dim=2)
        weights = transition.attention
        steps.append(Step(time, transition.theta, owner, None if weights is None else _square(weights)))
    return steps


def _read(watching: Watching, steps: int, size: int = 32) -> Iterator[Truth]:
    with Dataset.open(watching.data) as dataset:
        sequences = min(watching.sequences, dataset.info(watching.split).number_of_sequences)
        truth = read_truth(dataset, watching.split, sequences, steps + 1, watching.trained.device)
    for start in range(0, sequences, size):
        yield truth.rows(slice(start, start + size))


def _square(weights: Float[Tensor, "b k others"]) -> Float[Tensor, "b k k"]:
    """Puts each slot's attention to the others into its row of a square, 0 on the diagonal."""
    batch, slots, _ = weights.shape
    square = weights.new_zeros(batch, slots, slots)
    square[:, ~torch.eye(slots, dtype=torch.bool, device=weights.device)] = weights.flatten(1)
    return square


def _kinds_of_pairs(
    objects: Objects, owner: Int64[Tensor, "b n"], time: int, slots: int
) -> dict[str, Bool[Tensor, "b k k"]]:
    """Says whose balls touch in the step to a frame, whose do not, and which second slot has none."""
    positions, radii = objects.positions[:, time - 1 : time + 1], objects.radii
    gaps = torch.cdist(positions, positions) - (radii[:, :, None] + radii[:, None, :])[:, None]
    there = positions[:, 0, :, 0].isfinite()
    pairs = there[:, :, None] & there[:, None, :]
    touch = pairs & (gaps.amin(dim=1) < TOUCHING * radii.nanmean())
    owns = F.one_hot(owner, slots).float() * there[..., None]
    together = torch.einsum("bnk,bnm,bml->bkl", owns, touch.float(), owns) > 0
    both = torch.einsum("bnk,bnm,bml->bkl", owns, pairs.float(), owns) > 0
    has = owns.sum(dim=1) > 0
    others = ~torch.eye(slots, dtype=torch.bool, device=owner.device)
    return {
        "touching": together & others,
        "apart": both & ~together & others,
        "empty": has[:, :, None] & ~has[:, None, :] & others,
    }


@dataclass(frozen=True)
class _Tracks:
    """Balls and the slots that have them, one entry a ball and frame; positions in pixels, errors in radii."""

    thetas: Float[np.ndarray, "m h"]
    positions: Float[np.ndarray, "m 2"]
    radii: Float[np.ndarray, " m"]
    hidden_for: Int64[np.ndarray, " m"]
    straight: Float[np.ndarray, " m"]
    same_slot: float


def _track(watching: Watching) -> _Tracks:
    """Follows balls with the slots that had them when they were last seen."""
    found: list[tuple[Tensor, ...]] = []
    kept = []
    for part in _read(watching, WATCHED):
        objects = part.require_objects()
        sight = _sight(objects)
        owner: Tensor | None = None
        for step in watch(watching.trained, part, watching.slots):
            time, last = step.time, step.owner if owner is None else owner
            visible = sight.visible[:, time]
            is_back = visible & (sight.away[:, time - 1] >= HIDDEN_FOR[0])
            kept.append((last == step.owner)[is_back])
            owner = torch.where(visible, step.owner, last)
            if time <= SETTLED:
                continue
            age = torch.where(visible, 0, torch.where(sight.gone[:, time], sight.away[:, time], -1))
            chosen = objects.positions[:, time, :, 0].isfinite() & (age >= 0)
            rows, balls = chosen.nonzero(as_tuple=True)
            straight = _straight(objects, time, age, part.frames.shape[-1])
            values = (objects.positions[:, time], objects.radii, age, straight)
            found.append((step.theta[rows, owner[rows, balls]], *(value[rows, balls] for value in values)))
    thetas, positions, radii, ages, errors = (
        torch.cat(column).cpu().numpy() for column in zip(*found, strict=True)
    )
    same = torch.cat(kept).float()
    return _Tracks(thetas, positions, radii, ages, errors, float(same.mean()) if len(same) else float("nan"))


@dataclass(frozen=True)
class _Sight:
    """Which balls can be seen.

    Attributes:
        visible: More than half of the ball shows.
        gone: Nothing of it shows.
        away: For how many frames nothing has shown since it was last visible.
    """

    visible: Bool[Tensor, "b t n"]
    gone: Bool[Tensor, "b t n"]
    away: Int64[Tensor, "b t n"]


def _sight(objects: Objects) -> _Sight:
    numbers = torch.arange(1, objects.positions.shape[2] + 1, device=objects.groups.device)
    pixels = (objects.groups[:, :, None] == numbers[:, None, None]).sum(dim=(3, 4))
    visible, gone = pixels * 2 > pixels.amax(dim=1, keepdim=True), pixels == 0
    away = torch.zeros_like(pixels)
    for time in range(1, pixels.shape[1]):
        away[:, time] = torch.where(visible[:, time], 0, away[:, time - 1] + gone[:, time])
    return _Sight(visible, gone, away)


def _straight(objects: Objects, time: int, age: Int64[Tensor, "b n"], size: int) -> Float[Tensor, "b n"]:
    """Error, in radii, of balls that have kept their velocity since they were last seen; 0 for those in sight."""
    errors = torch.zeros_like(objects.positions[:, time, :, 0])
    for number in HIDDEN_FOR:
        if number < time:
            gone_straight = constant_velocity(objects, time - number, number, size)[:, -1]
            errors = torch.where(age == number, gone_straight, errors)
    return errors

"""Putting a dream's objects elsewhere: the slot watches a past in which its object was there all along.

Where an object is stands nowhere in a slot that one could write to. But slots know how to find an object in frames:
the last frames are drawn once more with the object's pixels shifted, and the slot watches them. It then holds the
object at its new place with its old velocity; all other slots stay as they were.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from rnem_world.envs.dream import DreamBatch, DreamsSnapshot, details_of_picture
from rnem_world.envs.editing import LEAST_MASS
from rnem_world.errors import ConfigError
from rnem_world.models.layers import own_precision
from rnem_world.models.world_model import DreamState, Picture, SlotState

PAST_STEPS, FEWEST_STEPS, STILL_STEPS = 6, 3, 4
"""Steps that a slot watches its object move; with fewer than the second, or where that fails, it watches the object
stand still. 24 balls copied to free places in the world `balls` came to lie 8.7, 2.1, 1.1, 0.9 and 1.0 pixels from
there after 1, 2, 3, 6 and 10 steps of moving, and 1.5, 0.5 and 0.4 after 2, 4 and 6 steps of standing."""

FARTHEST = 0.15
"""Part of a frame's side by which a place may be missed; beyond it the world can't imagine the object there."""


@dataclass(frozen=True)
class Put:
    """Puts an object somewhere.

    Attributes:
        slot: Whose object.
        to: The slot that is to hold it; what was there is gone. The same slot moves it, another one gets a copy.
        x: Where its centre is to be, in pixels from the left edge.
        y: The same from the upper edge.
    """

    slot: int
    to: int
    x: float
    y: float


@torch.inference_mode()
@own_precision
def put_objects(
    batch: DreamBatch, past: Sequence[DreamsSnapshot], actions: Num[Tensor, "s ..."], puts: Sequence[Put]
) -> DreamsSnapshot:
    """Puts objects of one dream elsewhere.

    Args:
        batch: Whose dream it is, or is to be.
        past: The dream as it was, one snapshot a step, the last one now. `PAST_STEPS` before now are enough; with fewer
            than `FEWEST_STEPS` the object is taken to stand still.
        actions: What was done between them, one less, as `World.encoded` gives them.
        puts: What goes where. All of them look at the dream as it is now, so that two objects can change places.

    Returns:
        The dream as it is now, changed.

    Raises:
        ConfigError: If a slot isn't there or has no object, a place lies outside the frame, or the world can't imagine
            the object there.
    """
    for snapshot in past:
        batch.check_snapshot(snapshot, 1)
    if len(actions) != len(past) - 1:
        raise ConfigError(f"{len(past)} snapshots and {len(actions)} actions are given, expected one less")
    now = past[-1]
    picture = _Seen.of(batch, now.dreams).picture
    shifts = _shifts(batch, picture, puts)
    if len(actions) >= FEWEST_STEPS:
        steps = actions[-PAST_STEPS:].to(now.slot_rewards.device)
        edited = _watched(batch, [each.dreams for each in past[-len(steps) - 1 :]], steps, puts, shifts)
        if not _misses(batch, picture, edited, puts):
            return replace(now, dreams=edited, memory=None)
    nothing = torch.cat([batch.world.still_actions(1, step) for step in range(STILL_STEPS)])
    edited = _watched(batch, [now.dreams] * (STILL_STEPS + 1), nothing, puts, shifts)
    missed = _misses(batch, picture, edited, puts)
    if missed:
        raise ConfigError(
            f"{batch.world.name} can't imagine the object of slot {missed[0].slot} at ({missed[0].x:.0f}, "
            f"{missed[0].y:.0f}): choose a place where it has seen such objects"
        )
    return replace(now, dreams=edited, memory=None)


def _watched(
    batch: DreamBatch,
    past: Sequence[DreamState],
    actions: Tensor,
    puts: Sequence[Put],
    shifts: Sequence[tuple[int, int]],
) -> DreamState:
    """Lets the slots that are to hold objects watch them where they are to be; the others stay as they were."""
    now, model = past[-1], batch.world.model
    slots = torch.tensor([put.to for put in puts], device=now.theta.device)
    doctored = [_Seen.of(batch, dreams).doctored(puts, shifts) for dreams in past]
    theta = past[0].theta
    theta = theta.index_copy(1, slots, theta[:, [put.slot for put in puts]])
    output, previous = now.output, doctored[0].frame if model.likelihood.sees_motion else None
    for step, (before, after) in enumerate(itertools.pairwise(doctored)):
        state = SlotState(theta, before.prediction, before.gamma, previous)
        done = batch.world.actions_for_model(actions[step : step + 1])
        state, output = batch.engine.observe(state, before.frame, done, after.frame)
        theta = past[step + 1].theta.index_copy(1, slots, state.theta[:, slots])
        previous = None if previous is None else before.frame
    last = doctored[-1]
    code = model.encode(SlotState(theta, last.prediction, last.gamma, previous), last.frame)
    edited = DreamState(
        theta,
        now.output.index_copy(1, slots, output[:, slots]),
        now.code.index_copy(1, slots, code[:, slots]),
    )
    return edited if now.frame is None else replace(edited, frame=_drawn(batch, edited).frame)


def _drawn(batch: DreamBatch, dreams: DreamState) -> Picture:
    return batch.world.model.picture(batch.engine.predict(dreams.output))


def _misses(batch: DreamBatch, before: Picture, edited: DreamState, puts: Sequence[Put]) -> list[Put]:
    """Lists what came to lie elsewhere, or lost half its pixels."""
    was, now = (details_of_picture(batch.world.model, each) for each in (before, _drawn(batch, edited)))
    farthest, missed = FARTHEST * max(batch.world.frame_shape[:2]), []
    for put in puts:
        x, y = now["centroids"][0, put.to].tolist()
        lost = float(now["masses"][0, put.to]) < 0.5 * float(was["masses"][0, put.slot])
        if lost or math.hypot(x - put.x, y - put.y) > farthest:
            missed.append(put)
    return missed


@dataclass(frozen=True)
class _Seen:
    """What a dream shows at one time: the picture, and which slot has which object's pixels (1, k, 1, h, w)."""

    picture: Picture
    owned: Bool[Tensor, "1 k 1 h w"]

    @classmethod
    def of(cls, batch: DreamBatch, dreams: DreamState) -> _Seen:
        picture = _drawn(batch, dreams)
        foreground = batch.world.model.likelihood.foreground(picture.frame)[:, None, None]
        return cls(picture, (picture.gamma > 0.5) & foreground)

    def doctored(self, puts: Sequence[Put], shifts: Sequence[tuple[int, int]]) -> Picture:
        """Draws the picture with objects where they are to be."""
        prediction, frame, gamma = self.picture.prediction, self.picture.frame, self.picture.gamma
        new_prediction, new_frame, new_gamma = prediction.clone(), frame.clone(), gamma.clone()
        for put, shift in zip(puts, shifts, strict=True):
            covered = _shifted(self.owned[:, put.slot].to(frame.dtype), shift, fills=True)
            new_frame = torch.where(covered > 0, _shifted(frame, shift), new_frame)
            new_gamma = new_gamma * (1.0 - covered[:, None])
            new_gamma[:, put.to] = covered
            new_prediction[:, put.to] = _shifted(prediction[:, put.slot], shift)
        return Picture(new_prediction, new_frame, new_gamma)


def _shifts(batch: DreamBatch, picture: Picture, puts: Sequence[Put]) -> list[tuple[int, int]]:
    """Says by how many pixels, (x, y), each object has to go."""
    found = details_of_picture(batch.world.model, picture)
    height, width = batch.world.frame_shape[:2]
    shifts = []
    for put in puts:
        if not (0 <= put.slot < batch.slots and 0 <= put.to < batch.slots):
            raise ConfigError(f"{put} names a slot that isn't there, expected 0 to {batch.slots - 1}")
        if not (0.0 <= put.x <= width and 0.0 <= put.y <= height):  # NaN isn't either
            raise ConfigError(f"{put} lies outside the frame of {width} x {height} pixels")
        if float(found["masses"][0, put.slot]) < LEAST_MASS:
            raise ConfigError(f"slot {put.slot} has no object to put anywhere")
        x, y = found["centroids"][0, put.slot].tolist()
        shifts.append((math.floor(put.x - x + 0.5), math.floor(put.y - y + 0.5)))
    return shifts


def _shifted(
    maps: Float[Tensor, "b m h w"], shift: tuple[int, int], fills: bool = False
) -> Float[Tensor, "b m h w"]:
    """Shifts maps; what comes in from beyond the edge is 0 with ``fills``, else like the edge."""
    shifted = maps
    for axis, by in ((-1, shift[0]), (-2, shift[1])):
        places = torch.arange(maps.shape[axis], device=maps.device) - by
        inside = places.clamp(0, maps.shape[axis] - 1)
        shifted = shifted.index_select(axis, inside)
        if fills:
            known = (inside == places).to(maps.dtype)
            shifted = shifted * (known if axis == -1 else known[:, None])
    return shifted

"""Editing a dream's objects: removing, copying, swapping, bringing them in; and what would have been otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from rnem_world.envs.dream import DreamBatch, DreamsSnapshot
from rnem_world.envs.episodes import check_actions
from rnem_world.envs.uncertainty import slot_masses
from rnem_world.errors import ConfigError
from rnem_world.models.layers import own_precision
from rnem_world.models.world_model import DreamState

if TYPE_CHECKING:
    from rnem_world.envs.learned import LearnedEnv

LEAST_MASS = 5.0
"""Pixels below which a slot counts as empty."""


@dataclass(frozen=True)
class Remove:
    """Takes an object out: its slot becomes a copy of an empty one.

    Attributes:
        slot: Whose object.
    """

    slot: int


@dataclass(frozen=True)
class Copy:
    """Puts a copy of an object into another slot; what was there is gone.

    Until something tells them apart both do the same.

    Attributes:
        slot: Whose object.
        to: Where to; None takes the emptiest slot.
    """

    slot: int
    to: int | None = None


@dataclass(frozen=True)
class Swap:
    """Exchanges two slots. The world stays as it is; who is who changes.

    Attributes:
        first: One slot.
        second: The other.
    """

    first: int
    second: int


@dataclass(frozen=True)
class Transplant:
    """Puts an object of another dream into a slot; what was there is gone.

    Attributes:
        source: A state with one dream: `LearnedEnv.get_state()`, or one picked from a vector environment's.
        slot: Whose object.
        to: Where to; None takes the emptiest slot.
    """

    source: object
    slot: int
    to: int | None = None


Edit = Remove | Copy | Swap | Transplant


def check_edits(edits: object, slots: int) -> tuple[Edit, ...]:
    """Checks what a user gives for edits.

    Raises:
        ConfigError: If it is something else, or names a slot that isn't there.
    """
    given = (edits,) if isinstance(edits, Edit) else edits
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ConfigError(f"edits are {edits!r}, expected a list of Remove, Copy, Swap and Transplant")
    for edit in given:
        if not isinstance(edit, Edit):
            raise ConfigError(f"an edit is {edit!r}, expected Remove, Copy, Swap or Transplant")
        named = [value for name, value in vars(edit).items() if name != "source" and value is not None]
        for slot in named:
            if isinstance(slot, bool) or not isinstance(slot, int) or not 0 <= slot < slots:
                raise ConfigError(f"{edit} names slot {slot!r}, expected a number from 0 to {slots - 1}")
    return tuple(given)


@torch.inference_mode()
@own_precision
def apply_edits(batch: DreamBatch, dreams: DreamsSnapshot, edits: Sequence[Edit]) -> DreamsSnapshot:
    """Edits some dreams, all in the same way, one edit after the other.

    Args:
        batch: Whose dreams they are, or are to be.
        dreams: The dreams; left as they are.
        edits: From `check_edits`.

    Returns:
        The edited dreams.

    Raises:
        ConfigError: If there is no empty slot where one is needed, or a source is of another world.
    """
    edited = dreams.dreams
    for edit in edits:
        edited = _edited(batch, edited, edit)
    if edited.frame is not None:
        # The slots see motion: what they saw last must not hold what is gone, nor lack what has come.
        before, after = (batch.world.model.draw(each.output).frame for each in (dreams.dreams, edited))
        edited = replace(edited, frame=torch.where(before == after, edited.frame, after))
    return replace(dreams, dreams=edited, memory=None)


def _edited(batch: DreamBatch, dreams: DreamState, edit: Edit) -> DreamState:
    everyone = torch.arange(len(dreams.theta), device=dreams.theta.device)
    if isinstance(edit, Swap):
        order = list(range(batch.slots))
        order[edit.first], order[edit.second] = edit.second, edit.first
        return _in_slots(dreams, lambda tensor: tensor[:, order])
    if isinstance(edit, Remove):
        masses = _masses(batch, dreams)
        masses[:, edit.slot] = torch.inf
        least, emptiest = masses.min(dim=1)
        if bool((least > LEAST_MASS).any()):
            raise ConfigError(
                "a dream has no empty slot to take the removed object's place: make the environment with more slots "
                f"(num_slots={batch.slots + 1})"
            )
        return _written(dreams, edit.slot, dreams, (everyone, emptiest))
    to: Tensor | int | None = edit.to
    if to is None:
        to = _masses(batch, dreams).argmin(dim=1)
    if isinstance(edit, Copy):
        return _written(dreams, to, dreams, (everyone, torch.full_like(everyone, edit.slot)))
    source = edit.source
    while not isinstance(source, DreamsSnapshot):  # as environments wrap it
        source = getattr(source, "state", None) or getattr(source, "dreams", None)
        if source is None:
            raise ConfigError(
                f"the source of a transplant is a {type(edit.source).__name__}, expected what `get_state` of a learned "
                "environment returned"
            )
    batch.check_snapshot(source, 1)
    given = source.dreams.map(lambda tensor: tensor.to(dreams.theta.device))
    return _written(dreams, to, given, (torch.zeros_like(everyone), torch.full_like(everyone, edit.slot)))


def _masses(batch: DreamBatch, dreams: DreamState) -> Tensor:
    model = batch.world.model
    return slot_masses(model, model.draw(dreams.output))


def _written(
    dreams: DreamState, to: Tensor | int, source: DreamState, picked: tuple[Tensor, Tensor]
) -> DreamState:
    """Writes into slot ``to`` of every dream what ``source`` has at the picked rows and slots."""
    everyone = torch.arange(len(dreams.theta), device=dreams.theta.device)
    places = torch.full_like(everyone, to) if isinstance(to, int) else to

    def write(old: Tensor, new: Tensor) -> Tensor:
        return old.index_put((everyone, places), new[picked])

    return DreamState(
        write(dreams.theta, source.theta),
        write(dreams.output, source.output),
        write(dreams.code, source.code),
        dreams.frame,
    )


def _in_slots(dreams: DreamState, function: Callable[[Tensor], Tensor]) -> DreamState:
    return DreamState(function(dreams.theta), function(dreams.output), function(dreams.code), dreams.frame)


@dataclass(frozen=True)
class Counterfactual:
    """Two futures of one state; time 0 is now. First the one that was to be, then the changed one.

    Attributes:
        centroids: Float (2, t + 1, k, 2), where each slot's object is, in pixels, x first.
        masses: Float (2, t + 1, k), each slot's pixels.
        rewards: Float (2, t).
        divergence: Float (t + 1, k), how far apart each slot's object is in the two, in pixels.
    """

    centroids: Float[np.ndarray, "2 s k 2"]
    masses: Float[np.ndarray, "2 s k"]
    rewards: Float[np.ndarray, "2 t"]
    divergence: Float[np.ndarray, "s k"]


def compare_futures(
    env: LearnedEnv,
    actions: Sequence[Any] | NDArray[Any],
    edits: Sequence[Edit] | Edit = (),
    other_actions: Sequence[Any] | NDArray[Any] | None = None,
) -> Counterfactual:
    """Dreams on twice from where an environment is, which stays there.

    Dreams are deterministic, so whatever differs comes from the change.

    Args:
        env: The environment, made and reset.
        actions: What is done.
        edits: What is changed at the start of the second future.
        other_actions: What is done in the second future; None does the same.

    Raises:
        ConfigError: If an action or edit makes no sense.
        gymnasium.error.ResetNeeded: Before the first reset.
    """
    current = env.batch.dreams
    space = env.action_space
    first = _check_sequence(actions, space)
    second = first if other_actions is None else _check_sequence(other_actions, space)
    if len(first) != len(second):
        raise ConfigError(f"{len(first)} actions and {len(second)} other actions are given, expected as many")
    now = replace(env.get_state().state.dreams, memory=None)
    both = DreamBatch(current.world, 2, current.slots, current.imagination)
    rows = torch.arange(2, device=current.world.device)
    both.set_state(rows[:1], now)
    both.set_state(rows[1:], apply_edits(both, now, check_edits(edits, both.slots)))
    done = torch.stack([current.world.encoded(first), current.world.encoded(second)])
    seen = [both.details(("centroids", "masses"))]
    rewards = []
    for column in done.unbind(dim=1):
        rewards.append(both.step(column).rewards)
        seen.append(both.details(("centroids", "masses")))
    centroids = torch.stack([each["centroids"] for each in seen], dim=1)
    masses = torch.stack([each["masses"] for each in seen], dim=1)
    apart = (centroids[0] - centroids[1]).norm(dim=2)
    earned = torch.stack(rewards, dim=1) if rewards else centroids.new_zeros(2, 0)
    arrays = (tensor.cpu().numpy().copy() for tensor in (centroids, masses, earned, apart))
    return Counterfactual(*arrays)


def _check_sequence(actions: Sequence[Any] | NDArray[Any], space: spaces.Space[Any]) -> NDArray[Any]:
    given = np.asarray(actions)
    if given.size == 0:  # of a list without entries nobody knows the kind
        return np.zeros((0, *(space.shape or ())), dtype=space.dtype)
    return check_actions(given, len(given) if given.ndim else 1, space)

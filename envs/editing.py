"""Editing a dream's objects: removing, copying, swapping, and bringing them in from other dreams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64
from torch import Tensor

from rnem_world.envs.details import slot_masses
from rnem_world.envs.learned_worlds import LearnedWorlds
from rnem_world.envs.snapshots import DreamsSnapshot
from rnem_world.errors import ConfigError
from rnem_world.models.imagination import DreamState, draw

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
def apply_edits(worlds: LearnedWorlds, rows: Int64[Tensor, " m"], edits: Sequence[Edit]) -> None:
    """Edits some dreams, all in the same way, one edit after the other.

    Args:
        worlds: Where the dreams are.
        rows: Which of them.
        edits: From `check_edits`.

    Raises:
        ConfigError: If there is no empty slot where one is needed, or a source is of another world; then nothing has
            changed.
    """
    snapshot = worlds.get_state(rows)
    dreams = snapshot.dreams
    for edit in edits:
        dreams = _edited(worlds, dreams, edit)
    if dreams.frame is not None:
        # The slots see motion: what they saw last must not hold what is gone, nor lack what has come.
        before, after = (draw(worlds.model, each.output).frame for each in (snapshot.dreams, dreams))
        dreams = replace(dreams, frame=torch.where(before == after, dreams.frame, after))
    worlds.set_state(rows, replace(snapshot, dreams=dreams, memory=None))


def _edited(worlds: LearnedWorlds, dreams: DreamState, edit: Edit) -> DreamState:
    everyone = torch.arange(len(dreams.theta), device=dreams.theta.device)
    if isinstance(edit, Swap):
        order = list(range(worlds.slots))
        order[edit.first], order[edit.second] = edit.second, edit.first
        return _slotwise(dreams, lambda tensor: tensor[:, order])
    if isinstance(edit, Remove):
        masses = slot_masses(draw(worlds.model, dreams.output))
        masses[:, edit.slot] = torch.inf
        least, emptiest = masses.min(dim=1)
        if bool((least > LEAST_MASS).any()):
            raise ConfigError(
                "a dream has no empty slot to take the removed object's place: make the environment with more slots "
                f"(num_slots={worlds.slots + 1})"
            )
        return _written(dreams, edit.slot, dreams, (everyone, emptiest))
    to: Tensor | int | None = edit.to
    if to is None:
        to = slot_masses(draw(worlds.model, dreams.output)).argmin(dim=1)
    if isinstance(edit, Copy):
        return _written(dreams, to, dreams, (everyone, torch.full_like(everyone, edit.slot)))
    source = getattr(edit.source, "dreams", edit.source)
    if not isinstance(source, DreamsSnapshot):
        raise ConfigError(
            f"the source of a transplant is a {type(edit.source).__name__}, expected what `get_state` returned"
        )
    worlds.check_snapshot(source, 1)
    given = source.dreams.map(lambda tensor: tensor.to(dreams.theta.device))
    return _written(dreams, to, given, (torch.zeros_like(everyone), torch.full_like(everyone, edit.slot)))


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


def _slotwise(dreams: DreamState, function) -> DreamState:  # type: ignore[no-untyped-def]
    return DreamState(function(dreams.theta), function(dreams.output), function(dreams.code), dreams.frame)

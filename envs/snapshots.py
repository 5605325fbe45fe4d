"""Copies of dreams and of learned environments, from which they go on exactly as they did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt64
from numpy.typing import NDArray
from torch import Tensor

from rnem_world.envs.dream_batches import replaced
from rnem_world.errors import ConfigError
from rnem_world.models.imagination import DreamImagination, DreamState


@dataclass(frozen=True)
class DreamsSnapshot:
    """A copy of some dreams: all that their future depends on, beside the actions.

    Attributes:
        world: Fingerprint of the weights.
        imagination: How they are dreamt.
        dreams: The slots.
        attention: Float (m, k, k - 1), of the last step, zeros after a reset; None for models without.
        slot_rewards: Float (m, k), of the last step, zeros after a reset.
        memory: Float (m, 2 + k), what doubt remembers: two signs added up, and the slots' first masses; None where
            nobody asks.
    """

    world: str
    imagination: DreamImagination
    dreams: DreamState
    attention: Tensor | None
    slot_rewards: Tensor
    memory: Tensor | None = None

    def __len__(self) -> int:
        return len(self.slot_rewards)

    def map(self, function: Callable[[Tensor], Tensor]) -> DreamsSnapshot:
        """Applies a function to every tensor, as `DreamState.map` does."""
        return replace(
            self,
            dreams=self.dreams.map(function),
            attention=None if self.attention is None else function(self.attention),
            slot_rewards=function(self.slot_rewards),
            memory=None if self.memory is None else function(self.memory),
        )

    def pick(self, rows: Int64[Tensor, " m"]) -> DreamsSnapshot:
        """Copies some of the dreams, in the given order."""
        return self.map(lambda tensor: tensor[rows])

    def with_others(self, rows: Int64[Tensor, " m"], others: DreamsSnapshot) -> DreamsSnapshot:
        """Copies the dreams, with others in the place of some; what doubt remembers is left as it is."""
        attention = self.attention
        if attention is not None and others.attention is not None:
            attention = attention.index_copy(0, rows, others.attention)
        return replace(
            self,
            dreams=replaced(self.dreams, rows, others.dreams),
            attention=attention,
            slot_rewards=self.slot_rewards.index_copy(0, rows, others.slot_rewards),
        )

    def to(self, device: torch.device) -> DreamsSnapshot:
        """Copies the dreams to a device, unless they are there."""
        return self.map(lambda tensor: tensor.to(device))

    def check(self, world: str, imagination: DreamImagination, slots: int, number: int) -> None:
        """Refuses copies that can't be put in the place of certain dreams.

        Args:
            world: Fingerprint of the weights that dream them.
            imagination: How they are dreamt.
            slots: Their slots.
            number: How many they are.

        Raises:
            ConfigError: If the copies are others.
        """
        if self.world != world:
            raise ConfigError(
                f"the state is of another world (weights {self.world}, expected {world}): "
                "give a state that an environment with the same checkpoint made"
            )
        own_slots = self.dreams.theta.shape[1]
        if (self.imagination, own_slots) != (imagination, slots):
            raise ConfigError(
                f"the state has {own_slots} slots and imagines in the way {self.imagination}, expected {slots} "
                f"and {imagination}: make the environments alike"
            )
        if len(self) != number:
            raise ConfigError(f"the state holds {len(self)} dreams, expected {number}: choose some by `pick`")

    def without_memory(self) -> DreamsSnapshot:
        """Copies the dreams for somebody who doesn't ask for doubt."""
        return replace(self, memory=None)


@dataclass(frozen=True)
class LearnedSnapshot:
    """A copy of learned environments, from which they go on exactly as they did.

    Attributes:
        dreams: The dreams.
        elapsed: Steps since the reset.
        finished: Which episodes are over and wait for their reset.
        keys: The random streams that choose starts ...
        draws: ... and how many numbers were drawn from them.
        generator: The state of a single environment's ``np_random``.
        members: The dreams of the ensemble's other worlds.
    """

    dreams: DreamsSnapshot
    elapsed: Int64[np.ndarray, " m"]
    finished: Bool[np.ndarray, " m"]
    keys: UInt64[np.ndarray, " m"]
    draws: UInt64[np.ndarray, " m"]
    generator: dict[str, Any] | None = None
    members: tuple[DreamsSnapshot, ...] = ()

    def __len__(self) -> int:
        return len(self.elapsed)

    def pick(self, rows: Sequence[int] | NDArray[Any]) -> LearnedSnapshot:
        """Copies some of the environments, in the given order, repeated or not."""
        chosen = np.asarray(rows, dtype=np.int64)
        device = self.dreams.slot_rewards.device
        return LearnedSnapshot(
            self.dreams.pick(torch.from_numpy(chosen).to(device)),
            self.elapsed[chosen],
            self.finished[chosen],
            self.keys[chosen],
            self.draws[chosen],
            members=tuple(member.pick(torch.from_numpy(chosen).to(device)) for member in self.members),
        )


def with_generator(snapshot: LearnedSnapshot, generator: np.random.Generator) -> LearnedSnapshot:
    """Adds the state of a generator to a copy."""
    return replace(snapshot, generator=dict(generator.bit_generator.state))


def restored(cls: type[Any], arguments: tuple[Any, ...], snapshot: LearnedSnapshot | None) -> Any:
    """Makes a learned environment again, after pickling it say.

    Args:
        cls: `LearnedEnv` or `LearnedVectorEnv`.
        arguments: What it was made of.
        snapshot: Where it was; None before its first reset.
    """
    env = cls(*arguments)
    if snapshot is not None:
        env.set_state(snapshot)
    return env

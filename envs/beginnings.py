"""Where the dreams of learned environments begin: starts that are drawn, named, or given by the user."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from rnem_world.envs.atari_worlds import is_game, own_starts, played_starts
from rnem_world.envs.contexts import check_context
from rnem_world.envs.learned_world import REAL, LearnedWorld
from rnem_world.envs.learned_worlds import LearnedWorlds
from rnem_world.envs.start_pool import Pool
from rnem_world.envs.start_stream import StartStream
from rnem_world.envs.starts import Starts, read_starts, simulated_starts, starts_from_dataset
from rnem_world.errors import ConfigError, suggest
from rnem_world.models.imagination import DreamState
from rnem_world.physics import BallsConfig

OPTIONS = ("frames", "actions", "start", "edits", "reset_mask")
"""What the options of a reset may name."""


class Beginnings:
    """Beginnings of N dreams, the same for all worlds that dream them.

    Attributes:
        stream: The random numbers that choose starts.
        number_of_starts: How many different starts there are; None where each is simulated anew.

    Args:
        worlds: The worlds; the first one says which starts it knows.
        number: N.
        starts: Where dreams begin, see `LearnedEnv`.

    Raises:
        RnemWorldError: If there are no such starts, or they are of another world.
    """

    def __init__(
        self, worlds: Sequence[LearnedWorlds], number: int, starts: str | Path | Starts | None
    ) -> None:
        self._worlds = worlds
        self._number = number
        self.stream = StartStream(number)
        self.number_of_starts: int | None = None
        self._rules: BallsConfig | None = None
        self._pools: list[Pool] = []
        first = worlds[0].world
        if _is_real(starts) and not is_game(first):
            self._rules = first.real_rules(_name_of(starts))
        else:
            found = _find_starts(first, starts)
            self._pools = [each.world.pool(found, each.slots) for each in worlds]
            self.number_of_starts = len(found)

    def begin(self, rows: Int64[np.ndarray, " m"], options: dict[str, Any]) -> list[DreamState]:
        """Makes new dreams.

        Args:
            rows: Which of the N are to begin.
            options: ``frames`` and ``actions``, or ``start``; see `LearnedEnv.reset`.

        Returns:
            m dreams for each world.

        Raises:
            ConfigError: If the options make no sense.
        """
        for name in options:
            if name not in OPTIONS:
                raise ConfigError(f"unknown option {name!r} of a reset: {suggest(str(name), OPTIONS)}")
        if options.get("frames") is not None or options.get("actions") is not None:
            frames, actions = check_context(self._worlds[0].world, options, self._number, rows)
            return self._encoded(Starts.pack(frames, actions))
        if options.get("start") is not None:
            chosen = self._named(options["start"], rows)
        else:
            numbers = self.stream.draw(rows)
            if self._rules is not None:
                return self._encoded(simulated_starts(self._rules, numbers))
            chosen = (numbers % np.uint64(self.number_of_starts or 1)).astype(np.int64)
        return [pool.take(chosen) for pool in self._pools]

    def prepare(self) -> None:
        """Encodes all starts now, instead of each when it is first drawn."""
        for pool in self._pools:
            pool.take_all()

    def _encoded(self, starts: Starts) -> list[DreamState]:
        return [each.world.encode_starts(starts, each.slots, slice(None)) for each in self._worlds]

    def _named(self, given: Any, rows: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
        if not self._pools:
            raise ConfigError("starts are simulated here, there are none to choose from: leave out 'start'")
        chosen, number = np.asarray(given), self.number_of_starts or 0
        fits = chosen.dtype.kind in "iu" and chosen.shape in ((), (self._number,))
        if not fits or chosen.min() < 0 or chosen.max() >= number:
            raise ConfigError(
                f"options['start'] is {given!r}, expected a number from 0 to {number - 1}, or {self._number} of them"
            )
        picked: Int64[np.ndarray, " m"] = np.broadcast_to(chosen, (self._number,))[rows].astype(np.int64)
        return picked


def _find_starts(world: LearnedWorld, starts: str | Path | Starts | None) -> Starts:
    if starts is None:
        return own_starts(world)
    if _is_real(starts):
        return played_starts(world, _name_of(starts))
    if isinstance(starts, Starts):
        return starts
    path = Path(starts)
    return read_starts(path) if path.suffix == ".npz" else starts_from_dataset(path)


def _is_real(starts: str | Path | Starts | None) -> bool:
    return isinstance(starts, str) and starts.partition(":")[0] == REAL


def _name_of(starts: str | Path | Starts | None) -> str | None:
    """Gives what stands behind ``real:``, None if nothing does."""
    return str(starts).partition(":")[2] or None

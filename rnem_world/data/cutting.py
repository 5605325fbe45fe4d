"""Cutting long episodes into sequences while an agent plays them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer
from numpy.typing import NDArray

from rnem_world.data.episode import EpisodeBatch
from rnem_world.data.recording import (
    OF_FRAMES,
    OF_TRANSITIONS,
    RecordableAgent,
    RecordableEnv,
    stored_frames,
)
from rnem_world.errors import DataError

Array = NDArray[Any]

HOPELESS_EPISODES = 50
"""So many episodes without a single sequence among them are too short."""


class EpisodeCutter:
    """Memory for N sequences of T frames, cut out of episodes that run to their end.

    An episode yields its frames 0 to T-1, T to 2T-1 and so on; what is left at its end yields the last T frames, so
    that the end is in the data. A sequence never crosses a reset. An episode of fewer than T frames yields nothing.

    The last frame of an episode has no transition out of it: its action and reward are 0, and its ``terminations``
    repeats that of the transition that led there.

    Args:
        number_of_frames: T.
        number_of_sequences: N.
        maximum_value: 1 for binary frames (an environment may show them as 0 and 255), or 255.
    """

    def __init__(self, number_of_frames: int, number_of_sequences: int, maximum_value: int = 1) -> None:
        self.number_of_frames = number_of_frames
        self.number_of_sequences = number_of_sequences
        self._maximum_value = maximum_value
        self._rings: dict[str, Array] = {}
        self._arrays: dict[str, Array] = {}
        self._filled = 0

    def record(
        self,
        env: RecordableEnv,
        agent: RecordableAgent,
        seeds: Sequence[int],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Records until there is no more room.

        Args:
            env: The environment; it must not reset by itself, and honour ``options["reset_mask"]``.
            agent: Who acts.
            seeds: One for each sub-environment.
            stopped: Asked before every step; if it says True, the recording is given up.

        Raises:
            DataError: If the environment doesn't suit: its episodes are too short, or frames aren't binary.
            InterruptedError: If the recording was given up.
        """
        n = env.num_envs
        rows = np.arange(n)
        # Of every episode: its frames so far, and those since the last cut.
        seen, fresh = np.zeros(n, np.int64), np.zeros(n, np.int64)
        observations, infos = env.reset(seed=list(seeds))
        agent.reset(n)
        fruitless = longest = 0
        self._rings.clear()
        while self._filled < self.number_of_sequences:
            if stopped():
                raise InterruptedError("the recording was given up")
            place = seen % self.number_of_frames
            self._see(observations, infos, rows, place)
            actions = agent.act(observations)
            observations, rewards, terminations, truncations, infos = env.step(actions)
            for name, dtype in OF_TRANSITIONS.items():
                if name in infos:
                    self._put(name, rows, place, infos[name].astype(dtype, copy=False))
            self._put("actions", rows, place, np.asarray(actions, dtype=np.int64))
            self._put("rewards", rows, place, np.asarray(rewards, dtype=np.float32))
            self._put("terminations", rows, place, np.asarray(terminations, dtype=np.bool_))
            seen, fresh = seen + 1, fresh + 1
            self._cut(fresh == self.number_of_frames, seen)
            fresh[fresh == self.number_of_frames] = 0
            over: Bool[np.ndarray, " n"] = terminations | truncations
            if not over.any():
                continue
            ended = np.flatnonzero(over)
            self._end(observations, infos, ended, seen[ended] % self.number_of_frames, terminations)
            seen[ended] += 1
            self._cut(over & (seen >= self.number_of_frames), seen)
            fruitless += len(ended)
            longest = max(longest, int(seen[ended].max()))
            if self._filled == 0 and fruitless >= HOPELESS_EPISODES:
                raise DataError(
                    f"{fruitless} episodes had {longest} frames at most, expected {self.number_of_frames}, the "
                    "number of frames of a sequence: record fewer frames (--frames)"
                )
            seen[ended] = fresh[ended] = 0
            observations, infos = env.reset(options={"reset_mask": over})

    def episodes(self) -> EpisodeBatch:
        """Returns what was recorded.

        Raises:
            DataError: If there is still room.
        """
        if self._filled < self.number_of_sequences:
            raise DataError(f"{self._filled} sequences were recorded, expected {self.number_of_sequences}")
        return EpisodeBatch(**self._arrays)

    def _see(
        self,
        observations: Any,
        infos: dict[str, Any],
        rows: Integer[np.ndarray, " m"],
        place: Integer[np.ndarray, " m"],
    ) -> None:
        """Puts the frames of some sub-environments, and what is said about them, into the rings."""
        check = "features" not in self._rings
        self._put("features", rows, place, stored_frames(observations, self._maximum_value, check)[rows])
        for name, dtype in OF_FRAMES.items():
            if name in infos:
                self._put(name, rows, place, infos[name].astype(dtype, copy=False)[rows])

    def _end(
        self,
        observations: Any,
        infos: dict[str, Any],
        ended: Integer[np.ndarray, " m"],
        place: Integer[np.ndarray, " m"],
        terminations: Bool[np.ndarray, " n"],
    ) -> None:
        """Puts last frames into the rings, with a transition that nobody made."""
        self._see(observations, infos, ended, place)
        for name in ("actions", "rewards", *OF_TRANSITIONS):
            if name in self._rings:
                self._rings[name][place, ended] = 0
        self._rings["terminations"][place, ended] = terminations[ended]

    def _put(
        self, name: str, rows: Integer[np.ndarray, " m"], place: Integer[np.ndarray, " m"], values: Array
    ) -> None:
        if name not in self._rings:
            shape = (self.number_of_frames, len(rows), *values.shape[1:])
            self._rings[name] = np.zeros(shape, dtype=values.dtype)
        self._rings[name][place, rows] = values

    def _cut(self, where: Bool[np.ndarray, " n"], seen: Integer[np.ndarray, " n"]) -> None:
        """Takes the last T frames of the sub-environments told, as long as there is room."""
        frames = self.number_of_frames
        for row in np.flatnonzero(where)[: self.number_of_sequences - self._filled].tolist():
            order = np.arange(seen[row] - frames, seen[row]) % frames
            for name, ring in self._rings.items():
                if name not in self._arrays:
                    shape = (frames, self.number_of_sequences, *ring.shape[2:])
                    self._arrays[name] = np.zeros(shape, dtype=ring.dtype)
                self._arrays[name][:, self._filled] = ring[order, row]
            self._filled += 1

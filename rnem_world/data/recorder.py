"""Recording sequences from a vector environment while an agent acts in it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium.vector import VectorEnv
from jaxtyping import Bool, Integer
from numpy.typing import NDArray

from rnem_world.actions import ActionSpace
from rnem_world.data.schema import EpisodeBatch
from rnem_world.errors import DataError

Array = NDArray[Any]

OF_FRAMES = {
    "groups": np.uint8,
    "positions": np.float32,
    "velocities": np.float32,
    "lives": np.uint8,
}
"""What an environment may say in its infos about the frame it has just returned, and the dtype stored."""

OF_TRANSITIONS = {"collisions": np.uint8, "events": np.uint8}
"""What it may say about the transition that led there."""

HOPELESS_EPISODES = 50
"""So many episodes without a single sequence among them are too short."""


@runtime_checkable
class RecordableAgent(Protocol):
    """The part of an agent that is needed."""

    def reset(self, num_envs: int) -> None:
        """Starts anew."""

    def restart(self, begun: Bool[np.ndarray, " n"]) -> None:
        """Forgets the past of those that have begun a new episode."""

    def act(self, observations: Any) -> Array:
        """Chooses the next actions."""


class Recorder:
    """Memory for N sequences of T frames, cut out of the episodes that run side by side in an environment.

    ``actions[t]`` is the action taken at frame t, and rewards, terminations, collisions and events of the step that it
    makes are stored at t too. Of every episode either the first T frames are taken (one more step is made for the
    transition out of the last), or all of it:

    With ``whole_episodes`` an episode yields its frames 0 to T-1, T to 2T-1 and so on; what is left at its end yields
    the last T frames, so that the end is in the data. A sequence never crosses a reset. An episode of fewer than T
    frames yields nothing. The last frame of an episode has no transition out of it: its action and reward are 0, and
    its ``terminations`` repeats that of the transition that led there.

    With ``streams`` nothing is left out: a sequence is the next T frames of a sub-environment, whatever episodes they
    are of. Behind the last frame of an episode, which has no transition out of it, comes the first of the next one,
    which ``is_first`` marks; ``truncations`` are stored beside ``terminations``.

    Where an environment says something about some sub-environments only (Gymnasium's masks ``_name``), nothing else is
    taken for theirs: a transition that nothing is said about has zeros, and a frame must be described as those before
    it were.

    Args:
        number_of_frames: T.
        number_of_sequences: N.
        maximum_value: 1 for binary frames (an environment may show them as 0 and 255), or 255.
        with_actions: Whether actions, rewards and terminations are stored.
        whole_episodes: Whether episodes run to their end.
        streams: Whether sequences go on across resets.
        action_space: What the environment's actions are; whole numbers from 0 on if None.
    """

    def __init__(
        self,
        number_of_frames: int,
        number_of_sequences: int,
        maximum_value: int = 1,
        with_actions: bool = True,
        whole_episodes: bool = False,
        streams: bool = False,
        action_space: ActionSpace | None = None,
    ) -> None:
        self.number_of_frames, self.number_of_sequences = number_of_frames, number_of_sequences
        self._maximum_value, self._with_actions = maximum_value, with_actions
        self._whole_episodes, self._streams = whole_episodes or streams, streams
        self._action_space = action_space
        # The last T frames of every sub-environment: frame t of an episode is at t modulo T. Where all are taken they
        # are directly the place in the arrays that they go to.
        self._rings: dict[str, Array] = {}
        self._direct = False
        self._arrays: dict[str, Array] = {}
        self._filled = 0

    def record(
        self,
        env: VectorEnv[Any, Any, Any],
        agent: RecordableAgent,
        seeds: Sequence[int],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Records one sequence from every sub-environment; whole episodes and streams until there is no more room.

        Sequences that find no more room are dropped.

        Args:
            env: The environment. For whole episodes and streams it must not reset by itself, and honour
                ``options["reset_mask"]``.
            agent: Who acts.
            seeds: One for each sub-environment.
            stopped: Asked before every step; if it says True, the recording is given up.

        Raises:
            DataError: If the environment doesn't suit: episodes are too short, frames aren't binary, or some frames
                are described and others aren't.
            InterruptedError: If the recording was given up.
        """
        frames, n = self.number_of_frames, env.num_envs
        everywhere = np.arange(n)
        # Of every episode: its frames so far, and those since the last cut.
        seen, fresh = np.zeros(n, np.int64), np.zeros(n, np.int64)
        episodes = longest = 0
        self._rings.clear()
        self._direct = not self._whole_episodes and self._filled + n <= self.number_of_sequences
        observations, infos = env.reset(seed=list(seeds))  # type: ignore[arg-type]  # theirs take one seed each
        agent.reset(n)
        begins = np.ones(n, np.bool_)
        while self._filled < self.number_of_sequences:
            if stopped():
                raise InterruptedError("the recording was given up")
            place = seen % frames
            self._see(observations, infos, everywhere, place)
            if self._streams:
                self._put("is_first", everywhere, place, begins)
            actions = agent.act(observations)
            observations, rewards, terminations, truncations, infos = env.step(actions)
            self._pass(infos, actions, rewards, terminations, truncations, place)
            seen, fresh = seen + 1, fresh + 1
            full = fresh == frames
            self._cut(full, seen)
            fresh[full] = 0
            over: Bool[np.ndarray, " n"] = np.asarray(terminations | truncations)
            if not self._whole_episodes:
                if full.any():
                    return
                if over.any():
                    raise DataError(
                        f"an episode ended after {seen[0]} steps, expected at least {frames}, the number of frames; "
                        "raise the environment's max_episode_steps or record fewer frames"
                    )
            elif over.any():
                ended = np.flatnonzero(over)
                self._end(observations, infos, ended, seen[ended] % frames, terminations)
                seen[ended] += 1
                episodes, longest = episodes + len(ended), max(longest, int(seen[ended].max()))
                if self._streams:
                    fresh[ended] += 1
                    full = over & (fresh == frames)
                    self._cut(full, seen)
                    fresh[full] = 0
                else:
                    self._cut(over & (seen >= frames), seen)
                    seen[ended] = fresh[ended] = 0
                if self._filled == 0 and episodes >= HOPELESS_EPISODES and not self._streams:
                    raise DataError(
                        f"{episodes} episodes had {longest} frames at most, expected {frames}, the number of frames of "
                        "a sequence: record fewer frames (--frames)"
                    )
                observations, begun = env.reset(options={"reset_mask": over})
                infos = _infos_after_reset(begun, infos, over)
                agent.restart(over)
            begins = over

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
        infos: Mapping[str, Any],
        rows: Integer[np.ndarray, " m"],
        place: Integer[np.ndarray, " m"],
    ) -> None:
        """Puts the frames of some sub-environments, and what is said about them, into the rings."""
        is_first = not self._rings
        self._put("features", rows, place, stored_frames(observations, self._maximum_value)[rows])
        for name, dtype in OF_FRAMES.items():
            if name not in infos and name not in self._rings:
                continue
            values, known = _told(name, infos, len(observations))
            if values is None or not known[rows].all() or (name not in self._rings and not is_first):
                raise DataError(
                    f"the environment's infos have {name!r} of some frames and not of others, expected it of every "
                    "frame, those after resets too, or of none"
                )
            self._put(name, rows, place, values.astype(dtype, copy=False)[rows])

    def _pass(
        self,
        infos: Mapping[str, Any],
        actions: Array,
        rewards: Array,
        terminations: Array,
        truncations: Array,
        place: Integer[np.ndarray, " n"],
    ) -> None:
        """Puts a transition of all sub-environments into the rings."""
        rows = np.arange(len(place))
        for name, dtype in OF_TRANSITIONS.items():
            values, known = _told(name, infos, len(rows))
            if values is not None:
                self._put(name, rows[known], place[known], values.astype(dtype, copy=False)[known])
            if name in self._rings:
                self._rings[name][place[~known], rows[~known]] = 0
        if self._with_actions:
            space = self._action_space
            stored = np.asarray(actions, dtype=np.int64) if space is None else space.encode(actions)
            self._put("actions", rows, place, stored)
            self._put("rewards", rows, place, np.asarray(rewards, dtype=np.float32))
            self._put("terminations", rows, place, np.asarray(terminations, dtype=np.bool_))
        if self._streams:
            self._put("truncations", rows, place, np.asarray(truncations, dtype=np.bool_))

    def _end(
        self,
        observations: Any,
        infos: Mapping[str, Any],
        ended: Integer[np.ndarray, " m"],
        place: Integer[np.ndarray, " m"],
        terminations: Bool[np.ndarray, " n"],
    ) -> None:
        """Puts last frames into the rings, with a transition that nobody made."""
        self._see(observations, infos, ended, place)
        empty = ("actions", "rewards", "terminations", "truncations", "is_first", *OF_TRANSITIONS)
        for name in empty:
            if name in self._rings:
                self._rings[name][place, ended] = 0
        if self._with_actions and not self._streams:
            self._rings["terminations"][place, ended] = terminations[ended]

    def _put(
        self, name: str, rows: Integer[np.ndarray, " m"], place: Integer[np.ndarray, " m"], values: Array
    ) -> None:
        if name not in self._rings:
            n = self._rings["features"].shape[1] if self._rings else len(rows)
            if self._direct:
                self._rings[name] = self._array(name, values)[:, self._filled : self._filled + n]
            else:
                self._rings[name] = np.zeros((self.number_of_frames, n, *values.shape[1:]), values.dtype)
        self._rings[name][place, rows] = values

    def _array(self, name: str, like: Array) -> Array:
        """Returns the memory for N sequences of an array whose last axes and dtype are those of another."""
        if name not in self._arrays:
            shape = (self.number_of_frames, self.number_of_sequences, *like.shape[1:])
            self._arrays[name] = np.zeros(shape, dtype=like.dtype)
        return self._arrays[name]

    def _cut(self, where: Bool[np.ndarray, " n"], seen: Integer[np.ndarray, " n"]) -> None:
        """Takes the last T frames of the sub-environments told, as long as there is room."""
        frames = self.number_of_frames
        taken = np.flatnonzero(where)[: self.number_of_sequences - self._filled].tolist()
        for row, column in zip([] if self._direct else taken, itertools.count(self._filled)):
            order = np.arange(seen[row] - frames, seen[row]) % frames
            for name, ring in self._rings.items():
                self._array(name, ring[0])[:, column] = ring[order, row]
        self._filled += len(taken)


def _told(name: str, infos: Mapping[str, Any], n: int) -> tuple[Array | None, Bool[np.ndarray, " n"]]:
    """Returns what infos say about n sub-environments, None if nothing, and about which of them they say it."""
    if name not in infos:
        return None, np.zeros(n, np.bool_)
    return np.asarray(infos[name]), np.asarray(infos.get(f"_{name}", np.ones(n)), np.bool_)


def _infos_after_reset(
    begun: Mapping[str, Any], infos: Mapping[str, Any], over: Bool[np.ndarray, " n"]
) -> dict[str, Any]:
    """Says of those that were reset what the reset says, of the others what their last step said."""
    result: dict[str, Any] = {}
    for name in OF_FRAMES:
        new, new_known = _told(name, begun, len(over))
        old, old_known = _told(name, infos, len(over))
        if new is None or old is None:
            values = old if new is None else new
        else:
            values = np.where(over.reshape(-1, *[1] * (new.ndim - 1)), new, old)
        if values is not None:
            result |= {name: values, f"_{name}": np.where(over, new_known, old_known)}
    return result


def stored_frames(observations: Any, maximum_value: int) -> Array:
    """Turns observations into frames as they are stored.

    Args:
        observations: (N, H, W, C) of uint8.
        maximum_value: 1 for binary frames, which may be shown as 0 and 255, or 255.

    Raises:
        DataError: If they are something else.
    """
    frames = np.asarray(observations)
    if frames.ndim != 4 or frames.dtype != np.uint8:
        raise DataError(
            f"observations have the shape {frames.shape} and dtype {frames.dtype}, expected (N, H, W, C) uint8"
        )
    if maximum_value > 1:
        return frames
    # With one added 255 becomes 0: what is binary is then 0, 1 or 2, and one pass tells.
    if (frames + np.uint8(1)).max(initial=0) > 2:
        raise DataError(
            "observations aren't binary, expected only 0 and 255; store them with maximum_value 255"
        )
    return (frames > 0).view(np.uint8)

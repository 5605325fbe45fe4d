"""Recording sequences from a vector environment while an agent acts in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rnem_world.data.episode import EpisodeBatch
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


@runtime_checkable
class RecordableEnv(Protocol):
    """The part of `gymnasium.vector.VectorEnv` that is needed."""

    num_envs: int

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Starts new episodes."""

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Makes one step."""

    def close(self) -> Any:
        """Frees what the environment holds."""


@runtime_checkable
class RecordableAgent(Protocol):
    """The part of an agent that is needed."""

    def reset(self, num_envs: int) -> None:
        """Starts anew."""

    def act(self, observations: Any) -> Array:
        """Chooses the next actions."""


class Recorder:
    """Memory for N sequences of T frames, filled batch by batch.

    Args:
        number_of_frames: T.
        number_of_sequences: N.
        number_of_actions: Actions, rewards and terminations are stored if there are at least two actions.
        maximum_value: 1 for binary frames (an environment may show them as 0 and 255), or 255.
    """

    def __init__(
        self,
        number_of_frames: int,
        number_of_sequences: int,
        number_of_actions: int | None,
        maximum_value: int = 1,
    ) -> None:
        self.number_of_frames = number_of_frames
        self.number_of_sequences = number_of_sequences
        self._with_actions = number_of_actions is not None and number_of_actions > 1
        self._maximum_value = maximum_value
        self._arrays: dict[str, Array] = {}
        self._filled = 0

    def record(
        self,
        env: RecordableEnv,
        agent: RecordableAgent,
        seeds: Sequence[int],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Records one sequence from every sub-environment; those that find no more room are dropped.

        ``actions[t]`` is the action taken at frame t, and rewards, terminations, collisions and events of the
        step that it makes are stored at t too; for the last frame one more step is made, whose frame is not
        stored.

        Args:
            env: The environment.
            agent: Who acts.
            seeds: One for each sub-environment.
            stopped: Asked before every step; if it says True, the recording is given up.

        Raises:
            DataError: If the environment doesn't suit: an episode ends too soon, or frames aren't binary.
            InterruptedError: If the recording was given up.
        """
        room = min(env.num_envs, self.number_of_sequences - self._filled)
        observations, infos = env.reset(seed=list(seeds))
        agent.reset(env.num_envs)
        for time in range(self.number_of_frames):
            if stopped():
                raise InterruptedError("the recording was given up")
            self._put(
                "features", time, stored_frames(observations, self._maximum_value, check=time == 0), room
            )
            for name, dtype in OF_FRAMES.items():
                if name in infos:
                    self._put(name, time, infos[name].astype(dtype, copy=False), room)
            actions = agent.act(observations)
            observations, rewards, terminations, truncations, infos = env.step(actions)
            for name, dtype in OF_TRANSITIONS.items():
                if name in infos:
                    self._put(name, time, infos[name].astype(dtype, copy=False), room)
            if self._with_actions:
                self._put("actions", time, np.asarray(actions, dtype=np.int64), room)
                self._put("rewards", time, np.asarray(rewards, dtype=np.float32), room)
                self._put("terminations", time, np.asarray(terminations, dtype=np.bool_), room)
            if time < self.number_of_frames - 1 and np.any(terminations | truncations):
                raise DataError(
                    f"an episode ended after {time + 1} steps, expected at least {self.number_of_frames}, "
                    "the number of frames; raise the environment's max_episode_steps or record fewer frames"
                )
        self._filled += room

    def episodes(self) -> EpisodeBatch:
        """Returns what was recorded.

        Raises:
            DataError: If there is still room.
        """
        if self._filled < self.number_of_sequences:
            raise DataError(f"{self._filled} sequences were recorded, expected {self.number_of_sequences}")
        return EpisodeBatch(**self._arrays)

    def _put(self, name: str, time: int, values: Array, room: int) -> None:
        if name not in self._arrays:
            shape = (self.number_of_frames, self.number_of_sequences, *values.shape[1:])
            self._arrays[name] = np.zeros(shape, dtype=values.dtype)
        self._arrays[name][time, self._filled : self._filled + room] = values[:room]


def stored_frames(observations: Any, maximum_value: int, check: bool) -> Array:
    """Turns observations into frames as they are stored.

    Args:
        observations: (N, H, W, C) of uint8.
        maximum_value: 1 for binary frames, which may be shown as 0 and 255, or 255.
        check: Whether to look at the values of binary frames.

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
    if check and not np.isin(np.unique(frames), (0, 1, 255)).all():
        raise DataError(
            "observations aren't binary, expected only 0 and 255; store them with maximum_value 255"
        )
    return (frames > 0).view(np.uint8)

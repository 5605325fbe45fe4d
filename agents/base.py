"""What an agent is, and the agents that don't look: random, repeated random, stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

from rnem_world.errors import ConfigError, suggest

Observations = NDArray[Any] | Mapping[str, NDArray[Any]]


@runtime_checkable
class Agent(Protocol):
    """Chooses the actions of N environments that run side by side."""

    def reset(self, num_envs: int) -> None:
        """Starts anew with N environments; to be called before the first `act`."""

    def restart(self, begun: Bool[np.ndarray, " n"]) -> None:
        """Forgets the past of environments that have begun a new episode; to be called before its first `act`.

        Args:
            begun: Which of the N.
        """

    def act(self, observations: Any) -> Int64[np.ndarray, " n"]:
        """Chooses the next actions.

        Args:
            observations: What the N environments show, (n, ...), or several such arrays by name.

        Returns:
            Numbers of actions.
        """


SHORTEST_HOLD, LONGEST_HOLD = 3, 5
"""Steps for which `RepeatedRandomAgent` holds an action, both included."""


class _Baseline:
    """What the baselines share.

    Args:
        number_of_actions: How many there are.
        generator: Where chance comes from.
        start: The first of them; most environments count from 0.

    Raises:
        ConfigError: If there are no actions.
    """

    def __init__(self, number_of_actions: int, generator: np.random.Generator, start: int = 0) -> None:
        if number_of_actions < 1:
            raise ConfigError(f"number_of_actions is {number_of_actions}, expected at least 1")
        self.number_of_actions, self.start = number_of_actions, start
        self._generator = generator

    def reset(self, num_envs: int) -> None:
        """Nothing to do."""

    def restart(self, begun: Bool[np.ndarray, " n"]) -> None:
        """Nothing to do: an action that is held across a reset does no harm."""


class RandomAgent(_Baseline):
    """Draws every action evenly."""

    def act(self, observations: Observations) -> Int64[np.ndarray, " n"]:
        """Draws one action for each observation."""
        return self.start + self._generator.integers(self.number_of_actions, size=_number_of(observations))


class RepeatedRandomAgent(_Baseline):
    """Draws actions evenly and holds each for 3 to 5 steps, every environment by itself."""

    def reset(self, num_envs: int) -> None:
        """Lets every environment draw with its next step."""
        self._actions = np.zeros(num_envs, dtype=np.int64)
        self._remaining = np.zeros(num_envs, dtype=np.int64)

    def act(self, observations: Observations) -> Int64[np.ndarray, " n"]:
        """Draws an action where the last one has been held long enough."""
        n = _number_of(observations)
        # All environments draw, needed or not, so that the stream doesn't depend on who needs one.
        drawn = self._generator.integers(self.number_of_actions, size=n)
        hold = self._generator.integers(SHORTEST_HOLD, LONGEST_HOLD, size=n, endpoint=True)
        over = self._remaining == 0
        self._actions = np.where(over, drawn, self._actions)
        self._remaining = np.where(over, hold, self._remaining) - 1
        return self.start + self._actions


class StayAgent(_Baseline):
    """Always chooses the first action, 0 most often."""

    def act(self, observations: Observations) -> Int64[np.ndarray, " n"]:
        """Chooses it for each observation."""
        return np.full(_number_of(observations), self.start, dtype=np.int64)


def _number_of(observations: Observations) -> int:
    """Counts the environments that show observations, which may have names."""
    return len(next(iter(observations.values())) if isinstance(observations, Mapping) else observations)


BASELINES: dict[str, type[RandomAgent | RepeatedRandomAgent | StayAgent]] = {
    "random": RandomAgent,
    "repeated-random": RepeatedRandomAgent,
    "stay": StayAgent,
}


def baseline(
    name: str, number_of_actions: int, generator: np.random.Generator, start: int = 0
) -> RandomAgent | RepeatedRandomAgent | StayAgent:
    """Makes a baseline by its name.

    Raises:
        ConfigError: If there is none of that name; the message names the nearest.
    """
    if name not in BASELINES:
        raise ConfigError(f"no policy {name!r}: {suggest(name, BASELINES)}")
    return BASELINES[name](number_of_actions, generator, start)

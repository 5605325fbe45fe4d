"""What an agent is, and the agents that don't look: random, repeated random, stay."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

from rnem_world.errors import ConfigError, suggest


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

    def act(self, observations: NDArray[Any]) -> Int64[np.ndarray, " n"]:
        """Chooses the next actions.

        Args:
            observations: What the N environments show, (n, ...).

        Returns:
            Numbers of actions.
        """


SHORTEST_HOLD, LONGEST_HOLD = 3, 5
"""Steps for which `RepeatedRandomAgent` holds an action, both included."""


class _Baseline:
    """What the baselines share.

    Args:
        number_of_actions: Actions are 0 to this minus 1.
        generator: Where chance comes from.

    Raises:
        ConfigError: If there are no actions.
    """

    def __init__(self, number_of_actions: int, generator: np.random.Generator) -> None:
        if number_of_actions < 1:
            raise ConfigError(f"number_of_actions is {number_of_actions}, expected at least 1")
        self.number_of_actions = number_of_actions
        self._generator = generator

    def reset(self, num_envs: int) -> None:
        """Nothing to do."""

    def restart(self, begun: Bool[np.ndarray, " n"]) -> None:
        """Nothing to do: an action that is held across a reset does no harm."""


class RandomAgent(_Baseline):
    """Draws every action evenly."""

    def act(self, observations: NDArray[Any]) -> Int64[np.ndarray, " n"]:
        """Draws one action for each observation."""
        return self._generator.integers(self.number_of_actions, size=len(observations))


class RepeatedRandomAgent(_Baseline):
    """Draws actions evenly and holds each for 3 to 5 steps, every environment by itself."""

    def reset(self, num_envs: int) -> None:
        """Lets every environment draw with its next step."""
        self._actions = np.zeros(num_envs, dtype=np.int64)
        self._remaining = np.zeros(num_envs, dtype=np.int64)

    def act(self, observations: NDArray[Any]) -> Int64[np.ndarray, " n"]:
        """Draws an action where the last one has been held long enough."""
        n = len(observations)
        # All environments draw, needed or not, so that the stream doesn't depend on who needs one.
        drawn = self._generator.integers(self.number_of_actions, size=n)
        hold = self._generator.integers(SHORTEST_HOLD, LONGEST_HOLD, size=n, endpoint=True)
        over = self._remaining == 0
        self._actions = np.where(over, drawn, self._actions)
        self._remaining = np.where(over, hold, self._remaining) - 1
        return self._actions.copy()


class StayAgent(_Baseline):
    """Always chooses action 0."""

    def act(self, observations: NDArray[Any]) -> Int64[np.ndarray, " n"]:
        """Chooses 0 for each observation."""
        return np.zeros(len(observations), dtype=np.int64)


BASELINES: dict[str, type[RandomAgent | RepeatedRandomAgent | StayAgent]] = {
    "random": RandomAgent,
    "repeated-random": RepeatedRandomAgent,
    "stay": StayAgent,
}


def baseline(
    name: str, number_of_actions: int, generator: np.random.Generator
) -> RandomAgent | RepeatedRandomAgent | StayAgent:
    """Makes a baseline by its name.

    Raises:
        ConfigError: If there is none of that name; the message names the nearest.
    """
    if name not in BASELINES:
        raise ConfigError(f"no policy {name!r}: {suggest(name, BASELINES)}")
    return BASELINES[name](number_of_actions, generator)

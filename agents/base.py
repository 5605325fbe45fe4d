"""What an agent is, and the agents that don't look: random, repeated random, stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from rnem_world.actions import ActionSpace
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

    def act(self, observations: Any) -> NDArray[Any]:
        """Chooses the next actions.

        Args:
            observations: What the N environments show, (n, ...), or several such arrays by name.

        Returns:
            N actions, as the environments take them.
        """


SHORTEST_HOLD, LONGEST_HOLD = 3, 5
"""Steps for which `RepeatedRandomAgent` holds an action, both included."""


class _Baseline:
    """What the baselines share.

    Args:
        actions: What there is to do; a number stands for so many actions, from 0 on.
        generator: Where chance comes from.

    Raises:
        ConfigError: If there are no actions.
    """

    def __init__(self, actions: ActionSpace | int, generator: np.random.Generator) -> None:
        if isinstance(actions, int):
            if actions < 1:
                raise ConfigError(f"the number of actions is {actions}, expected at least 1")
            actions = ActionSpace.discrete(actions)
        self.actions = actions
        self._generator = generator

    def reset(self, num_envs: int) -> None:
        """Nothing to do."""

    def restart(self, begun: Bool[np.ndarray, " n"]) -> None:
        """Nothing to do: an action that is held across a reset does no harm."""

    def _drawn(self, number: int) -> NDArray[Any]:
        return self.actions.drawn(number, self._generator)


class RandomAgent(_Baseline):
    """Draws every action evenly."""

    def act(self, observations: Observations) -> NDArray[Any]:
        """Draws one action for each observation."""
        return self.actions.decode(self._drawn(_number_of(observations)))


class RepeatedRandomAgent(_Baseline):
    """Draws actions evenly and holds each for 3 to 5 steps, every environment by itself."""

    def reset(self, num_envs: int) -> None:
        """Lets every environment draw with its next step."""
        self._held: NDArray[Any] | None = None
        self._remaining = np.zeros(num_envs, dtype=np.int64)

    def act(self, observations: Observations) -> NDArray[Any]:
        """Draws an action where the last one has been held long enough."""
        n = _number_of(observations)
        # All environments draw, needed or not, so that the stream doesn't depend on who needs one.
        drawn = self._drawn(n)
        hold = self._generator.integers(SHORTEST_HOLD, LONGEST_HOLD, size=n, endpoint=True)
        over = self._remaining == 0
        each = over.reshape(-1, *[1] * (drawn.ndim - 1))
        self._held = drawn if self._held is None else np.where(each, drawn, self._held)
        self._remaining = np.where(over, hold, self._remaining) - 1
        return self.actions.decode(self._held)


class StayAgent(_Baseline):
    """Always chooses the first action, 0 most often; of real numbers 0, or what is next to it within their bounds."""

    def act(self, observations: Observations) -> NDArray[Any]:
        """Chooses it for each observation."""
        shape = (_number_of(observations), *self.actions.stored_shape)
        return self.actions.decode(np.zeros(shape, self.actions.stored_dtype))


def _number_of(observations: Observations) -> int:
    """Counts the environments that show observations, which may have names."""
    return len(next(iter(observations.values())) if isinstance(observations, Mapping) else observations)


BASELINES: dict[str, type[RandomAgent | RepeatedRandomAgent | StayAgent]] = {
    "random": RandomAgent,
    "repeated-random": RepeatedRandomAgent,
    "stay": StayAgent,
}


def baseline(
    name: str, actions: ActionSpace | int, generator: np.random.Generator
) -> RandomAgent | RepeatedRandomAgent | StayAgent:
    """Makes a baseline by its name.

    Raises:
        ConfigError: If there is none of that name; the message names the nearest.
    """
    if name not in BASELINES:
        raise ConfigError(f"no policy {name!r}: {suggest(name, BASELINES)}")
    return BASELINES[name](actions, generator)

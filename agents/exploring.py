"""Agents that collect experience: a policy on slots that watches real frames, with some random actions."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from rnem_world.agents.base import Agent
from rnem_world.agents.baselines import RepeatedRandomAgent
from rnem_world.agents.learned import WatchedState
from rnem_world.envs.learned_world import LearnedWorld
from rnem_world.errors import ConfigError


class WatchingAgent:
    """Lets an agent that acts on slots act on frames.

    Args:
        agent: Acts on slots, as `SlotVectorObservation` shows them.
        world: Watches the frames.
    """

    def __init__(self, agent: Agent, world: LearnedWorld) -> None:
        self._agent = agent
        self._source = WatchedState(world)
        self._actions: NDArray[Any] | None = None

    def reset(self, num_envs: int) -> None:
        """Starts anew with N environments."""
        self._agent.reset(num_envs)
        self._source.reset(num_envs)
        self._actions = None

    def act(self, observations: NDArray[Any]) -> Int64[np.ndarray, " n"]:
        """Watches the frames (n, h, w, c) and chooses the next actions."""
        self._source.observe(observations, self._actions)
        self._actions = np.asarray(self._agent.act(self._source.slots()), dtype=np.int64)
        return self._actions.copy()

    def was_done(self, actions: Int64[np.ndarray, " n"]) -> None:
        """Tells which actions were taken in the end, instead of the chosen ones."""
        self._actions = actions.copy()


class ExploringAgent:
    """Follows an agent, and takes some steps at random, so that data stays varied.

    Args:
        agent: Who is followed.
        number_of_actions: Actions are 0 to this minus 1.
        share: Share of the steps that are random.
        generator: Where chance comes from.

    Raises:
        ConfigError: If the share is none.
    """

    def __init__(
        self, agent: Agent, number_of_actions: int, share: float, generator: np.random.Generator
    ) -> None:
        if not 0.0 <= share <= 1.0:
            raise ConfigError(f"share is {share}, expected 0 to 1")
        self._agent, self._share, self._generator = agent, share, generator
        self._random = RepeatedRandomAgent(number_of_actions, generator)

    def reset(self, num_envs: int) -> None:
        """Starts anew with N environments."""
        self._agent.reset(num_envs)
        self._random.reset(num_envs)

    def act(self, observations: NDArray[Any]) -> Int64[np.ndarray, " n"]:
        """Chooses the next actions."""
        chosen, drawn = self._agent.act(observations), self._random.act(observations)
        done = np.where(self._generator.random(len(chosen)) < self._share, drawn, chosen)
        if isinstance(self._agent, WatchingAgent):
            self._agent.was_done(done)
        return done

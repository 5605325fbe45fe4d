"""Agents that explore while they collect: some of their steps are random, so that data varies."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from rnem_world.actions import ActionSpace
from rnem_world.agents.base import Agent, RepeatedRandomAgent
from rnem_world.agents.dynamics import WatchedState
from rnem_world.agents.planning import PlannerAgent
from rnem_world.envs.world import World


class ExploringAgent:
    """Collects experience: a policy on slots that watches real frames, with some random steps, so that data varies.

    Args:
        policy: Acts on slots, as `SlotObservation` shows them.
        world: Watches the frames.
        share: Share of the steps that are random.
        generator: Where chance comes from.
    """

    def __init__(self, policy: Agent, world: World, share: float, generator: np.random.Generator) -> None:
        self._policy, self._share, self._generator = policy, share, generator
        self._watching = WatchedState(world)
        self._random = RepeatedRandomAgent(world.actions, generator)

    def reset(self, num_envs: int) -> None:
        """Starts anew with N environments."""
        self._policy.reset(num_envs)
        self._random.reset(num_envs)
        self._actions: NDArray[Any] | None = None
        self._begun = np.ones(num_envs, dtype=np.bool_)

    def restart(self, begun: Bool[np.ndarray, " n"]) -> None:
        """Forgets the past of environments that have begun a new episode."""
        self._policy.restart(begun)
        self._begun |= begun

    def act(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Watches the frames (n, h, w, c) and chooses the next actions."""
        self._watching.observe(observations, self._actions, self._begun)
        self._begun[:] = False
        chosen, drawn = self._policy.act(self._watching.slots()), self._random.act(observations)
        self._actions = explored(chosen, drawn, self._share, self._generator)
        return self._actions.copy()


class ExploringPlanner:
    """Collects experience: a planner that watches real frames, with some random steps.

    Args:
        planner: Acts on frames, and is told when it was overruled.
        actions: What there is to do.
        share: Share of the steps that are random.
        generator: Where chance comes from.
    """

    def __init__(
        self, planner: PlannerAgent[Any], actions: ActionSpace, share: float, generator: np.random.Generator
    ) -> None:
        self._planner, self._share, self._generator = planner, share, generator
        self._random = RepeatedRandomAgent(actions, generator)

    def reset(self, num_envs: int) -> None:
        """Starts anew with N environments."""
        self._planner.reset(num_envs)
        self._random.reset(num_envs)

    def restart(self, begun: Bool[np.ndarray, " n"]) -> None:
        """Forgets the plans of environments that have begun a new episode."""
        self._planner.restart(begun)

    def act(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Watches the frames (n, h, w, c) and chooses the next actions."""
        chosen, drawn = self._planner.act(observations), self._random.act(observations)
        done = explored(chosen, drawn, self._share, self._generator)
        self._planner.tell(done)
        return done.copy()


def explored(
    chosen: NDArray[Any], drawn: NDArray[Any], share: float, generator: np.random.Generator
) -> NDArray[Any]:
    """Takes random actions in a share of the environments, and chosen ones in the others."""
    explores = generator.random(len(chosen)) < share
    return np.where(explores.reshape(-1, *[1] * (drawn.ndim - 1)), drawn, chosen)

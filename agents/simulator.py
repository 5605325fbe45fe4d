"""The real physics of the balls as dynamics: planning in it gives the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from rnem_world.agents.dynamics import Outcome
from rnem_world.envs.bouncing_balls_vector import BouncingBallsVectorEnv
from rnem_world.errors import ConfigError
from rnem_world.physics import BallsConfig, BallsState, number_of_actions, player_velocity, step


class BallsDynamics:
    """Worlds of balls without frames, on the CPU; equal to ``RNEM-BallsReal-v0``.

    Args:
        rules: The rules of the worlds.

    Raises:
        ConfigError: If these worlds have no player.
    """

    def __init__(self, rules: BallsConfig) -> None:
        if not rules.player:
            raise ConfigError(
                "these balls have no player, and a planner nothing to do: choose a preset with a player"
            )
        self.rules = rules
        self.action_space: spaces.Discrete | spaces.Box = spaces.Discrete(number_of_actions(rules))
        self.device = torch.device("cpu")

    def size(self, state: BallsState) -> int:
        """Returns the number of worlds."""
        return len(state)

    def step(self, state: BallsState, actions: Int64[Tensor, " n"]) -> Outcome[BallsState]:
        """Moves all worlds on by one frame; the reward is -1 where the player's ball meets another."""
        velocity = player_velocity(self.rules, actions.numpy())
        following, touching = step(state, self.rules, velocity)
        rewards = torch.from_numpy(np.where(touching[:, 0], np.float32(-1.0), np.float32(0.0)))
        return Outcome(following, rewards, torch.zeros(len(rewards), dtype=torch.bool))

    def select(self, state: BallsState, indices: Int64[Tensor, " m"]) -> BallsState:
        """Returns copies of the given worlds."""
        return state.take(indices.numpy())

    def put(self, state: BallsState, indices: Int64[Tensor, " m"], worlds: BallsState) -> None:
        """Overwrites the given worlds in place."""
        state.put(indices.numpy(), worlds)


class SimulatorState:
    """Tells a planner in `BallsDynamics` how a real environment stands: what makes it the oracle.

    Args:
        env: The environment in which the agent acts.
    """

    def __init__(self, env: BouncingBallsVectorEnv) -> None:
        self._env = env

    def reset(self, num_envs: int) -> None:
        """Nothing to do.

        Raises:
            ConfigError: If the environment has another number of worlds.
        """
        if num_envs != self._env.num_envs:
            raise ConfigError(
                f"{num_envs} environments are played, and the oracle looks at {self._env.num_envs}"
            )

    def observe(self, observations: NDArray[Any], actions: NDArray[Any] | None) -> BallsState:
        """Returns the worlds as they are; what is seen and was done doesn't matter."""
        return self._env.get_state().worlds.balls

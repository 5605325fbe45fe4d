"""An environment and an agent whose numbers tell where they come from."""

from __future__ import annotations

import gymnasium
import numpy as np


class Counter(gymnasium.vector.VectorEnv):
    """Frame t of sequence s is full of t + 10 s; rewards and collisions tell the step that made them."""

    def __init__(self, num_envs: int, length: int = 100) -> None:
        self.num_envs = num_envs
        self.length = length
        self.single_action_space = gymnasium.spaces.Discrete(3)
        self.closed_by_us = False

    def _observe(self) -> np.ndarray:
        return np.broadcast_to(
            (self.time + 10 * np.arange(self.num_envs))[:, None, None, None], (self.num_envs, 4, 4, 1)
        )

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return self._observe().astype(np.uint8), {}

    def step(self, actions):
        self.time += 1
        n = self.num_envs
        infos = {"events": np.full((n, 1, 1, 1), self.time % 2)}
        over = np.full(n, self.time == self.length)
        return self._observe().astype(np.uint8), np.full(n, 1.0 * self.time), over, ~over & False, infos


class Clock:
    """Acts t modulo 3 at its call t."""

    def reset(self, num_envs: int) -> None:
        self.time = -1

    def restart(self, begun) -> None:
        pass

    def act(self, observations):
        self.time += 1
        return np.full(len(observations), self.time % 3)

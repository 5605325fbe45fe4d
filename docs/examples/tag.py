"""Tag: a block flies about and bounces off the walls, you are the ring, and touching the block pays 1 a step."""

import gymnasium
import numpy as np


class Tag(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 1, (12, 12, 1), np.uint8)
    action_space = gymnasium.spaces.Discrete(5)  # stay, up, down, left, right

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.you, self.block = self.np_random.integers(1, 9, (2, 2))
        self.velocity = self.np_random.choice([-1, 1], 2)
        return self.frame(), {}

    def step(self, action):
        self.you = np.clip(self.you + [(0, 0), (-2, 0), (2, 0), (0, -2), (0, 2)][action], 0, 9)
        self.block = self.block + self.velocity
        self.velocity = np.where(self.block % 9 == 0, -self.velocity, self.velocity)
        return self.frame(), float(np.abs(self.you - self.block).max() < 3), False, False, {}

    def frame(self):
        frame, (y, x), (top, left) = np.zeros((12, 12, 1), np.uint8), self.you, self.block
        frame[y : y + 3, x : x + 3] = 1
        frame[y + 1, x + 1] = 0
        frame[top : top + 3, left : left + 3] = 1
        return frame


gymnasium.register("Tag-v0", Tag, max_episode_steps=60)

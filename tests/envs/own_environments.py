"""Environments as users bring them: masks under a key, wide colour frames, and such that misbehave."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Masks(gymnasium.Env):
    """A dictionary with five binary masks of 5 x 5; two numbers move two of the dots."""

    observation_space = spaces.Dict(
        {"masks": spaces.MultiBinary([5, 5, 5]), "time": spaces.Box(0.0, np.inf, (1,), np.float32)}
    )
    action_space = spaces.MultiDiscrete([3, 3])

    def __init__(self, length: int = 7) -> None:
        self.length = length

    def _shown(self) -> dict[str, Any]:
        masks = np.zeros((5, 5, 5), np.int8)
        masks[self.rows, self.columns, np.arange(5)] = 1
        return {"masks": masks, "time": np.array([self.time], np.float32)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.rows, self.columns, self.time = self.np_random.integers(5, size=5), np.arange(5), 0
        return self._shown(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.rows[:2] = (self.rows[:2] + action - 1) % 5
        self.time += 1
        return self._shown(), float(action[0]), self.time >= self.length, False, {}


class Wide(gymnasium.Env):
    """Colour frames of 36 x 64 in which a square stands where the action, two real numbers, puts it."""

    observation_space = spaces.Box(0, 255, (36, 64, 3), np.uint8)
    action_space = spaces.Box(np.array([-1.0, -2.0], np.float32), np.array([1.0, 2.0], np.float32))

    def _shown(self, action=(0.0, 0.0)):
        frame = np.full((36, 64, 3), 40, np.uint8)
        row, column = int(16 + 10 * action[0]), int(28 + 12 * action[1])
        frame[row : row + 6, column : column + 6] = (250, 180, 20)
        return frame

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._shown(), {}

    def step(self, action):
        self.time += 1
        return self._shown(action), float(action[1]), False, self.time >= 12, {}


class Shown(gymnasium.Env):
    """Shows whatever it is given, in its turn; anything else than a pair of numbers is an observation."""

    action_space = spaces.Discrete(2, start=3)

    def __init__(
        self, space: spaces.Space, shown: list[Any], infos: list[dict[str, Any]] | None = None
    ) -> None:
        self.observation_space, self.shown, self.infos, self.time = space, shown, infos or [{}] * 99, 0

    def _next(self):
        shown = self.shown[self.time % len(self.shown)]
        self.time += 1
        if isinstance(shown, Exception):
            raise shown
        return shown

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._next(), self.infos[0]

    def step(self, action):
        assert self.action_space.contains(action), action
        return self._next(), 1.0, False, False, self.infos[self.time - 1]


class Blind(gymnasium.Env):
    """Shows a state, and draws a picture of it if it may."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, picture: tuple[int, ...] = (20, 30, 3), render_mode: str | None = None) -> None:
        self.picture, self.render_mode = tuple(picture), render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(10))
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.place = (self.place + int(action)) % 10
        return np.full(2, self.place, np.float32), 1.0, False, False, {}

    def render(self):
        if self.render_mode is None:
            return None
        picture = np.zeros(self.picture, np.uint8)
        if picture.ndim > 1:
            picture[:, self.place] = 200
        return picture


def register() -> None:
    for name, kind, steps in (("Masks", Masks, None), ("Wide", Wide, 100), ("Blind", Blind, 30)):
        if f"Own/{name}-v0" not in gymnasium.registry:
            gymnasium.register(f"Own/{name}-v0", kind, max_episode_steps=steps)


register()

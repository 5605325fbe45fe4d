"""``RNEM-BallsReal-v0``: one world of balls, simulated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rnem_world.envs.balls_worlds import BallsWorlds, WorldsSnapshot, rules_of
from rnem_world.errors import ConfigError
from rnem_world.physics import BallsConfig


@dataclass(frozen=True)
class BallsSnapshot:
    """A copy of a `BouncingBallsEnv`: its world and the state of its random generator."""

    worlds: WorldsSnapshot
    generator: dict[str, Any]


class BouncingBallsEnv(gymnasium.Env[NDArray[Any], np.int64]):
    """Balls in a box; where the rules have a player, an action moves the ball drawn as a ring.

    Observations are frames, (H, W, 1) uint8 of 0 and 255. Actions are Discrete(9): stay, then the eight
    directions from up clockwise; Discrete(1) in a world without a player. The reward is -1 for a step in
    which the player's ball meets another, else 0. An episode never terminates; `gymnasium.make` truncates it.

    Args:
        preset: The name of the rules (`rnem_world.physics.PRESETS`), or the rules.
        ground_truth: Whether ``info`` has ``groups``, ``collisions``, ``positions`` and ``velocities``; see
            `BallsWorlds.ground_truth`.
        render_mode: ``"rgb_array"`` or None.

    Raises:
        ConfigError: If an argument makes no sense.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array"],
        "render_fps": 20,
    }

    def __init__(
        self,
        preset: str | BallsConfig = "avoid",
        ground_truth: bool = False,
        render_mode: str | None = None,
    ) -> None:
        check_render_mode(render_mode)
        self.render_mode = render_mode
        self.rules = rules_of(preset)
        self._ground_truth = ground_truth
        self._worlds = BallsWorlds(self.rules, 1)
        self.observation_space = observation_space_of(self.rules)
        self.action_space = spaces.Discrete(self._worlds.number_of_actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Draws a new world.

        Args:
            seed: Seeds the environment's generator if given.
            options: None are known.

        Returns:
            The first frame and the info.
        """
        super().reset(seed=seed)
        self._worlds.reset(np.zeros(1, dtype=np.int64), [self.np_random])
        return self._worlds.frames()[0], self._info()

    def step(self, action: np.int64 | int) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Moves the world on by one frame.

        Returns:
            The frame, the reward, False, False and the info.

        Raises:
            ConfigError: If there is no such action.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        rewards = self._worlds.step(np.asarray(action).reshape(-1))
        return self._worlds.frames()[0], float(rewards[0]), False, False, self._info()

    def render(self) -> NDArray[Any] | None:
        """Returns a coloured picture (256, 256, 3) of uint8 in the mode ``rgb_array``, else None."""
        return self._worlds.render()[0] if self.render_mode == "rgb_array" else None

    def get_state(self) -> BallsSnapshot:
        """Returns a copy of everything that the future depends on.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        return BallsSnapshot(self._worlds.get_state(), dict(self.np_random.bit_generator.state))

    def set_state(self, snapshot: BallsSnapshot) -> None:
        """Goes back to a copy; the same actions then give exactly the same frames.

        Raises:
            ConfigError: If the copy is of an environment with other rules.
        """
        self._worlds.set_state(snapshot.worlds)
        self.np_random.bit_generator.state = snapshot.generator

    def _info(self) -> dict[str, Any]:
        if not self._ground_truth:
            return {}
        return {name: array[0] for name, array in self._worlds.ground_truth().items()}


def observation_space_of(rules: BallsConfig) -> spaces.Box:
    """Returns the space of the frames, (H, W, 1) uint8."""
    return spaces.Box(0, 255, (rules.image_size, rules.image_size, 1), np.uint8)


def check_render_mode(render_mode: str | None) -> None:
    """Refuses render modes other than None and ``rgb_array``.

    Raises:
        ConfigError: If it is another.
    """
    if render_mode not in (None, "rgb_array"):
        raise ConfigError(f"render_mode is {render_mode!r}, expected None or 'rgb_array'")

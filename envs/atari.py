"""``RNEM-AtariReal-v0``: an Atari game, in frames that a model can learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from rnem_world.envs.atari_emulator import REPEAT_PROBABILITY, EmulatorSnapshot
from rnem_world.envs.atari_observation import AtariRules
from rnem_world.envs.bouncing_balls import check_render_mode
from rnem_world.errors import ConfigError


@dataclass(frozen=True)
class AtariSnapshot:
    """A copy of an `AtariEnv`: the console, and the state of the environment's random generator."""

    emulator: EmulatorSnapshot
    generator: dict[str, Any]


class AtariEnv(gymnasium.Env[NDArray[Any], np.int64]):
    """A game of the Arcade Learning Environment: frame skip 4, sticky actions 0.25, the minimal action set.

    Observations are frames, (84, 84, 1) uint8: the brighter of the last two screens of each pixel, by areas to
    84 x 84, and 255 where that differs from the game's background, else 0. An episode terminates with the game;
    `gymnasium.make` truncates it after half an hour of play. ``info`` has ``lives`` and ``life_lost``.

    Args:
        game: The game's name, for example ``"SpaceInvaders"``.
        obs_type: ``"binary"``, or ``"grayscale"``, or ``"rgb"`` for (84, 84, 3).
        reward: ``"raw"`` for the game's points or ``"sign"`` for their sign.
        background: None for the game's own, which is found by a short run of the game once and kept in the user's
            cache folder; or an array (84, 84) of uint8, or the path of a ``.npy`` file or a dataset of the game.
        repeat_probability: Probability that a frame of the console still gets the action before.
        render_mode: ``"rgb_array"`` or None.

    Raises:
        ConfigError: If an argument makes no sense.
        DataError: If the background can't be read.
        DependencyError: If ale-py is not installed.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array"],
        "render_fps": 15,
    }

    def __init__(
        self,
        game: str = "SpaceInvaders",
        obs_type: str = "binary",
        reward: str = "raw",
        background: Any = None,
        repeat_probability: float = REPEAT_PROBABILITY,
        render_mode: str | None = None,
    ) -> None:
        check_render_mode(render_mode)
        self.render_mode = render_mode
        self.rules = AtariRules(game, obs_type, reward, background, repeat_probability)
        self._emulator = self.rules.emulator()
        self.observation_space = self.rules.space
        self.action_space = spaces.Discrete(len(self._emulator.action_names))
        self._started = False

    @property
    def action_names(self) -> list[str]:
        """The actions, in the order of their numbers."""
        return self._emulator.action_names

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Starts a new game.

        Args:
            seed: Seeds the console's sticky actions if given.
            options: None are known.

        Returns:
            The first frame and the info.
        """
        super().reset(seed=seed)
        if seed is not None:
            self._emulator.seed(seed)
        elif not self._started:
            self._emulator.seed(int(self.np_random.integers(2**31)))
        self._emulator.reset()
        self._started = True
        return self._observation(), self._info(False)

    def step(self, action: np.int64 | int) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Holds an action for four frames of the console.

        Returns:
            The frame, the reward, whether the game is over, False and the info.

        Raises:
            ConfigError: If there is no such action.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if not self._started:
            raise ResetNeeded("reset the environment before anything else")
        if not self.action_space.contains(action):
            raise ConfigError(f"action is {action!r}, expected 0 to {len(self.action_names) - 1}")
        points, over, life_lost = self._emulator.step(int(action))
        return self._observation(), float(self.rules.earned(points)), over, False, self._info(life_lost)

    def render(self) -> NDArray[Any] | None:
        """Returns the console's screen in colour, (210, 160, 3) uint8, in the mode ``rgb_array``, else None."""
        return self._emulator.screen() if self.render_mode == "rgb_array" else None

    def get_state(self) -> AtariSnapshot:
        """Returns a copy of everything that the future depends on.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if not self._started:
            raise ResetNeeded("reset the environment before anything else")
        return AtariSnapshot(self._emulator.get_state(), dict(self.np_random.bit_generator.state))

    def set_state(self, snapshot: AtariSnapshot) -> NDArray[Any]:
        """Goes back to a copy; the same actions then give exactly the same frames.

        Returns:
            The frame of the copy.

        Raises:
            ConfigError: If the copy is of an environment with other observations.
        """
        self._emulator.set_state(snapshot.emulator)
        self.np_random.bit_generator.state = snapshot.generator
        self._started = True
        return self._observation()

    def _observation(self) -> NDArray[Any]:
        return self.rules.observation(self._emulator.frame())

    def _info(self, life_lost: bool) -> dict[str, Any]:
        return {"lives": self._emulator.lives, "life_lost": life_lost}

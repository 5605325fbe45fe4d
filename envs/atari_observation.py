"""What an Atari environment shows of a game, and how it rewards."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from gymnasium import spaces
from jaxtyping import UInt8
from numpy.typing import NDArray

from rnem_world.envs.atari_background import chosen_background
from rnem_world.envs.atari_emulator import SIZE, Emulator
from rnem_world.envs.atari_games import game_named
from rnem_world.errors import ConfigError, suggest

ObservationType = Literal["binary", "grayscale", "rgb"]
RewardType = Literal["raw", "sign"]


class AtariRules:
    """The options that the single and the vector environment share, checked.

    Args:
        game: The game's name.
        obs_type: ``binary``: 255 where a pixel differs from the background, else 0; ``grayscale``; or ``rgb``.
        reward: The game's ``raw`` points, or their ``sign``.
        background: See `chosen_background`; used for binary observations alone.
        repeat_probability: See `rnem_world.envs.atari_emulator.REPEAT_PROBABILITY`.

    Raises:
        ConfigError: If an argument makes no sense.
        DataError: If the background can't be read.
        DependencyError: If ale-py is not installed.
    """

    def __init__(
        self, game: str, obs_type: str, reward: str, background: Any, repeat_probability: float
    ) -> None:
        for name, value, kind in (("obs_type", obs_type, ObservationType), ("reward", reward, RewardType)):
            if value not in get_args(kind):
                raise ConfigError(f"{name} is {value!r}: {suggest(str(value), get_args(kind))}")
        self.game = game_named(game)
        self.obs_type, self.reward = obs_type, reward
        self.repeat_probability = repeat_probability
        self.background: NDArray[Any] | None = None
        if obs_type == "binary":
            self.background = chosen_background(self.game, background)
        elif background is not None:
            raise ConfigError(f"a background was given, but observations are {obs_type}: leave it out")
        self.space = spaces.Box(0, 255, (SIZE, SIZE, 3 if obs_type == "rgb" else 1), np.uint8)

    def emulator(self) -> Emulator:
        """Makes a console with the game."""
        colour: Literal["grayscale", "rgb"] = "rgb" if self.obs_type == "rgb" else "grayscale"
        return Emulator(self.game, colour, self.repeat_probability)

    def observation(self, frames: NDArray[Any]) -> UInt8[np.ndarray, "*n 84 84 c"]:
        """Turns frames of an `Emulator` into observations.

        Args:
            frames: (..., 84, 84), or (..., 84, 84, 3) in colour.
        """
        if self.obs_type == "rgb":
            return frames
        if self.background is not None:
            # 0 or 1, times 255: quicker than a choice between two numbers.
            frames = (frames != self.background).view(np.uint8) * np.uint8(255)
        return frames[..., None]

    def earned(self, points: Any) -> Any:
        """Turns points into rewards."""
        return np.sign(points) if self.reward == "sign" else points

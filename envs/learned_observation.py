"""What learned environments show: frames or slots."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from gymnasium import spaces

from rnem_world.envs.learned_world import LearnedWorld
from rnem_world.errors import ConfigError, suggest

ObservationType = Literal["frame", "slots"]


def observation_space(world: LearnedWorld, obs_type: str, slots: int) -> spaces.Box:
    """Returns the space of one observation.

    Raises:
        ConfigError: If ``obs_type`` is unknown.
    """
    if obs_type not in get_args(ObservationType):
        raise ConfigError(f"obs_type is {obs_type!r}: {suggest(str(obs_type), get_args(ObservationType))}")
    if obs_type == "frame":
        return spaces.Box(0, 255, world.frame_shape, np.uint8)
    low, high = world.slot_bounds()
    return spaces.Box(np.tile(low, (slots, 1)), np.tile(high, (slots, 1)), dtype=np.float32)

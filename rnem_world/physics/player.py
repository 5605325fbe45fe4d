"""The player's actions: standing still and eight directions."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Integer

from rnem_world.physics.balls import BallsConfig

_DIAGONAL = math.sqrt(0.5)

DIRECTIONS = np.array(
    [
        (0.0, 0.0),
        (0.0, -1.0),
        (_DIAGONAL, -_DIAGONAL),
        (1.0, 0.0),
        (_DIAGONAL, _DIAGONAL),
        (0.0, 1.0),
        (-_DIAGONAL, _DIAGONAL),
        (-1.0, 0.0),
        (-_DIAGONAL, -_DIAGONAL),
    ]
)
"""(x, y) of every action: stay, then up and on clockwise; y points downwards, as the rows of a frame do."""

DIRECTIONS.setflags(write=False)


def number_of_actions(config: BallsConfig) -> int:
    """Returns 9, or 1 (nothing to do) where there is no player."""
    return len(DIRECTIONS) if config.player else 1


def player_velocity(
    config: BallsConfig, actions: Integer[np.ndarray, " n"]
) -> Float[np.ndarray, "n 2"] | None:
    """Turns actions into velocities for `rnem_world.physics.balls.step`.

    Args:
        config: The rules of the worlds.
        actions: Numbers below `number_of_actions`.

    Returns:
        Velocities in units a frame, or None where there is no player.
    """
    return config.player_speed * DIRECTIONS[actions] if config.player else None

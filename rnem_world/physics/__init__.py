"""Ball physics in NumPy, vectorised over worlds."""

from rnem_world.physics.balls import BallsState, sample_state, step
from rnem_world.physics.rasteriser import collision_mask, rasterise, under_curtain
from rnem_world.physics.rules import (
    DIRECTIONS,
    PRESETS,
    BallsConfig,
    number_of_actions,
    player_velocity,
    preset,
)

__all__ = [
    "DIRECTIONS",
    "PRESETS",
    "BallsConfig",
    "BallsState",
    "collision_mask",
    "number_of_actions",
    "player_velocity",
    "preset",
    "rasterise",
    "sample_state",
    "step",
    "under_curtain",
]

"""Ball physics in NumPy, vectorised over worlds."""

from rnem_world.physics.balls import BallsConfig, BallsState, step
from rnem_world.physics.player import DIRECTIONS, number_of_actions, player_velocity
from rnem_world.physics.presets import PRESETS, preset
from rnem_world.physics.rasteriser import collision_mask, rasterise, under_curtain
from rnem_world.physics.sampling import sample_state

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

"""The Gymnasium environments, real and learned, and their registration."""

from __future__ import annotations

from typing import Any

from gymnasium.envs.registration import register, registry

_ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "RNEM-BallsReal-v0": {
        "entry_point": "rnem_world.envs.balls:BouncingBallsEnv",
        "vector_entry_point": "rnem_world.envs.balls:BouncingBallsVectorEnv",
        "max_episode_steps": 100,
    },
    "RNEM-Balls-v0": {
        "entry_point": "rnem_world.envs.learned:LearnedEnv",
        "vector_entry_point": "rnem_world.envs.learned:LearnedVectorEnv",
        "max_episode_steps": 100,
        "kwargs": {"checkpoint": "balls"},
    },
    "RNEM-World-v0": {
        "entry_point": "rnem_world.envs.learned:world_env",
        "vector_entry_point": "rnem_world.envs.learned:world_vector_env",
        "max_episode_steps": 200,
    },
    "RNEM-Atari-v0": {
        "entry_point": "rnem_world.envs.learned:atari_env",
        "vector_entry_point": "rnem_world.envs.learned:atari_vector_env",
        "max_episode_steps": 200,
    },
    "RNEM-AtariReal-v0": {
        "entry_point": "rnem_world.envs.atari:AtariEnv",
        "vector_entry_point": "rnem_world.envs.atari:AtariVectorEnv",
        "max_episode_steps": 27_000,  # half an hour of play
    },
    "RNEM-Real-v0": {
        "entry_point": "rnem_world.envs.real:RealEnv",
        "vector_entry_point": "rnem_world.envs.real:real_vector_env",
    },
}


def register_environments() -> None:
    """Registers every environment of this package once, by string, so that nothing heavy is imported."""
    for name, arguments in _ENVIRONMENTS.items():
        if name not in registry:
            register(id=name, **arguments)

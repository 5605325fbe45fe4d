"""The Gymnasium environments, real and learned, and their registration."""

from __future__ import annotations

from gymnasium.envs.registration import register, registry


def register_environments() -> None:
    """Registers every environment of this package once, by string, so that nothing heavy is imported."""
    if "RNEM-BallsReal-v0" not in registry:
        register(
            id="RNEM-BallsReal-v0",
            entry_point="rnem_world.envs.bouncing_balls:BouncingBallsEnv",
            vector_entry_point="rnem_world.envs.bouncing_balls_vector:BouncingBallsVectorEnv",
            max_episode_steps=100,
        )
    if "RNEM-Balls-v0" not in registry:
        register(
            id="RNEM-Balls-v0",
            entry_point="rnem_world.envs.learned:LearnedEnv",
            vector_entry_point="rnem_world.envs.learned_vector:LearnedVectorEnv",
            max_episode_steps=100,
            kwargs={"checkpoint": "balls"},
        )
    if "RNEM-Atari-v0" not in registry:
        register(
            id="RNEM-Atari-v0",
            entry_point="rnem_world.envs.learned:LearnedEnv",
            vector_entry_point="rnem_world.envs.learned_vector:LearnedVectorEnv",
            max_episode_steps=200,
            kwargs={"game": "SpaceInvaders"},
        )
    if "RNEM-AtariReal-v0" not in registry:
        register(
            id="RNEM-AtariReal-v0",
            entry_point="rnem_world.envs.atari:AtariEnv",
            vector_entry_point="rnem_world.envs.atari_vector:AtariVectorEnv",
            max_episode_steps=27_000,  # half an hour of play
        )

"""What the commands for agents can be told: how a policy is trained, who plays a contest, what a loop's rounds do.

Importing this is cheap; what the options mean is imported when they are checked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rnem_world import physics
from rnem_world.config import check_above_zero, check_at_least, check_between, check_one_of
from rnem_world.errors import ConfigError

REAL_BALLS = "RNEM-BallsReal-v0"
CONFIG_FILE = "agent.json"
"""By this file in it a folder is known to hold a policy."""

# Our worlds run hundreds of copies at once, have episodes of 100 steps, and rewards that follow within a few.
HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "ppo": {
        "learning_rate": 5e-4,
        "n_steps": 32,
        "batch_size": 512,
        "n_epochs": 4,
        "gamma": 0.95,
        "gae_lambda": 0.9,
        "ent_coef": 0.01,
        "max_grad_norm": 0.5,
    },
    "dqn": {
        "learning_rate": 5e-4,
        "buffer_size": 100_000,
        "learning_starts": 2_000,
        "batch_size": 256,
        "gamma": 0.95,
        "train_freq": 4,
        "gradient_steps": 8,
        "target_update_interval": 2_000,
        "exploration_fraction": 0.3,
        "exploration_final_eps": 0.05,
    },
}
"""What differs from stable-baselines3's own defaults."""


@dataclass(frozen=True)
class PolicyConfig:
    """What a policy is trained with.

    Attributes:
        algorithm: ``ppo`` or ``dqn``.
        env: Gymnasium id of the environment.
        env_options: Its keyword arguments.
        slots_of: A world through which real frames are seen as slots; empty shows what the environment shows.
        num_envs: Environments that run side by side.
        timesteps: Steps of all environments together.
        frame_stack: Frames that a policy sees at once, if it sees frames.
        seed: Of everything.
        hyperparameters: Arguments of the algorithm in stable-baselines3, beside `HYPERPARAMETERS`.
        checkpoint_minutes: Minutes between checkpoints.
        keep_checkpoints: Latest checkpoints to keep.

    Raises:
        ConfigError: If a value makes no sense.
    """

    algorithm: str = "ppo"
    env: str = "RNEM-Balls-v0"
    env_options: Any = field(default_factory=dict)
    slots_of: str = ""
    num_envs: int = 64
    timesteps: int = 1_000_000
    frame_stack: int = 4
    seed: int = 0
    hyperparameters: Any = field(default_factory=dict)
    checkpoint_minutes: float = 5.0
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        check_one_of(self, "algorithm", HYPERPARAMETERS)
        check_at_least(self, 1, "num_envs", "timesteps", "frame_stack", "keep_checkpoints")
        check_at_least(self, 0, "seed")
        check_above_zero(self, "checkpoint_minutes")
        for name in ("env_options", "hyperparameters"):
            if not isinstance(getattr(self, name), dict):
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected names and values")

    @property
    def arguments(self) -> dict[str, Any]:
        """All hyperparameters that are handed to stable-baselines3."""
        return {**HYPERPARAMETERS[self.algorithm], **self.hyperparameters}


@dataclass(frozen=True)
class ContestConfig:
    """Who plays what.

    Attributes:
        agents: Planners, as ``mcts`` or ``mcts:horizon=10,simulations=100``, and folders of policies. Baselines and,
            for balls, the oracles of the planners play in any case.
        checkpoint: The learned world.
        env: Gymnasium id of the real environment.
        env_options: Its keyword arguments.
        episodes: Episodes that each plays.
        steps: Steps of an episode.
        seed: Of the first episode; the next one has the next.
        oracle: The planner on the true simulator that policies are compared with; by default the planners' own
            oracles serve, and without planners ``shooting``.
        imagination: ``latent``, ``pixels``, or None: latent if the world can.
        device: Where the world is.

    Raises:
        ConfigError: If a value makes no sense.
    """

    agents: tuple[str, ...] = ()
    checkpoint: str = "balls"
    env: str = REAL_BALLS
    env_options: Any = field(default_factory=dict)
    episodes: int = 100
    steps: int = 100
    seed: int = 10_000
    oracle: str | None = None
    imagination: str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "episodes", "steps")
        check_at_least(self, 0, "seed")
        from rnem_world.agents.planning import parse_planner, planner_config

        for given in [*self.planners, *([self.oracle] if self.oracle else [])]:
            planner_config(*parse_planner(given))

    @property
    def planners(self) -> list[str]:
        """The planners among the agents."""
        return [agent for agent in self.agents if not _is_policy(agent)]

    @property
    def policies(self) -> list[str]:
        """The policies among the agents."""
        return [agent for agent in self.agents if _is_policy(agent)]


def _is_policy(agent: str) -> bool:
    return (Path(agent) / CONFIG_FILE).is_file()


@dataclass(frozen=True)
class LoopConfig:
    """What the rounds do.

    Attributes:
        rounds: Number of rounds; may be more when the loop is resumed.
        preset: The real balls.
        checkpoint: The learned world to begin with.
        sequences: Real sequences that are collected for training in every round.
        validation_sequences: Real sequences for validation in every round.
        frames: Frames of a sequence.
        exploration: Share of random steps while collecting. The first round has random steps only.
        world_updates: Updates by which the world is fine-tuned in every round.
        world_learning_rate: Step size of those updates.
        timesteps: Dreamt steps by which the policy is trained on in every round.
        num_envs: Dreams side by side.
        hyperparameters: PPO's, beside the usual ones.
        episodes: Real episodes of every evaluation.
        steps: Steps of an episode, real or dreamt.
        oracle: Planner on the true simulator that scores are normalised by.
        seed: Of everything.

    Raises:
        ConfigError: If a value makes no sense.
    """

    rounds: int = 3
    preset: str = "avoid"
    checkpoint: str = "balls"
    sequences: int = 500
    validation_sequences: int = 50
    frames: int = 101
    exploration: float = 0.2
    world_updates: int = 500
    world_learning_rate: float = 3e-4
    timesteps: int = 500_000
    num_envs: int = 64
    hyperparameters: Any = None
    episodes: int = 100
    steps: int = 100
    oracle: str = "shooting"
    seed: int = 0

    def __post_init__(self) -> None:
        from rnem_world.envs.starts import CONTEXT_FRAMES

        check_at_least(self, 1, "rounds", "sequences", "validation_sequences", "world_updates")
        check_at_least(self, 1, "timesteps", "episodes")
        if self.frames <= CONTEXT_FRAMES:
            raise ConfigError(
                f"frames is {self.frames}, expected more than {CONTEXT_FRAMES}, the context that a dream begins with"
            )
        check_between(self, 0.0, 1.0, "exploration")
        if not physics.preset(self.preset).player:
            raise ConfigError(
                f"the balls of {self.preset} have no player: choose a preset with a player, avoid say"
            )
        ContestConfig(oracle=self.oracle)

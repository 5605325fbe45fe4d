"""What a policy is trained with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from rnem_world.errors import ConfigError, suggest

Algorithm = Literal["ppo", "dqn"]

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
        timesteps: Steps of all of them together.
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
        if self.algorithm not in get_args(Algorithm):
            raise ConfigError(
                f"algorithm is {self.algorithm!r}: {suggest(self.algorithm, get_args(Algorithm))}"
            )
        for name in ("num_envs", "timesteps", "frame_stack", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}, expected at least 0")
        if not self.checkpoint_minutes > 0:
            raise ConfigError(f"checkpoint_minutes is {self.checkpoint_minutes}, expected a number above 0")
        for name in ("env_options", "hyperparameters"):
            if not isinstance(getattr(self, name), dict):
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected names and values")

    @property
    def arguments(self) -> dict[str, Any]:
        """All hyperparameters that are handed to stable-baselines3."""
        return {**HYPERPARAMETERS[self.algorithm], **self.hyperparameters}

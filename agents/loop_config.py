"""What the rounds of a loop do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rnem_world import physics
from rnem_world.agents.contest import ContestConfig
from rnem_world.envs.starts import CONTEXT_FRAMES
from rnem_world.errors import ConfigError


@dataclass(frozen=True)
class LoopConfig:
    """What the rounds do.

    Attributes:
        rounds: Number of rounds; may be more when the loop is resumed.
        preset: The real balls.
        checkpoint: The learned world to begin with.
        sequences: Real sequences that are collected for training in every round.
        validation_sequences: And for validation.
        frames: Frames of a sequence.
        exploration: Share of random steps while collecting. The first round has random steps only.
        world_updates: Updates by which the world is fine-tuned in every round.
        world_learning_rate: Their step size.
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
        for name in ("rounds", "sequences", "validation_sequences", "world_updates", "timesteps", "episodes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.frames <= CONTEXT_FRAMES:
            raise ConfigError(
                f"frames is {self.frames}, expected more than {CONTEXT_FRAMES}, the context that a dream begins with"
            )
        if not 0.0 <= self.exploration <= 1.0:
            raise ConfigError(f"exploration is {self.exploration}, expected 0 to 1")
        if not physics.preset(self.preset).player:
            raise ConfigError(
                f"the balls of {self.preset} have no player: choose a preset with a player, avoid say"
            )
        ContestConfig(oracle=self.oracle)

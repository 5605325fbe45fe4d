"""What the commands for agents can be told: how a policy is trained, who plays a contest, what a loop's rounds do.

Paths become absolute when they are given, so that they mean the same after a change of the working directory. Importing
this is cheap; what the options mean is imported when they are checked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rnem_world import physics
from rnem_world.config import (
    as_path,
    check_above_zero,
    check_at_least,
    check_between,
    check_one_of,
    check_types,
)
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

SLOT_HEADS = 4
"""Heads of the attention between slots, into which their layers' width is divided."""

FORMER_WIDTH = 128
"""The ``slot_width`` of policies that don't say theirs."""

POLICIES = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy")
"""Policies of stable-baselines3 that may be chosen."""


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
        policy: Policy of stable-baselines3, one of `POLICIES`; empty takes what fits the observations, for frames and
            slots with layers of our own.
        frame_stack: Frames that a policy sees at once, if it sees frames.
        slot_width: Width of the layers that see slots. What a policy is taught takes most of a training's time.
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
    policy: str = ""
    frame_stack: int = 4
    slot_width: int = 64
    seed: int = 0
    hyperparameters: Any = field(default_factory=dict)
    checkpoint_minutes: float = 5.0
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        check_one_of(self, "algorithm", HYPERPARAMETERS)
        if self.policy:
            check_one_of(self, "policy", POLICIES)
        check_at_least(self, 1, "num_envs", "timesteps", "frame_stack", "slot_width", "keep_checkpoints")
        if self.slot_width % SLOT_HEADS:
            raise ConfigError(f"slot_width is {self.slot_width}, expected a multiple of {SLOT_HEADS}")
        check_at_least(self, 0, "seed")
        check_above_zero(self, "checkpoint_minutes")
        object.__setattr__(self, "slots_of", absolute(self.slots_of))
        object.__setattr__(self, "env_options", with_paths(self.env, self.env_options, absolute))
        for name in ("env_options", "hyperparameters"):
            _check_values(name, getattr(self, name))
        _check_values("policy_kwargs", self.arguments.get("policy_kwargs", {}))

    @property
    def arguments(self) -> dict[str, Any]:
        """All hyperparameters that are handed to stable-baselines3."""
        return {**HYPERPARAMETERS[self.algorithm], **self.hyperparameters}


PATHS = ("checkpoint", "starts", "ensemble", "background")
"""Options of our environments that may be paths."""


def absolute(given: Any) -> Any:
    """Makes a path that is there absolute, or each in a list; what is no path stays: the name of a world, say."""
    from rnem_world.training.checkpoint import pretrained_names

    if isinstance(given, list | tuple):
        return [absolute(each) for each in given]
    if not isinstance(given, str | Path) or not Path(given).exists():
        return str(given) if isinstance(given, Path) else given
    place = as_path(given, ("", "real", *pretrained_names()))
    return given if place is None else str(place)


def moved(given: Any, before: str, now: Path) -> Any:
    """Finds what a path means that isn't there any more, after a folder, and all that lies around it, was moved.

    Args:
        given: A path, several, or something else, which stays.
        before: Where the folder was.
        now: Where it is.
    """
    if isinstance(given, list):
        return [moved(each, before, now) for each in given]
    if not isinstance(given, str) or not os.path.isabs(given) or os.path.exists(given):
        return given
    place = os.path.normpath(now.absolute() / os.path.relpath(given, before))
    return place if os.path.exists(place) else given


def with_paths(env: str, options: Any, change: Callable[[Any], Any]) -> Any:
    """Changes the paths among the options of an environment; which options of others are paths, nobody knows."""
    ours = env.rpartition(":")[2].startswith("RNEM-") and isinstance(options, Mapping)
    if not ours:
        return options
    return {name: change(value) if name in PATHS else value for name, value in options.items()}


def _check_values(name: str, values: Any) -> None:
    """Refuses what isn't names and values, or what a policy's folder can't keep."""
    if not isinstance(values, dict):
        raise ConfigError(f"{name} is {values!r}, expected names and values")
    try:
        json.dumps(values)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} holds what JSON can't ({error}), and a policy's folder keeps it so: give numbers, texts, truths, "
            "lists of these, or names and values"
        ) from error


LIMIT = "max_episode_steps"
"""What environments call their steps of an episode."""


@dataclass(frozen=True)
class ContestConfig:
    """Who plays what.

    Attributes:
        agents: Planners, as ``mcts`` or ``mcts:horizon=10,simulations=100``, and folders of policies. Baselines and,
            for balls, the oracles of the planners play in any case.
        checkpoint: The learned world.
        env: Gymnasium id of the real environment; empty for the one that the world was learned from.
        env_options: Its keyword arguments.
        episodes: Episodes that each plays.
        steps: Steps of an episode; None for 100, or of an environment of others its own limit (1,000 without one).
        seed: Of the first episode; the next one has the next.
        oracle: The planner on the true simulator that policies are compared with; by default the planners' own
            oracles serve, and without planners ``shooting``.
        imagination: ``latent``, ``pixels``, or None: latent if the world can.
        engine: What computes the steps of planners and dreams: torch, onnx, openvino-bf16, or auto.
        device: Where the world is.
        folders: Where the policies among the agents are, by the names that were given; found by itself.

    Raises:
        ConfigError: If a value makes no sense.
    """

    agents: tuple[str, ...] = ()
    checkpoint: str = "balls"
    env: str = ""
    env_options: Any = field(default_factory=dict)
    episodes: int = 100
    steps: int | None = None
    seed: int = 10_000
    oracle: str | None = None
    imagination: str | None = None
    engine: str = "auto"
    device: str = "cpu"
    folders: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, "episodes", "steps")
        check_at_least(self, 0, "seed")
        if isinstance(self.env_options, Mapping) and LIMIT in self.env_options:
            # Dreams and reality last equally long, so that their scores can be compared.
            raise ConfigError(
                f"env_options say that {LIMIT} is {self.env_options[LIMIT]!r}, and how long an episode is the "
                "contest's steps say: leave that out, and give steps (--steps) instead"
            )
        policies = {agent: str(Path(agent).absolute()) for agent in self.agents if _is_policy(agent)}
        object.__setattr__(self, "folders", policies)
        object.__setattr__(self, "checkpoint", absolute(self.checkpoint))
        object.__setattr__(
            self, "env_options", with_paths(self.env or REAL_BALLS, self.env_options, absolute)
        )
        from rnem_world.agents.planning import parse_planner, planner_config

        for given in [*self.planners, *([self.oracle] if self.oracle else [])]:
            planner_config(*parse_planner(given))

    @property
    def planners(self) -> list[str]:
        """The planners among the agents."""
        return [agent for agent in self.agents if agent not in self.folders]

    @property
    def policies(self) -> list[str]:
        """The policies among the agents."""
        return list(self.folders)


def _is_policy(agent: str) -> bool:
    """Tells a policy's folder from a planner, whose name means it whatever lies in the working directory."""
    from rnem_world.agents.planning import PLANNERS

    return agent.partition(":")[0] not in PLANNERS and (Path(agent) / CONFIG_FILE).is_file()


POLICY_AGENT = "ppo"
"""Who acts in a loop unless a planner does."""


@dataclass(frozen=True)
class LoopConfig:
    """What the rounds do.

    Attributes:
        rounds: Number of rounds; may be more when the loop is resumed.
        preset: The real balls, ``avoid`` if None; of a world of another environment nothing but None.
        checkpoint: The learned world to begin with.
        agent: Who acts: ``ppo``, a policy that is trained on in the dream in every round, or a planner in the dream,
            such as ``icem:horizon=12``.
        sequences: Real sequences that are collected for training in every round.
        validation_sequences: Real sequences for validation in every round.
        frames: Frames of a sequence.
        exploration: Share of random steps while collecting. The first round has random steps only, but for a planner
            in a world whose ``data`` is given.
        imagination: ``latent``, ``pixels``, or None: latent if the world can.
        data: What the world has learned from already, a file or folder: it goes on learning from that as well, and its
            sequences count as real transitions. None leaves that to the loop's own data.
        own_share: Where there is such data, the share of the sequences shown that are the loop's own, of all rounds.
        world_updates: Updates by which the world is fine-tuned in every round.
        world_learning_rate: Step size of those updates.
        timesteps: Dreamt steps by which the policy is trained on in every round.
        num_envs: Dreams side by side.
        hyperparameters: PPO's, beside the usual ones.
        episodes: Real episodes of every evaluation.
        steps: Steps of an episode, real or dreamt; None for 100, or of an environment of others its own limit.
        oracle: Planner on the true simulator of balls that scores are normalised by, ``shooting`` if None.
        seed: Of everything.

    Raises:
        ConfigError: If a value makes no sense.
    """

    rounds: int = 3
    preset: str | None = None
    checkpoint: str = "balls"
    agent: str = POLICY_AGENT
    sequences: int = 500
    validation_sequences: int = 50
    frames: int = 101
    exploration: float = 0.2
    imagination: str | None = None
    data: str | None = None
    own_share: float = 0.3
    world_updates: int = 500
    world_learning_rate: float = 3e-4
    timesteps: int = 500_000
    num_envs: int = 64
    hyperparameters: Any = None
    episodes: int = 100
    steps: int | None = None
    oracle: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        from rnem_world.agents.planning import parse_planner, planner_config
        from rnem_world.envs.starts import CONTEXT_FRAMES

        check_at_least(self, 1, "rounds", "sequences", "validation_sequences", "world_updates")
        check_at_least(self, 1, "timesteps", "num_envs", "episodes", "steps")
        check_at_least(self, 0, "seed")
        check_above_zero(self, "world_learning_rate")
        if self.frames <= CONTEXT_FRAMES:
            raise ConfigError(
                f"frames is {self.frames}, expected more than {CONTEXT_FRAMES}, the context that a dream begins with"
            )
        check_between(self, 0.0, 1.0, "exploration")
        check_between(self, 0.01, 0.99, "own_share")
        if self.data is not None:
            object.__setattr__(self, "data", str(Path(self.data).absolute()))
        if self.preset is not None and not physics.preset(self.preset).player:
            raise ConfigError(
                f"the balls of {self.preset} have no player: choose a preset with a player, avoid say"
            )
        ContestConfig(oracle=self.oracle)
        if self.plans:
            planner_config(*parse_planner(self.agent))
        PolicyConfig(hyperparameters=self.hyperparameters or {})
        object.__setattr__(self, "checkpoint", absolute(self.checkpoint))

    @property
    def plans(self) -> bool:
        """Whether a planner acts."""
        return self.agent != POLICY_AGENT

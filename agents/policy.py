"""Trained policies: how they are built for an environment's spaces, and as agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from rnem_world.agents.policy_folder import last_checkpoint, read_policy_config, read_weights
from rnem_world.errors import CheckpointError, ConfigError, DependencyError

Space = spaces.Space[Any]


def shows_frames(space: Space) -> bool:
    """Tells whether observations are frames (h, w, c) of bytes."""
    return isinstance(space, spaces.Box) and len(space.shape) == 3 and space.dtype == np.uint8


def shows_slots(space: Space) -> bool:
    """Tells whether observations are slots (k, d)."""
    return isinstance(space, spaces.Box) and len(space.shape) == 2


def described(observation_space: Space, action_space: Space) -> dict[str, Any]:
    """Describes spaces for a policy's configuration: two that differ in this need different policies."""
    return {
        "observations": list(observation_space.shape or ()),
        "dtype": str(observation_space.dtype),
        "actions": int(action_space.n) if isinstance(action_space, spaces.Discrete) else str(action_space),
    }


def check_spaces(
    folder: Path, trained: dict[str, Any], observation_space: Space, action_space: Space
) -> None:
    """Refuses a policy that was trained for another world.

    Raises:
        CheckpointError: If it sees or does something else.
    """
    given = described(observation_space, action_space)
    for name, what in (
        ("actions", "actions"),
        ("observations", "observations of the shape"),
        ("dtype", "dtype"),
    ):
        # The number of slots may differ: they are seen as a set.
        same = trained.get(name) == given[name] or (
            name == "observations"
            and shows_slots(observation_space)
            and trained.get(name, [])[1:] == given[name][1:]
        )
        if not same:
            raise CheckpointError(
                f"the agent {folder} was trained with {what} {trained.get(name)}, and the environment has "
                f"{given[name]}: evaluate it in the world that it was trained for"
            )


def policy_kind(algorithm: str, observation_space: Space) -> tuple[str, dict[str, Any]]:
    """Returns the name of the policy in stable-baselines3 that fits observations, and its arguments."""
    from rnem_world.agents.features import FrameFeatures, SlotFeatures

    if shows_frames(observation_space):
        return "CnnPolicy", {"features_extractor_class": FrameFeatures, "net_arch": []}
    if shows_slots(observation_space):
        return "MlpPolicy", {"features_extractor_class": SlotFeatures, "net_arch": [64]}
    return "MlpPolicy", {}


def load_policy(
    folder: Path, observation_space: Space, action_space: Space, device: str | torch.device = "cpu"
) -> PolicyAgent:
    """Loads the newest checkpoint of a policy as an agent for an environment with these spaces.

    Raises:
        CheckpointError: If there is none, it is broken, or it was trained for other spaces.
        DependencyError: If stable-baselines3 isn't installed.
    """
    try:
        from stable_baselines3 import DQN, PPO
    except ImportError as error:
        raise DependencyError(
            "stable-baselines3 is not installed: `pip install 'rnem-world[agents]'`"
        ) from error
    config, trained = read_policy_config(folder)
    check_spaces(folder, trained, observation_space, action_space)
    weights = read_weights(last_checkpoint(folder))
    name, arguments = policy_kind(config.algorithm, observation_space)
    stack = config.frame_stack if shows_frames(observation_space) else 1
    if shows_frames(observation_space):
        height, width, channels = observation_space.shape or (0, 0, 0)
        observation_space = spaces.Box(0, 255, (channels * stack, height, width), np.uint8)
    algorithm: Any = {"ppo": PPO, "dqn": DQN}[config.algorithm]
    with torch.random.fork_rng():
        policy = algorithm.policy_aliases[name](observation_space, action_space, lambda _: 0.0, **arguments)
    try:
        policy.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights of {folder} don't fit an agent of its configuration: {str(error).splitlines()[0]}"
        ) from error
    policy.to(device).set_training_mode(False)
    return PolicyAgent(policy, stack)


class PolicyAgent:
    """A policy of stable-baselines3 that chooses its likeliest action.

    Args:
        policy: The policy.
        frame_stack: Frames that it sees at once, along the channels; 1 for observations as they are.
    """

    def __init__(self, policy: Any, frame_stack: int = 1) -> None:
        self.policy = policy
        self.frame_stack = frame_stack
        self._frames: NDArray[Any] | None = None

    def reset(self, num_envs: int) -> None:
        """Forgets the frames of N environments."""
        if num_envs < 1:
            raise ConfigError(f"num_envs is {num_envs}, expected at least 1")
        self._frames = None

    def act(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Chooses the next actions."""
        if observations.ndim == 4:
            channels = observations.shape[-1]
            if self._frames is None:
                shape = (*observations.shape[:-1], channels * self.frame_stack)
                self._frames = np.zeros(shape, observations.dtype)
            # As VecFrameStack does: the newest frame last, black before the first.
            self._frames = np.concatenate([self._frames[..., channels:], observations], axis=-1)
            observations = np.ascontiguousarray(self._frames.transpose(0, 3, 1, 2))
        actions, _ = self.policy.predict(observations, deterministic=True)
        return np.asarray(actions)

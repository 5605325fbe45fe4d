"""Policies of stable-baselines3: what they look at observations with, and trained ones as agents."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor, nn

from rnem_world.actions import ActionSpace
from rnem_world.agents.config import SLOT_HEADS, PolicyConfig
from rnem_world.agents.frame_stack import FrameStack, StackingAgent
from rnem_world.agents.policy import (
    Space,
    channels_first,
    check_policy_spaces,
    last_checkpoint,
    read_policy_config,
    read_policy_weights,
    shows_frames,
    shows_slots,
)
from rnem_world.agents.sb3 import Observations, from_zero, shifted, unshifted
from rnem_world.envs.atari import AtariVectorEnv
from rnem_world.errors import CheckpointError, ConfigError, DependencyError

try:
    import stable_baselines3
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.preprocessing import is_image_space
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import VecTransposeImage
except ImportError as error:
    raise DependencyError(
        "stable-baselines3 is not installed: `pip install 'stable-baselines3>=2.7,<3'`, the extra 'agents'"
    ) from error


ALGORITHMS: dict[str, type[BaseAlgorithm]] = {"ppo": stable_baselines3.PPO, "dqn": stable_baselines3.DQN}


class SlotFeatures(BaseFeaturesExtractor):
    """Sees slots as a set: their order changes nothing.

    Every slot goes through the same layers, looks at the others by self-attention (Set Transformer, Lee et al.,
    2019), and the set is summed up by its mean and its maximum.

    Args:
        observation_space: Box (k, d).
        features_dim: Size of the result.
        width: Size of a slot's hidden layers.
        heads: Heads of the attention.

    Raises:
        ConfigError: If observations aren't slots.
    """

    def __init__(
        self, observation_space: spaces.Box, features_dim: int = 64, width: int = 64, heads: int = SLOT_HEADS
    ) -> None:
        if len(observation_space.shape) != 2:
            raise ConfigError(f"observations have the shape {observation_space.shape}, expected slots (k, d)")
        super().__init__(observation_space, features_dim)
        self.embed = nn.Sequential(
            nn.Linear(observation_space.shape[1], width),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Linear(width, width),
        )
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.after = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())
        self.out = nn.Sequential(nn.Linear(2 * width, features_dim), nn.ReLU())

    def forward(self, observations: Float[Tensor, "b k d"]) -> Float[Tensor, "b f"]:
        """Sums sets of slots up."""
        slots = self.embed(observations)
        seen = self.norm(slots)
        slots = slots + self.attention(seen, seen, seen, need_weights=False)[0]
        slots = self.after(slots)
        features: Tensor = self.out(torch.cat([slots.mean(dim=1), slots.amax(dim=1)], dim=1))
        return features


class FrameFeatures(BaseFeaturesExtractor):
    """Convolutions for frames of 16 pixels a side and more; the usual ones of SB3 want 36.

    Args:
        observation_space: Box (c, h, w); frames stacked along c.
        features_dim: Size of the result.

    Raises:
        ConfigError: If the frames are smaller.
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 256) -> None:
        channels, height, width = observation_space.shape
        if min(height, width) < 16:
            raise ConfigError(f"frames are {height} x {width}, expected at least 16 pixels a side")
        super().__init__(observation_space, features_dim)
        layers: list[nn.Module] = []
        if min(height, width) >= 64:
            layers += [nn.Conv2d(channels, 16, 4, stride=2, padding=1), nn.ReLU()]
            channels = 16
        for filters in (32, 64, 64):
            layers += [nn.Conv2d(channels, filters, 4, stride=2, padding=1), nn.ReLU()]
            channels = filters
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            size = self.convolutions(torch.zeros(1, *observation_space.shape)).shape[1]
        self.out = nn.Sequential(nn.Linear(size, features_dim), nn.ReLU())

    def forward(self, observations: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f"]:
        """Sees frames in [0, 1]."""
        features: Tensor = self.out(self.convolutions(observations))
        return features


def policy_kind(config: PolicyConfig, observation_space: Space) -> tuple[str, dict[str, Any]]:
    """Returns the name of the policy in stable-baselines3 that is chosen, or fits observations, and its arguments."""
    name = config.policy
    arguments: dict[str, Any] = {}
    if not name and shows_frames(observation_space):
        name, arguments = "CnnPolicy", {"features_extractor_class": FrameFeatures, "net_arch": []}
    elif not name and shows_slots(observation_space):
        widths = {"width": config.slot_width, "features_dim": config.slot_width}
        name, arguments = "MlpPolicy", {"features_extractor_class": SlotFeatures, "net_arch": [64]}
        arguments["features_extractor_kwargs"] = widths
    elif not name:
        name = "MultiInputPolicy" if isinstance(observation_space, spaces.Dict) else "MlpPolicy"
    return name, arguments | config.arguments.get("policy_kwargs", {})


def load_policy(
    folder: Path, observation_space: Space, action_space: Space, device: str | torch.device = "cpu"
) -> PolicyAgent:
    """Loads the newest checkpoint of a policy as an agent for an environment with these spaces.

    Raises:
        CheckpointError: If there is none, it is broken, or it was trained for other spaces.
    """
    config, trained = read_policy_config(folder)
    check_policy_spaces(folder, trained, observation_space, action_space)
    weights = read_policy_weights(last_checkpoint(folder))
    name, arguments = policy_kind(config, observation_space)
    stack = None
    if shows_frames(observation_space):
        axis = _channel_axis(observation_space)
        stack = FrameStack((observation_space.shape or ())[axis] * config.frame_stack, axis)
    algorithm: Any = ALGORITHMS[config.algorithm]
    with torch.random.fork_rng(devices=[]):
        policy = algorithm.policy_aliases[name](
            _as_seen(observation_space, config.frame_stack),
            from_zero(action_space),
            lambda _: 0.0,
            **arguments,
        )
    try:
        policy.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights of {folder} don't fit an agent of its configuration: {str(error).splitlines()[0]}"
        ) from error
    policy.to(device).set_training_mode(False)
    return PolicyAgent(policy, stack, observation_space, action_space)


def _channel_axis(space: Space) -> int:
    """Tells which axis of a frame has its channels."""
    return -3 if channels_first(space) else -1


def _as_seen(space: Space, frame_stack: int = 1) -> Space:
    """Gives what a policy sees of observations: frames are stacked, and their channels come first as SB3 wants them."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({name: _as_seen(part) for name, part in space.spaces.items()})
    if not isinstance(space, spaces.Box) or not shows_frames(space):
        return from_zero(space)
    axis = _channel_axis(space)
    low, high = (np.repeat(bound, frame_stack, axis) for bound in (space.low, space.high))
    stacked = spaces.Box(low, high, dtype=np.uint8)
    turns = is_image_space(stacked) and not channels_first(stacked)
    return VecTransposeImage.transpose_space(stacked) if turns else stacked


class PolicyAgent(StackingAgent):
    """A policy of stable-baselines3 that chooses its likeliest action.

    Args:
        policy: The policy.
        stack: Keeps the last frames, if it sees frames.
        observation_space: What the environments show.
        action_space: What they take.
    """

    def __init__(
        self, policy: Any, stack: FrameStack | None, observation_space: Space, action_space: Space
    ) -> None:
        super().__init__(stack)
        self.policy = policy
        self._shown, self._done = observation_space, action_space

    def act(self, observations: Observations) -> NDArray[Any]:
        """Chooses the next actions."""
        shown = unshifted(observations, self._shown)
        if self._stack is not None:
            shown = self._stack.push(shown)
        actions, _ = self.policy.predict(shown, deterministic=True)
        chosen: NDArray[Any] = shifted(np.asarray(actions), self._done)
        return chosen


PolicyFrames = Literal["grayscale", "observations"]


def load_sb3_policy(path: Path, trusted: bool, seed: int) -> Any:
    """Loads a checkpoint of stable-baselines3, of one of `ALGORITHM_SETTINGS`.

    Args:
        path: Its ``.zip``.
        trusted: Whether the user vouches for the file: parts of it are unpickled, and a pickle can run any program.
        seed: Seeds its draws of actions, and with them torch's global generator, which is where it draws from.

    Raises:
        CheckpointError: If there is no such checkpoint.
        ConfigError: If it isn't trusted.
    """
    if not trusted:
        raise ConfigError(
            f"{path}: stable-baselines3 unpickles parts of its checkpoints, and a pickle can run any program: if you "
            "know where the file comes from, add --trust-policy"
        )
    name = _algorithm(path)
    try:
        model = getattr(stable_baselines3, name).load(path, device="cpu")
    except Exception as error:  # unpickling raises errors of every kind
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} can't be loaded as {name} of stable-baselines3: {reason}") from error
    model.set_random_seed(seed)
    return model


ALGORITHM_SETTINGS = {
    "PPO": "clip_range",
    "DQN": "exploration_rate",
    "SAC": "target_entropy",
    "TD3": "policy_delay",
    "A2C": "gae_lambda",
}
"""By which of its settings an algorithm of stable-baselines3 is known."""


def _algorithm(path: Path) -> str:
    """Tells the algorithm by the names of its settings, which are plain JSON."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(json.loads(archive.read("data")))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no checkpoint of stable-baselines3 (a .zip that `model.save` wrote): {error}"
        ) from error
    for name, setting in ALGORITHM_SETTINGS.items():
        if setting in names:
            return name
    raise CheckpointError(
        f"{path} is of none of the algorithms {', '.join(ALGORITHM_SETTINGS)} of stable-baselines3"
    )


class TrainedPolicyAgent:
    """Acts as a trained policy, whose actions are drawn, not the likeliest.

    Args:
        model: What `load_sb3_policy` gave.
        env: The environment that it acts in.
        frames: Whether the policy sees the frames in ``grayscale``, which is what it knows if it was trained with
            stable-baselines3's ``AtariWrapper``, or the environment's ``observations``. Its last few frames are
            stacked if it was trained with such stacks.

    Raises:
        ConfigError: If it was trained on other observations or actions.
    """

    def __init__(self, model: Any, env: AtariVectorEnv, frames: PolicyFrames = "grayscale") -> None:
        self._model, self._env, self._sees = model, env, frames
        shape, actions = tuple(model.observation_space.shape), getattr(model.action_space, "n", None)
        first, last = shape[0], shape[-1]
        self._channels_first = first < last
        self._depth = first if self._channels_first else last
        size = shape[1:] if self._channels_first else shape[:2]
        if len(shape) != 3 or size != (84, 84):
            raise ConfigError(
                f"the policy was trained on observations {shape}, expected stacked 84x84 frames"
            )
        known = ActionSpace.of(env.single_action_space).sizes[0]
        if actions != known:
            raise ConfigError(
                f"the policy knows {actions} actions, and the game has {known}: choose the policy "
                "of this game"
            )
        self._stack = FrameStack(self._depth)

    def reset(self, num_envs: int) -> None:
        """Forgets the frames."""
        self._stack.clear()

    def restart(self, begun: Bool[np.ndarray, " n"]) -> None:
        """Nothing to do: the environment tells which episodes are new."""

    def act(self, observations: NDArray[Any]) -> Int64[np.ndarray, " n"]:
        """Chooses one action for each observation."""
        frames = self._env.frames()[..., None] if self._sees == "grayscale" else observations
        channels = frames.shape[-1]
        if self._depth % channels:
            raise ConfigError(f"the policy stacks {self._depth} channels, and a frame has {channels}")
        self._stack.clear(self._env.elapsed == 0)
        stack = self._stack.push(frames)
        shown = np.moveaxis(stack, -1, 1) if self._channels_first else stack
        actions, _ = self._model.predict(np.ascontiguousarray(shown), deterministic=False)
        return np.asarray(actions, dtype=np.int64)

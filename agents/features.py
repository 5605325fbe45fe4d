"""What policies look at observations with: sets of slots, and small frames."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from jaxtyping import Float
from torch import Tensor, nn

from rnem_world.agents.policy import Space, shows_frames, shows_slots
from rnem_world.errors import ConfigError, DependencyError

try:
    from stable_baselines3 import DQN, PPO
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
except ImportError as error:
    raise DependencyError(
        "stable-baselines3 is not installed: `pip install 'stable-baselines3>=2.7,<3'`, the extra 'agents'"
    ) from error


ALGORITHMS: dict[str, type[BaseAlgorithm]] = {"ppo": PPO, "dqn": DQN}


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
        self, observation_space: spaces.Box, features_dim: int = 128, width: int = 128, heads: int = 4
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


def policy_kind(observation_space: Space) -> tuple[str, dict[str, Any]]:
    """Returns the name of the policy in stable-baselines3 that fits observations, and its arguments."""
    from rnem_world.agents.features import FrameFeatures, SlotFeatures

    if shows_frames(observation_space):
        return "CnnPolicy", {"features_extractor_class": FrameFeatures, "net_arch": []}
    if shows_slots(observation_space):
        return "MlpPolicy", {"features_extractor_class": SlotFeatures, "net_arch": [64]}
    return "MlpPolicy", {}

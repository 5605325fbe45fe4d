"""A tiny world model with all options, and videos for it."""

from __future__ import annotations

from dataclasses import replace

import torch

from rnem_world.models.config import ModelConfig
from rnem_world.models.world_model import WorldModel

CONFIG = ModelConfig(
    architecture="projection32",
    slots=4,
    hidden_size=24,
    attention_size=8,
    number_of_actions=3,
    slot_inputs="error_frame_motion",
    theta_update="gated",
    heads=True,
)


def world_model(seed: int = 0, **options: object) -> WorldModel:
    torch.manual_seed(seed)
    return WorldModel(replace(CONFIG, **options))


def disc(x: float, y: float, radius: float = 4.0, size: int = 32) -> torch.Tensor:
    """A disc (h, w) around (x, y)."""
    axis = torch.arange(size) + 0.5
    return (((axis[:, None] - y) ** 2 + (axis - x) ** 2) <= radius**2).float()


def videos(batch: int, frames: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames (b, t, 1, 32, 32) of one disc that moves, and actions (b, t)."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(batch, 2, generator=generator) * 12 + 10
    velocity = torch.rand(batch, 2, generator=generator) * 2 - 1
    places = start[:, None] + velocity[:, None] * torch.arange(frames)[:, None]
    discs = torch.stack([torch.stack([disc(*place.tolist()) for place in row]) for row in places])
    return discs[:, :, None], torch.randint(0, 3, (batch, frames), generator=generator)

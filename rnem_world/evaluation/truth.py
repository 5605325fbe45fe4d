"""What really happened to balls: the truth that dreams are measured by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rnem_world.data.dataset import Dataset
from rnem_world.data.loader import read_batch
from rnem_world.data.schema import Split
from rnem_world.errors import DataError
from rnem_world.models.likelihood import Likelihood


@dataclass(frozen=True)
class Truth:
    """What really happened, time counted as in the frames.

    Attributes:
        frames: Float (b, t, c, h, w) in [0, 1].
        groups: UInt8 (b, t, h, w), object 1 is the player's.
        positions: Float (b, t, n, 2), (x, y) of the balls in pixels; NaN for balls that aren't there.
        radii: Float (b, n), in pixels.
        actions: Int64 (b, t), or None.
        rewards: Float (b, t), or None.
    """

    frames: Tensor
    groups: Tensor
    positions: Tensor
    radii: Tensor
    actions: Tensor | None
    rewards: Tensor | None

    def part(self, rows: slice) -> Truth:
        """Takes some of the sequences."""
        return Truth(
            self.frames[rows],
            self.groups[rows],
            self.positions[rows],
            self.radii[rows],
            None if self.actions is None else self.actions[rows],
            None if self.rewards is None else self.rewards[rows],
        )


def read_truth(
    dataset: Dataset, split: Split, sequences: int, number_of_frames: int, device: torch.device
) -> Truth:
    """Reads what happened from a dataset of balls.

    Args:
        dataset: A dataset with positions, as the collector of balls writes it.
        split: Which split.
        sequences: How many of its first sequences.
        number_of_frames: Frames of each, from its start.
        device: Where to put it.

    Raises:
        DataError: If the dataset lacks positions or groups, or doesn't say the rules of its balls.
    """
    dataset.require(split, ["groups", "positions"])
    info, attributes = dataset.info(split), dataset.attributes
    rules = attributes.settings.get("rules")
    if not isinstance(rules, dict) or not {"kinds", "box_size", "player", "player_radius"} <= rules.keys():
        raise DataError(
            f"{dataset.path} doesn't say the rules of its balls, which dreams are measured by: collect with "
            "`rnem-world collect`"
        )
    batch = read_batch(dataset, split, list(range(sequences)), number_of_frames).to(device)
    if batch.positions is None or batch.groups is None:
        raise DataError(f"{dataset.path} lacks positions or groups")
    scale = info.width / float(rules["box_size"])
    positions = batch.positions * scale
    balls = positions.shape[2]
    groups = batch.groups
    pixels = torch.stack([(groups == ball + 1).sum(dim=(2, 3)).amax(dim=1) for ball in range(balls)], dim=1)
    radii = (pixels / math.pi).sqrt()
    if len(rules["kinds"]) == 1:
        radii = torch.full_like(radii, float(rules["kinds"][0][0]) * scale)
    if rules["player"]:
        radii[:, 0] = float(rules["player_radius"]) * scale
    positions = torch.where((pixels > 0)[:, None, :, None], positions, torch.nan)
    return Truth(
        Likelihood.from_uint8(batch.frames, batch.maximum_value),
        groups,
        positions,
        radii,
        batch.actions,
        batch.rewards,
    )


def constant_velocity(
    positions: Float[Tensor, "b t n 2"], radii: Float[Tensor, "b n"], context: int, horizon: int, size: int
) -> Float[Tensor, "b horizon n"]:
    """Distance, in radii, of balls that keep their last true velocity and bounce off walls alone.

    Args:
        positions: True centres in pixels.
        radii: In pixels.
        context: The last frame that is known.
        horizon: Frames to predict.
        size: Side of the frame in pixels.
    """
    start = positions[:, context]
    velocity = start - positions[:, context - 1]
    steps = torch.arange(1, horizon + 1, device=positions.device)[None, :, None, None]
    low = radii[:, None, :, None]
    span = size - 2 * low
    # A path that is reflected at both ends is a straight one folded up.
    folded = torch.remainder(start[:, None] + velocity[:, None] * steps - low, 2 * span)
    predicted = low + torch.minimum(folded, 2 * span - folded)
    true = positions[:, context + 1 : context + horizon + 1]
    distances: Tensor = (predicted - true).norm(dim=3) / radii[:, None]
    return distances

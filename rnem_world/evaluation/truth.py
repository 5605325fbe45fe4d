"""What really happened, which imagined frames are measured by: frames, rewards, and where objects and players were."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Num, UInt8
from torch import Tensor
from torch.nn import functional as F

from rnem_world.data.dataset import Dataset
from rnem_world.data.episodes import find_windows
from rnem_world.data.loader import read_batch
from rnem_world.data.schema import Split
from rnem_world.errors import ConfigError, DataError
from rnem_world.models.likelihood import Likelihood

# Slots with less mass than this, in pixels, are not matched to balls.
LEAST_MASS = 5.0


class FoundPlayers(NamedTuple):
    """Players found on frames.

    Attributes:
        positions: Float (*s), the centre of each along its way, in pixels.
        found: Bool (*s), whether there is one.
    """

    positions: Float[Tensor, "*s"]
    found: Bool[Tensor, "*s"]


@dataclass(frozen=True)
class PlayerLane:
    """The strip of a binary frame along which a player moves, and the player's size in it.

    Attributes:
        first: First row of the strip (column, if it is upright).
        last: Its last.
        length: Pixels of the player along the strip.
        upright: Whether the player moves up and down.
    """

    first: int
    last: int
    length: int
    upright: bool = False

    def find(self, frames: Float[Tensor, "*s 1 h w"]) -> FoundPlayers:
        """Finds the window of the player's length with the most pixels; there is none if it is less than half full."""
        strip = frames[..., 0, :, :]
        if self.upright:
            strip = strip.transpose(-1, -2)
        profile = strip[..., self.first : self.last + 1, :].sum(dim=-2)
        flat = profile.reshape(-1, 1, profile.shape[-1])
        filled = F.avg_pool1d(flat, self.length, stride=1)[:, 0] / (self.last + 1 - self.first)
        most, place = filled.max(dim=-1)
        positions = place.to(frames.dtype) + (self.length - 1) / 2
        shape = profile.shape[:-1]
        return FoundPlayers(positions.reshape(shape), (most >= 0.5).reshape(shape))


LANES: Mapping[str, PlayerLane] = {
    "Breakout": PlayerLane(75, 77, 9),
    "Pong": PlayerLane(73, 75, 7, upright=True),
    "SpaceInvaders": PlayerLane(74, 77, 7),
}
"""By the game's name; looked up on binary frames of 84 x 84."""


@dataclass(frozen=True)
class Objects:
    """Where balls were.

    Attributes:
        groups: Which object each pixel belongs to, 0 for the background; object 1 is the player's.
        positions: (x, y) of the balls in pixels; NaN for balls that aren't there.
        radii: In pixels.
    """

    groups: UInt8[Tensor, "b t h w"]
    positions: Float[Tensor, "b t n 2"]
    radii: Float[Tensor, "b n"]


@dataclass(frozen=True)
class Truth:
    """What happened in some sequences, time counted as in the frames.

    Attributes:
        frames: The frames, in [0, 1].
        actions: What was done, if anything.
        rewards: What it earned, if that is known.
        terminations: Which transitions ended an episode, if that is known.
        lasts: Which frames are of the episode of the first one; None if all are.
        objects: Where the objects were, if that is known.
        lane: Where the player moves, if that is known.
    """

    frames: Float[Tensor, "b t c h w"]
    actions: Num[Tensor, "b t ..."] | None = None
    rewards: Float[Tensor, "b t"] | None = None
    terminations: Bool[Tensor, "b t"] | None = None
    lasts: Bool[Tensor, "b t"] | None = None
    objects: Objects | None = None
    lane: PlayerLane | None = None

    def rows(self, rows: slice) -> Truth:
        """Takes some of the sequences."""
        objects = self.objects
        if objects is not None:
            objects = Objects(objects.groups[rows], objects.positions[rows], objects.radii[rows])
        return replace(
            self,
            frames=self.frames[rows],
            actions=None if self.actions is None else self.actions[rows],
            rewards=None if self.rewards is None else self.rewards[rows],
            terminations=None if self.terminations is None else self.terminations[rows],
            lasts=None if self.lasts is None else self.lasts[rows],
            objects=objects,
        )

    def lasting(self, frames: slice) -> Bool[Tensor, "b s"]:
        """Tells of some frames which are still of the episode of the first one."""
        if self.lasts is None:
            shape = self.frames[:, frames].shape[:2]
            return torch.ones(shape, dtype=torch.bool, device=self.frames.device)
        return self.lasts[:, frames]

    def require_objects(self) -> Objects:
        """Gives the objects.

        Raises:
            DataError: If nobody knows where they were.
        """
        if self.objects is None:
            raise DataError(
                "the data has no positions of its objects: collect balls with `rnem-world collect`"
            )
        return self.objects


def read_truth(
    dataset: Dataset,
    split: Split,
    sequences: int,
    number_of_frames: int,
    device: torch.device,
    together: int = 2,
    at_first: bool = False,
    with_objects: bool = True,
) -> Truth:
    """Reads what happened from a dataset, and where the objects were if it has their positions.

    Where the dataset says where episodes begin, a sequence is read from where an episode goes on for long enough.

    Args:
        dataset: The dataset.
        split: Which split.
        sequences: How many of its first sequences at most.
        number_of_frames: Frames of each.
        device: Where to put it.
        together: Frames at the beginning that have to be of one episode.
        at_first: Whether to read from where episodes begin, of which a sequence may have several; if none of them does,
            from anywhere.
        with_objects: Whether to read where the objects were, if that is known.

    Raises:
        DataError: If no episode is long enough, or the dataset has positions and groups and doesn't say the rules
            of its balls.
    """
    there = dataset.info(split).arrays
    windows = find_windows(dataset, split, together, number_of_frames, sequences, at_first)
    if at_first and not len(windows.begins):
        windows = find_windows(dataset, split, together, number_of_frames, sequences)
    if not len(windows.begins):
        raise DataError(
            f"no episode in {split} of {dataset.path} has {together} frames and goes on, in sequences of "
            f"{dataset.info(split).number_of_frames}: watch fewer frames (--context), or imagine fewer"
        )
    arrays: list[str] = [name for name in ("actions", "rewards", "terminations", "is_first") if name in there]
    if with_objects and "positions" in there and "groups" in there:
        arrays += ["groups", "positions"]
    batch = read_batch(
        dataset, split, windows.sequences.tolist(), number_of_frames, arrays, windows.begins
    ).to(device)
    settings = dataset.attributes.settings
    objects = None
    if batch.positions is not None and batch.groups is not None:
        rules = settings.get("rules")
        if (
            not isinstance(rules, dict)
            or not {"kinds", "box_size", "player", "player_radius"} <= rules.keys()
        ):
            raise DataError(
                f"{dataset.path} doesn't say the rules of its balls, which dreams are measured by: collect with "
                "`rnem-world collect`"
            )
        objects = objects_of(batch.groups, batch.positions, rules)
    frames = Likelihood.from_uint8(batch.frames, batch.maximum_value)
    lane = LANES.get(str(settings.get("game"))) if settings.get("frames") == "binary" else None
    lasts = None if batch.is_first is None else lasting_frames(batch.is_first)
    return Truth(frames, batch.actions, batch.rewards, batch.terminations, lasts, objects, lane)


def lasting_frames(is_first: Bool[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
    """Tells which frames are of the episode of the first one, whether or not that begins it."""
    begun = is_first.clone()
    begun[:, 0] = False
    return begun.cumsum(dim=1) == 0


def objects_of(
    groups: UInt8[Tensor, "b t h w"], positions: Float[Tensor, "b t n 2"], rules: Mapping[str, Any]
) -> Objects:
    """Turns positions in units of the box into pixels, and finds the radii.

    Args:
        groups: Which object each pixel belongs to.
        positions: The balls' centres, in units of the box.
        rules: Of the balls, as `rnem_world.physics.BallsConfig` names them.
    """
    scale = groups.shape[-1] / float(rules["box_size"])
    numbers = range(1, positions.shape[2] + 1)
    pixels = torch.stack([(groups == number).sum(dim=(2, 3)).amax(dim=1) for number in numbers], dim=1)
    radii = (pixels / math.pi).sqrt()
    if len(rules["kinds"]) == 1:
        radii = torch.full_like(radii, float(rules["kinds"][0][0]) * scale)
    if rules["player"]:
        radii[:, 0] = float(rules["player_radius"]) * scale
    positions = torch.where((pixels > 0)[:, None, :, None], positions * scale, torch.nan)
    return Objects(groups, positions, radii)


def match_slots(
    centroids: Float[Tensor, "b k 2"], masses: Float[Tensor, "b k"], positions: Float[Tensor, "b n 2"]
) -> Int64[Tensor, "b n"]:
    """Matches each ball to a slot so that the distances' sum is least; slots without mass come last.

    Raises:
        ConfigError: If there are fewer slots than balls.
    """
    from scipy.optimize import linear_sum_assignment

    slots, balls = centroids.shape[1], positions.shape[1]
    if slots < balls:
        raise ConfigError(f"{slots} slots can't be matched to {balls} balls: choose --slots {balls} or more")
    costs = torch.cdist(positions.nan_to_num(nan=-1e3), centroids)
    costs = costs + 1e3 * (masses < LEAST_MASS)[:, None]
    # SciPy solves one assignment at a time.
    matches = np.stack([linear_sum_assignment(cost)[1] for cost in costs.cpu().numpy()])
    return torch.from_numpy(matches).to(centroids.device)


def constant_velocity(
    objects: Objects, context: int, horizon: int, size: int
) -> Float[Tensor, "b horizon n"]:
    """Distance, in radii, of balls that keep their last true velocity and bounce off walls alone.

    Args:
        objects: Where they really were.
        context: The last frame that is known.
        horizon: Frames to predict.
        size: Side of the frame in pixels.
    """
    positions, radii = objects.positions, objects.radii
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

"""Evaluating dreams: how long imagined objects stay where the real ones are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from rnem_world.data.batch import read_batch
from rnem_world.data.dataset import Dataset
from rnem_world.errors import ConfigError, DataError
from rnem_world.evaluation.evaluate import unit_frames
from rnem_world.evaluation.metrics import foreground_ari, slot_centroids
from rnem_world.models.rollout import Rollout, roll_out
from rnem_world.models.world_model import WorldModel
from rnem_world.types import Split

# A slot counts as a ball that is still there while its mass is within this of the ball's.
MASS_TOLERANCE = 0.3
# Slots with less mass than this, in pixels, are not matched to balls.
LEAST_MASS = 5.0
HORIZONS = (1, 5, 10, 20, 30)


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


@dataclass(frozen=True)
class Dream:
    """A rollout with its slots matched to balls, once, at the end of the context.

    Attributes:
        errors: Float (b, horizon, n), distance of each ball's slot from the ball, in the ball's radii.
        masses: Float (b, horizon, n), the slot's mass over the ball's visible pixels.
        rewards: Float (b, horizon), the predicted rewards; None without heads.
        fg_ari: Float (b,), over the last frames of the context.
    """

    errors: Tensor
    masses: Tensor
    rewards: Tensor | None
    fg_ari: Tensor


@dataclass(frozen=True)
class ImaginationFigures:
    """The figures of dreams, each mean over sequences and balls.

    Attributes:
        sequences: Number of sequences.
        context: Frames seen before imagination starts.
        horizon: Imagined frames.
        fg_ari: FG-ARI over the last five frames of the context.
        position_errors: Error in radii after each imagined frame.
        player_errors: The same of the player's ball alone.
        constant_velocity_errors: The same of balls that go on as they went, reflected by walls.
        alive: Part of the balls whose slot's mass is within 30 % of theirs, after each imagined frame.
        shuffled_ratio: The player's error after ten frames under other sequences' actions, over that under its own;
            None without actions.
        reward_precision: Average precision of the reward over the first ten frames; None without heads.
        reward_rate: Part of those transitions that have a reward: the precision of guessing.
    """

    sequences: int
    context: int
    horizon: int
    fg_ari: float
    position_errors: list[float]
    player_errors: list[float]
    constant_velocity_errors: list[float]
    alive: list[float]
    shuffled_ratio: float | None
    reward_precision: float | None
    reward_rate: float | None

    def to_dict(self) -> dict[str, Any]:
        """Gives the figures as JSON-ready values."""
        return vars(self).copy()


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


def dream(
    model: WorldModel,
    truth: Truth,
    context: int,
    horizon: int,
    actions: Tensor | None,
    slots: int | None,
    generator: torch.Generator,
) -> Dream:
    """Lets the model watch and imagine, and compares with what happened.

    Args:
        model: The model.
        truth: What happened; its frames reach to ``context + horizon``.
        context: Frames to watch.
        horizon: Frames to imagine, fed back in black and white.
        actions: What is done, the truth's or not.
        slots: Number of slots; None takes the model's own.
        generator: Draws the first responsibilities.
    """
    rollout = roll_out(model, truth.frames, context, horizon, actions, slots, "binary", generator=generator)
    weights = rollout.gammas[:, :, :, 0] * rollout.predictions.amax(dim=3)
    found = slot_centroids(weights[:, context - 1 :])
    match = match_slots(found.positions[:, 0], found.masses[:, 0], truth.positions[:, context])
    picked = match[:, None, :].expand(-1, horizon + 1, -1)
    positions = found.positions.gather(2, picked[..., None].expand(-1, -1, -1, 2))[:, 1:]
    masses = found.masses.gather(2, picked)[:, 1:]
    span = slice(context + 1, context + horizon + 1)
    errors = (positions - truth.positions[:, span]).norm(dim=3) / truth.radii[:, None]
    balls = torch.arange(1, truth.positions.shape[2] + 1, device=match.device)
    visible = torch.stack([(truth.groups[:, span] == ball).sum(dim=(2, 3)) for ball in balls.tolist()], dim=2)
    last = slice(max(context - 5, 0), context)
    ari = foreground_ari(rollout.gammas[:, last, :, 0], truth.groups[:, 1:][:, last])
    return Dream(errors, masses / visible.clamp(min=1), _rewards(rollout, horizon), ari.mean(dim=1))


def _rewards(rollout: Rollout, horizon: int) -> Tensor | None:
    return None if rollout.rewards is None else rollout.rewards[:, -horizon:].sum(dim=2)


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


@torch.no_grad()
def evaluate_imagination(
    model: WorldModel,
    truth: Truth,
    context: int,
    horizon: int,
    generator: torch.Generator,
    slots: int | None = None,
) -> ImaginationFigures:
    """Measures dreams against the truth.

    Args:
        model: The model, in evaluation mode.
        truth: What happened in at least ``context + horizon + 1`` frames.
        context: Frames to watch, at least 2.
        horizon: Frames to imagine, at least 1.
        generator: Draws first responsibilities, on the model's device.
        slots: Number of slots; None takes the model's own.

    Raises:
        ConfigError: If there are too few frames, or fewer slots than balls.
    """
    if context < 2 or horizon < 1:
        raise ConfigError(f"context {context} and horizon {horizon}: at least 2 and 1 are needed")
    result = dream(model, truth, context, horizon, truth.actions, slots, generator)
    there: Bool[Tensor, "b horizon n"] = result.errors.isfinite()

    def mean(values: Tensor) -> list[float]:
        kept = torch.where(there, values, torch.nan)
        return [round(float(entry), 4) for entry in kept.nanmean(dim=(0, 2))]

    size = truth.frames.shape[-1]
    straight = constant_velocity(truth.positions, truth.radii, context, horizon, size)
    ratio = None
    step = min(10, horizon) - 1
    if truth.actions is not None:
        others = torch.cat([truth.actions[:, :context], truth.actions.roll(1, dims=0)[:, context:]], dim=1)
        shuffled = dream(model, truth, context, horizon, others, slots, generator)
        ratio = float(shuffled.errors[:, step, 0].mean() / result.errors[:, step, 0].mean())
    precision = rate = None
    if result.rewards is not None and truth.rewards is not None:
        from sklearn.metrics import average_precision_score

        earned = truth.rewards[:, context : context + step + 1] != 0
        rate = float(earned.float().mean())
        if 0.0 < rate < 1.0:
            guesses = result.rewards[:, : step + 1].abs().flatten().cpu().numpy()
            precision = float(average_precision_score(earned.flatten().cpu().numpy(), guesses))
    return ImaginationFigures(
        sequences=truth.frames.shape[0],
        context=context,
        horizon=horizon,
        fg_ari=float(result.fg_ari.mean()),
        position_errors=mean(result.errors),
        player_errors=[round(float(value), 4) for value in result.errors[:, :, 0].mean(dim=0)],
        constant_velocity_errors=mean(straight),
        alive=mean(((result.masses - 1.0).abs() <= MASS_TOLERANCE).float()),
        shuffled_ratio=ratio,
        reward_precision=precision,
        reward_rate=rate,
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
        unit_frames(batch.frames, batch.maximum_value), groups, positions, radii, batch.actions, batch.rewards
    )

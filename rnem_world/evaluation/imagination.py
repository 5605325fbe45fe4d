"""Evaluating dreams: how long imagined objects stay where the real ones are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from rnem_world.errors import ConfigError
from rnem_world.evaluation.metrics import foreground_ari, slot_centroids
from rnem_world.evaluation.truth import Truth, constant_velocity
from rnem_world.models.rollout import Rollout, roll_out
from rnem_world.models.world_model import WorldModel

# A slot counts as a ball that is still there while its mass is within this of the ball's.
MASS_TOLERANCE = 0.3
# Slots with less mass than this, in pixels, are not matched to balls.
LEAST_MASS = 5.0
HORIZONS = (1, 5, 10, 20, 30)


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
            None without actions or other sequences.
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
    noise: float = 0.0,
    imagination: str = "pixels",
) -> Dream:
    """Lets the model watch and imagine, and compares with what happened.

    Args:
        model: The model.
        truth: What happened; its frames reach to ``context + horizon``.
        context: Frames to watch.
        horizon: Frames to imagine.
        actions: What is done, the truth's or not.
        slots: Number of slots; None takes the model's own.
        generator: Draws the first responsibilities and the noise, on the model's device.
        noise: Probability that a pixel of an input is flipped, real or imagined.
        imagination: How an imagined frame becomes the next input; see :func:`rnem_world.models.rollout.imagine`.

    Raises:
        ConfigError: If there are too few frames, or fewer slots than balls.
    """
    rollout = roll_out(model, truth.frames, context, horizon, actions, slots, imagination, noise, generator)
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


def _joined(parts: list[Dream]) -> Dream:
    rewards = [part.rewards for part in parts if part.rewards is not None]
    return Dream(
        torch.cat([part.errors for part in parts]),
        torch.cat([part.masses for part in parts]),
        torch.cat(rewards) if rewards else None,
        torch.cat([part.fg_ari for part in parts]),
    )


def check_length(context: int, horizon: int, available: int) -> None:
    """Checks that dreams of this length can be measured.

    Args:
        context: Frames to watch; two give the velocities that guessing needs.
        horizon: Frames to imagine.
        available: Frames of a sequence.

    Raises:
        ConfigError: If not.
    """
    if context < 2 or horizon < 1:
        raise ConfigError(
            f"a context of {context} and {horizon} imagined frames are asked for: at least 2 and 1 are needed"
        )
    if context + horizon + 1 > available:
        raise ConfigError(
            f"a context of {context} and {horizon} imagined frames need sequences of {context + horizon + 1} frames, "
            f"and these have {available}: choose fewer"
        )


@torch.no_grad()
def evaluate_imagination(
    model: WorldModel,
    truth: Truth,
    context: int,
    horizon: int,
    generator: torch.Generator,
    slots: int | None = None,
    noise: float = 0.0,
    batch_size: int = 100,
    imagination: str = "pixels",
) -> ImaginationFigures:
    """Measures dreams against the truth.

    Args:
        model: The model, in evaluation mode.
        truth: What happened in at least ``context + horizon + 1`` frames.
        context: Frames to watch, at least 2.
        horizon: Frames to imagine, at least 1.
        generator: Draws first responsibilities and the noise, on the model's device.
        slots: Number of slots; None takes the model's own.
        noise: Probability that a pixel of an input is flipped: a model that was trained with one strength needs it.
        batch_size: Sequences at once.
        imagination: ``pixels``, or ``latent`` to imagine without drawing.

    Raises:
        ConfigError: If there are too few sequences or frames, or fewer slots than balls.
    """
    check_length(context, horizon, truth.frames.shape[1])
    sequences = truth.frames.shape[0]
    if sequences < 1 or batch_size < 1:
        raise ConfigError(f"{sequences} sequences, {batch_size} at once: at least 1 of each is needed")

    def dreams(actions: Tensor | None) -> Dream:
        parts = []
        for start in range(0, sequences, batch_size):
            rows = slice(start, start + batch_size)
            done = None if actions is None else actions[rows]
            parts.append(
                dream(model, truth.part(rows), context, horizon, done, slots, generator, noise, imagination)
            )
        return _joined(parts)

    actions = truth.actions if model.config.number_of_actions else None
    result = dreams(actions)
    there: Bool[Tensor, "b horizon n"] = result.errors.isfinite()

    def mean(values: Tensor, balls: slice = slice(None)) -> list[float]:
        kept = torch.where(there, values, torch.nan)[:, :, balls]
        return [round(float(entry), 4) for entry in kept.nanmean(dim=(0, 2))]

    size = truth.frames.shape[-1]
    straight = constant_velocity(truth.positions, truth.radii, context, horizon, size)
    ratio = None
    step = min(10, horizon) - 1
    if actions is not None and sequences > 1:
        others = torch.cat([actions[:, :context], actions.roll(1, dims=0)[:, context:]], dim=1)
        shuffled = dreams(others)
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
        sequences=sequences,
        context=context,
        horizon=horizon,
        fg_ari=float(result.fg_ari.mean()),
        position_errors=mean(result.errors),
        player_errors=mean(result.errors, slice(1)),
        constant_velocity_errors=mean(straight),
        alive=mean(((result.masses - 1.0).abs() <= MASS_TOLERANCE).float()),
        shuffled_ratio=ratio,
        reward_precision=precision,
        reward_rate=rate,
    )

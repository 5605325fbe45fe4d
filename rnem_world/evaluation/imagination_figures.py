"""The figures of imagined frames: of pixels and slots, balls, a game's player, and rewards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from rnem_world.evaluation.imagined_ends import EndFigures, end_figures
from rnem_world.evaluation.imagined_rewards import RewardFigures, ToldRewards, reward_figures
from rnem_world.evaluation.metrics import retrieve, small_object_recall, told_cross_entropy
from rnem_world.evaluation.truth import Truth, constant_velocity
from rnem_world.models.likelihood import Likelihood
from rnem_world.models.rollout import RolloutConfig

# A slot counts as a ball that is still there while its mass is within this of the ball's.
MASS_TOLERANCE = 0.3
# Slots are looked for among those of all sequences after so many imagined frames.
RETRIEVED_AFTER = (1, 5, 10)
# Stands in curves where there is nothing to measure.
NOTHING = -1.0
# Where balls are known, their actions and rewards are scored over so many frames.
SHORT_HORIZON = 10


@dataclass(frozen=True)
class FrameFigures:
    """How imagined frames and slots compare with the real ones. Lists have one entry for each imagined frame.

    What is measured after so many frames is measured where the episode still lasts, and is -1 where none does.

    Attributes:
        bce: Cross-entropy of the true frame under the imagined one (its expectation), in nats; of colours and greys
            the squared error over twice the likelihood's variance.
        told_bce: The same of the imagined frame in black and white that is told how often pixels that are on and
            pixels that are off are right after so many frames; empty for colours and greys.
        copy_bce: The same of a copy of the last real frame that is told likewise: the best that a copy can do.
        wrong_pixels: Pixels in which the imagined frame, made hard, differs visibly from the true one.
        copy_wrong_pixels: Pixels in which the last real frame does.
        wrong_pixels_shuffled: The same of frames that were imagined under other sequences' actions; empty without.
        exact: Part of the imagined frames in which no pixel differs visibly.
        exact_channels: The same of each channel of black and white frames that have several, by its number as text.
        foreground_iou: How far the pixels that show something in the imagined frame are those of the true one:
            intersection over union.
        foreground_iou_shuffled: The same under other sequences' actions; empty without.
        copy_foreground_iou: The same of the last real frame.
        small_recall: Part of the pixels of small moving objects (bullets, a ball) that is predicted one frame ahead,
            while the model watches; None if there are no such objects, positions of objects are known, or frames are
            of colours or greys.
        hits: Hits@1 after so many imagined frames, by their number as text: the imagined slots, carried forward, are
            nearest to those that the model has when it watches the same frames, among those of all sequences. Empty
            for a single sequence, and where positions of objects are known.
        mean_reciprocal_rank: Likewise.
        copy_hits: Hits@1 of slots left as they were at the end of the context.
    """

    bce: list[float]
    told_bce: list[float]
    copy_bce: list[float]
    wrong_pixels: list[float]
    copy_wrong_pixels: list[float]
    wrong_pixels_shuffled: list[float]
    exact: list[float]
    exact_channels: dict[str, list[float]]
    foreground_iou: list[float]
    foreground_iou_shuffled: list[float]
    copy_foreground_iou: list[float]
    small_recall: float | None
    hits: dict[str, float]
    mean_reciprocal_rank: dict[str, float]
    copy_hits: dict[str, float]


@dataclass(frozen=True)
class PlayerFigures:
    """How a game's player is imagined; lists have one entry for each imagined frame.

    Attributes:
        player_error: Distance of the imagined player from the true one, mean, in pixels.
        player_error_shuffled: The same under other sequences' actions; empty without actions.
        player_error_copy: The same of a player that stays.
        player_found: Part of the imagined frames that show a player where the true one does.
    """

    player_error: list[float]
    player_error_shuffled: list[float]
    player_error_copy: list[float]
    player_found: list[float]


@dataclass(frozen=True)
class ObjectFigures:
    """How long imagined balls stay where the real ones are; slots are matched to them at the end of the context.

    Attributes:
        fg_ari: FG-ARI over the last five frames of the context.
        position_errors: Error in the balls' radii after each imagined frame.
        player_errors: The same of the player's ball alone.
        player_within: Part of the players that are at most their radius away from where they should be.
        constant_velocity_errors: The same of balls that go on as they went, reflected by walls.
        alive: Part of the balls whose slot's mass is within 30 % of theirs, after each imagined frame.
        shuffled_ratio: The player's error after ten frames under other sequences' actions, over that under its own;
            None without actions or other sequences.
    """

    fg_ari: float
    position_errors: list[float]
    player_errors: list[float]
    player_within: list[float]
    constant_velocity_errors: list[float]
    alive: list[float]
    shuffled_ratio: float | None


@dataclass(frozen=True)
class ImaginationFigures:
    """The figures of imagined frames.

    Attributes:
        sequences: Number of sequences.
        context: Frames seen before imagination starts.
        horizon: Imagined frames.
        imagination: How the model imagined.
        frames: Of pixels and slots.
        objects: Of balls; None where nobody knows where they were.
        player: Of a game's player; None where nobody knows where it moves.
        rewards: Of rewards; empty without heads.
        ends: Of ends; empty without heads.
        lasting: How many of the episodes still last after each imagined frame; empty if all do.
    """

    sequences: int
    context: int
    horizon: int
    imagination: str
    frames: FrameFigures
    objects: ObjectFigures | None = None
    player: PlayerFigures | None = None
    rewards: RewardFigures = field(default_factory=RewardFigures)
    ends: EndFigures = field(default_factory=EndFigures)
    lasting: list[int] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Gives the figures as JSON-ready values, all in one dictionary."""
        names = ("sequences", "context", "horizon", "imagination", "lasting")
        found = {name: getattr(self, name) for name in names}
        for part in (self.objects, self.frames, self.player, self.rewards, self.ends):
            found |= {} if part is None else vars(part)
        return found


def imagination_figures(
    likelihood: Likelihood,
    truth: Truth,
    result: dict[str, Tensor],
    shuffled: dict[str, Tensor] | None,
    config: RolloutConfig,
) -> ImaginationFigures:
    """Works out all figures of what was imagined.

    Args:
        likelihood: The model's.
        truth: What happened.
        result: What `evaluate_imagination` found of all sequences: Float (n, horizon) ``bce``, and so on.
        shuffled: The same under other sequences' actions; None where that tells nothing.
        config: How it was imagined.
    """
    first = config.context
    lasts = truth.lasting(slice(first + 1, first + config.horizon + 1))
    ends = EndFigures()
    if truth.terminations is not None and "ends" in result:
        ends = end_figures(result["ends"], truth.terminations[:, first : first + config.horizon], lasts)
    return ImaginationFigures(
        truth.frames.shape[0],
        config.context,
        config.horizon,
        config.imagination,
        _frame_figures(likelihood, truth, result, shuffled, lasts, config),
        _object_figures(truth, result, shuffled, lasts, config),
        _player_figures(truth, result, shuffled, lasts, config),
        _reward_figures(truth, result, lasts, config),
        ends,
        [] if bool(lasts.all()) else lasts.sum(dim=0).tolist(),
    )


def _frame_figures(
    likelihood: Likelihood,
    truth: Truth,
    result: dict[str, Tensor],
    shuffled: dict[str, Tensor] | None,
    lasts: Tensor,
    config: RolloutConfig,
) -> FrameFigures:
    first, drawn = config.context, result["drawn"]
    true = truth.frames[:, first + 1 : first + config.horizon + 1]
    last = truth.frames[:, first, None].expand_as(true)
    previous = truth.frames[:, first : first + config.horizon]
    found, copied = {}, {}
    for number in RETRIEVED_AFTER:
        if number > config.horizon or "true 0" not in result or int(lasts[:, number - 1].sum()) < 2:
            continue
        rows, name = lasts[:, number - 1], str(number)
        found[name] = retrieve(result[f"imagined {name}"][rows], result[f"true {name}"][rows])
        copied[name] = retrieve(result["true 0"][rows], result[f"true {name}"][rows])

    def mean(values: Tensor) -> list[float]:
        return _rounded(torch.where(lasts, values.double(), torch.nan).nanmean(dim=0))

    def told(guesses: Tensor) -> list[float]:
        if not likelihood.is_binary:
            return []
        told = [
            told_cross_entropy(guesses[rows, step], true[rows, step])
            if bool(rows.any())
            else true.new_tensor(torch.nan, dtype=torch.float64)
            for step, rows in enumerate(lasts.unbind(dim=1))
        ]
        return _rounded(torch.stack(told))

    def wrong(guesses: Tensor) -> list[float]:
        return mean(likelihood.differ(guesses, true).double().sum(dim=(2, 3)))

    def overlap(guesses: Tensor) -> list[float]:
        there, real = likelihood.foreground(guesses), likelihood.foreground(true)
        shared, either = (there & real).sum(dim=(2, 3)), (there | real).sum(dim=(2, 3))
        return mean(torch.where(either > 0, shared / either.clamp(min=1), 1.0))

    channels = range(true.shape[2] if likelihood.is_binary and true.shape[2] > 1 else 0)
    small = None
    if "watched" in result and likelihood.is_binary:
        pixels = [frames[lasts][None] for frames in (previous, true, result["watched"])]
        small = small_object_recall(*pixels)
    return FrameFigures(
        bce=mean(result["bce"]),
        told_bce=told(drawn),
        copy_bce=told(last),
        wrong_pixels=wrong(drawn),
        copy_wrong_pixels=wrong(last),
        wrong_pixels_shuffled=[] if shuffled is None else wrong(shuffled["drawn"]),
        exact=mean(~likelihood.differ(drawn, true).any(dim=(2, 3))),
        exact_channels={
            str(channel): mean((drawn[:, :, channel] == true[:, :, channel]).all(dim=(2, 3)))
            for channel in channels
        },
        foreground_iou=overlap(drawn),
        foreground_iou_shuffled=[] if shuffled is None else overlap(shuffled["drawn"]),
        copy_foreground_iou=overlap(last),
        small_recall=small,
        hits={n: entry.hits for n, entry in found.items()},
        mean_reciprocal_rank={n: entry.mean_reciprocal_rank for n, entry in found.items()},
        copy_hits={n: entry.hits for n, entry in copied.items()},
    )


def _object_figures(
    truth: Truth,
    result: dict[str, Tensor],
    shuffled: dict[str, Tensor] | None,
    lasts: Tensor,
    config: RolloutConfig,
) -> ObjectFigures | None:
    if truth.objects is None:
        return None
    there = result["errors"].isfinite() & lasts[:, :, None]

    def mean(values: Tensor, balls: slice = slice(None)) -> list[float]:
        kept = torch.where(there, values, torch.nan)[:, :, balls]
        return _rounded(kept.nanmean(dim=(0, 2)))

    straight = constant_velocity(truth.objects, config.context, config.horizon, truth.frames.shape[-1])
    step = min(SHORT_HORIZON, config.horizon) - 1
    ratio, rows = None, lasts[:, step]
    if shuffled is not None and bool(rows.any()):
        ratio = float(shuffled["errors"][rows, step, 0].mean() / result["errors"][rows, step, 0].mean())
    return ObjectFigures(
        fg_ari=float(result["fg_ari"].mean()),
        position_errors=mean(result["errors"]),
        player_errors=mean(result["errors"], slice(1)),
        player_within=mean((result["errors"] <= 1.0).to(result["errors"].dtype), slice(1)),
        constant_velocity_errors=mean(straight),
        alive=mean(((result["masses"] - 1.0).abs() <= MASS_TOLERANCE).float()),
        shuffled_ratio=ratio,
    )


def _player_figures(
    truth: Truth,
    result: dict[str, Tensor],
    shuffled: dict[str, Tensor] | None,
    lasts: Tensor,
    config: RolloutConfig,
) -> PlayerFigures | None:
    lane, first, last = truth.lane, config.context, truth.frames[:, config.context]
    if lane is None:
        return None
    real = lane.find(truth.frames[:, first + 1 : first + config.horizon + 1])
    there = real.found & lane.find(last[:, None]).found & lasts

    def error(frames: Tensor) -> list[float]:
        players = lane.find(frames)
        distance = (players.positions - real.positions).abs()
        return _rounded(torch.where(there & players.found, distance, torch.nan).nanmean(dim=0))

    found = lane.find(result["drawn"]).found.to(result["drawn"].dtype)
    return PlayerFigures(
        player_error=error(result["drawn"]),
        player_error_shuffled=[] if shuffled is None else error(shuffled["drawn"]),
        player_error_copy=error(last[:, None].expand_as(result["drawn"])),
        player_found=_rounded(torch.where(there, found, torch.nan).nanmean(dim=0)),
    )


def _reward_figures(
    truth: Truth, result: dict[str, Tensor], lasts: Bool[Tensor, "n t"], config: RolloutConfig
) -> RewardFigures:
    if truth.rewards is None or "rewards" not in result:
        return RewardFigures()
    scored = config.horizon if truth.objects is None else min(SHORT_HORIZON, config.horizon)
    true = truth.rewards[:, config.context : config.context + config.horizon]
    imagined, watched = (
        ToldRewards(result[f"{prefix}rewards"], result[f"{prefix}likeliest"]) for prefix in ("", "watched ")
    )
    return reward_figures(true, lasts, imagined, watched, scored)


def _rounded(values: Tensor) -> list[float]:
    """Rounds for JSON, which knows no NaN."""
    return [round(value, 4) for value in values.nan_to_num(nan=NOTHING).tolist()]

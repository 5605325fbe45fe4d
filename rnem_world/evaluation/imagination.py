"""Evaluating imagined frames: how long they stay what really comes, by pixels, slots, objects, player and rewards."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from rnem_world.errors import ConfigError
from rnem_world.evaluation.metrics import (
    SlotCentroids,
    average_precision,
    foreground_ari,
    retrieve,
    slot_centroids,
    small_object_recall,
    told_cross_entropy,
)
from rnem_world.evaluation.truth import Objects, Truth, constant_velocity, match_slots
from rnem_world.models.layers import own_precision
from rnem_world.models.likelihood import Likelihood
from rnem_world.models.rollout import RolloutConfig, imagine, observe
from rnem_world.models.world_model import SlotState, Transition, WorldModel

# A slot counts as a ball that is still there while its mass is within this of the ball's.
MASS_TOLERANCE = 0.3
# Slots are looked for among those of all sequences after so many imagined frames.
RETRIEVED_AFTER = (1, 5, 10)
# Where balls are known, their actions and rewards are scored over so many frames.
SHORT_HORIZON = 10


@dataclass(frozen=True)
class FrameFigures:
    """How imagined frames and slots compare with the real ones. Lists have one entry for each imagined frame.

    Attributes:
        bce: Cross-entropy of the true frame under the imagined one (its expectation), in nats; of colours and greys
            the squared error over twice the likelihood's variance.
        told_bce: The same of the imagined frame in black and white that is told how often pixels that are on and
            pixels that are off are right after so many frames; empty for colours and greys.
        copy_bce: The same of a copy of the last real frame that is told likewise: the best that a copy can do.
        wrong_pixels: Pixels in which the imagined frame, made hard, differs visibly from the true one.
        copy_wrong_pixels: Pixels in which the last real frame does.
        foreground_iou: How far the pixels that show something in the imagined frame are those of the true one:
            intersection over union.
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
    foreground_iou: list[float]
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
        constant_velocity_errors: The same of balls that go on as they went, reflected by walls.
        alive: Part of the balls whose slot's mass is within 30 % of theirs, after each imagined frame.
        shuffled_ratio: The player's error after ten frames under other sequences' actions, over that under its own;
            None without actions or other sequences.
    """

    fg_ari: float
    position_errors: list[float]
    player_errors: list[float]
    constant_velocity_errors: list[float]
    alive: list[float]
    shuffled_ratio: float | None


@dataclass(frozen=True)
class RewardFigures:
    """How well rewards are told.

    Attributes:
        reward_precision: Average precision of imagined rewards, over ten frames where balls are known, else over all.
        reward_precision_watching: The same one step ahead, while the model watches; None where balls are known.
        reward_rate: Part of those transitions that have a reward: the precision of guessing.
    """

    reward_precision: float | None = None
    reward_precision_watching: float | None = None
    reward_rate: float | None = None


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
    """

    sequences: int
    context: int
    horizon: int
    imagination: str
    frames: FrameFigures
    objects: ObjectFigures | None = None
    player: PlayerFigures | None = None
    rewards: RewardFigures = field(default_factory=RewardFigures)

    def to_dict(self) -> dict[str, Any]:
        """Gives the figures as JSON-ready values, all in one dictionary."""
        found = {name: getattr(self, name) for name in ("sequences", "context", "horizon", "imagination")}
        for part in (self.objects, self.frames, self.player, self.rewards):
            found |= {} if part is None else vars(part)
        return found


def check_length(config: RolloutConfig, available: int) -> None:
    """Checks that dreams of this length can be measured.

    Args:
        config: Frames to watch, of which two give the velocities that guessing needs, and frames to imagine.
        available: Frames of a sequence.

    Raises:
        ConfigError: If not.
    """
    if config.context < 2 or config.horizon < 1:
        raise ConfigError(
            f"a context of {config.context} and {config.horizon} imagined frames are asked for: at least 2 and 1 are "
            "needed"
        )
    config.check_length(available)


@torch.no_grad()
@own_precision
def evaluate_imagination(
    model: WorldModel,
    truth: Truth,
    config: RolloutConfig,
    generator: torch.Generator,
    batch_size: int = 32,
) -> ImaginationFigures:
    """Measures imagined frames against what happened; the same again under other sequences' actions.

    Args:
        model: The model, in evaluation mode.
        truth: What happened in at least ``context + horizon + 1`` frames.
        config: How to imagine. A model that was trained with noise of one strength needs it here too.
        generator: Draws first responsibilities and the noise, on the model's device.
        batch_size: Sequences at once.

    Raises:
        ConfigError: If there are too few sequences or frames, or fewer slots than balls.
    """
    check_length(config, truth.frames.shape[1])
    sequences = truth.frames.shape[0]
    if sequences < 1 or batch_size < 1:
        raise ConfigError(f"{sequences} sequences, {batch_size} at once: at least 1 of each is needed")
    if not model.config.takes_actions:
        truth = replace(truth, actions=None)
    parts = [slice(start, start + batch_size) for start in range(0, sequences, batch_size)]

    def dreams(actions: Tensor | None, watches_on: bool) -> dict[str, Tensor]:
        found = [
            _dream(model, truth.rows(rows), actions, rows, config, generator, watches_on) for rows in parts
        ]
        return {name: torch.cat([part[name] for part in found]) for name in found[0]}

    # Positions tell more than slots that are found again, which takes long.
    result, shuffled = dreams(truth.actions, truth.objects is None), None
    if truth.actions is not None and sequences > 1 and (truth.objects is not None or truth.lane is not None):
        shuffled = dreams(truth.actions.roll(1, dims=0), False)
    return ImaginationFigures(
        sequences,
        config.context,
        config.horizon,
        config.imagination,
        _frame_figures(model.likelihood, truth, result, config),
        _object_figures(truth, result, shuffled, config),
        _player_figures(truth, result, shuffled, config),
        _reward_figures(truth, result, config),
    )


def _dream(
    model: WorldModel,
    truth: Truth,
    actions: Num[Tensor, "n t ..."] | None,
    rows: slice,
    config: RolloutConfig,
    generator: torch.Generator,
    watches_on: bool,
) -> dict[str, Tensor]:
    """Watches, then imagines under the actions given, and beside it watches on.

    Args:
        model: The model.
        truth: Of some rows of all sequences.
        actions: What is done while imagining, in all sequences.
        rows: Which rows they are.
        config: How to imagine.
        generator: Draws first responsibilities and noise.
        watches_on: Whether to watch on.

    Returns:
        Tensors with the sequences first: ``bce`` Float (b, horizon), ``drawn`` Float (b, horizon, c, h, w), imagined
        frames made hard, and with heads ``rewards`` Float (b, horizon); with known objects, what :class:`_Tracker`
        measures. Having watched on, ``watched`` and ``watched rewards``, told one frame ahead; and Float (b, k, d) the
        slots that were ``imagined 1`` frame on, and ``true 1``, likewise 5 and 10, and ``true 0``.
    """
    likelihood, frames, context, horizon = model.likelihood, truth.frames, config.context, config.horizon
    state = model.initial_state(frames.shape[0], config.slots, generator)
    seen = likelihood.noisy(frames[:, : context + horizon], config.noise, generator)
    found: dict[str, Tensor] = {}
    series: dict[str, list[Tensor]] = defaultdict(list)
    last: deque[tuple[Transition, Tensor]] = deque(maxlen=5)
    for transition, after in observe(
        model, state, seen[:, :context], frames[:, 1 : context + 1], truth.actions
    ):
        state = after
        last.append((transition, after.gamma))
    tracker = None
    if truth.objects is not None:
        tracker = _Tracker(likelihood, truth.objects, context, last)
        found["fg_ari"] = tracker.fg_ari
    future = slice(context, context + horizon)
    future_actions = None if actions is None else actions[rows, future]
    for step, (_, transition, own) in enumerate(
        imagine(
            model,
            state,
            horizon,
            future_actions,
            config.imagination,
            config.noise,
            generator,
            frames[:, context],
        ),
        start=1,
    ):
        expected = likelihood.soft_frame(transition.prediction)
        series["bce"].append(likelihood.frame_loss(expected, frames[:, context + step]))
        series["drawn"].append(likelihood.own_frame(transition.prediction))
        if transition.heads is not None:
            series["rewards"].append(transition.heads.rewards.sum(dim=1))
        if tracker is not None:
            errors, masses = tracker.measure(transition, own.gamma, context + step)
            series["errors"].append(errors)
            series["masses"].append(masses)
        if step in RETRIEVED_AFTER and watches_on:
            found[f"imagined {step}"] = _look(model, own, series["drawn"][-1])
    if watches_on:
        found["true 0"] = _look(model, state, frames[:, context])
        targets = frames[:, context + 1 : context + horizon + 1]
        done = None if truth.actions is None else truth.actions[:, future]
        for step, (transition, after) in enumerate(
            observe(model, state, seen[:, context:], targets, done), start=1
        ):
            series["watched"].append(likelihood.own_frame(transition.prediction))
            if transition.heads is not None:
                series["watched rewards"].append(transition.heads.rewards.sum(dim=1))
            if step in RETRIEVED_AFTER:
                found[f"true {step}"] = _look(model, after, targets[:, step - 1])
    return found | {name: torch.stack(values, dim=1) for name, values in series.items()}


class _Tracker:
    """Follows the slots of balls, to which it matches them once, at the end of the context.

    Args:
        likelihood: The model's.
        objects: Where the balls are.
        context: The context.
        last: The last transitions of the context, and the responsibilities after them.

    Attributes:
        fg_ari: Float (b,), over these last frames.
    """

    def __init__(
        self, likelihood: Likelihood, objects: Objects, context: int, last: deque[tuple[Transition, Tensor]]
    ) -> None:
        self.likelihood, self.objects = likelihood, objects
        gammas = torch.stack([gamma[:, :, 0] for _, gamma in last], dim=1)
        self.fg_ari = foreground_ari(gammas, objects.groups[:, context + 1 - len(last) : context + 1]).mean(
            dim=1
        )
        found = self._find(*last[-1])
        match = match_slots(found.positions[:, 0], found.masses[:, 0], objects.positions[:, context])
        self.match, self.numbers = match, torch.arange(1, match.shape[1] + 1, device=match.device)

    def measure(
        self, transition: Transition, gamma: Tensor, frame: int
    ) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
        """Gives each ball's distance from its slot, in radii, and the slot's mass over its visible pixels."""
        found, objects = self._find(transition, gamma), self.objects
        positions = found.positions[:, 0].gather(1, self.match[..., None].expand(-1, -1, 2))
        errors: Tensor = (positions - objects.positions[:, frame]).norm(dim=2) / objects.radii
        visible = (objects.groups[:, frame, None] == self.numbers[:, None, None]).sum(dim=(2, 3))
        return errors, found.masses[:, 0].gather(1, self.match) / visible.clamp(min=1)

    def _find(self, transition: Transition, gamma: Tensor) -> SlotCentroids:
        return slot_centroids(self.likelihood.object_weights(transition.prediction, gamma)[:, None])


def _look(model: WorldModel, state: SlotState, frame: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k d"]:
    """Gives the slots once they have seen a frame, all under action 0, so that no action tells sequences apart."""
    actions = None if model.action_embedding is None else model.action_embedding.zeros(frame.shape[0])
    return model.predict(state, frame, actions).theta


def _frame_figures(
    likelihood: Likelihood, truth: Truth, result: dict[str, Tensor], config: RolloutConfig
) -> FrameFigures:
    first, drawn = config.context, result["drawn"]
    true = truth.frames[:, first + 1 : first + config.horizon + 1]
    last = truth.frames[:, first, None].expand_as(true)
    previous = truth.frames[:, first : first + config.horizon]
    found, copied = {}, {}
    if truth.frames.shape[0] > 1 and "true 0" in result:
        after = [str(number) for number in RETRIEVED_AFTER if number <= config.horizon]
        found = {n: retrieve(result[f"imagined {n}"], result[f"true {n}"]) for n in after}
        copied = {n: retrieve(result["true 0"], result[f"true {n}"]) for n in after}

    def told(guesses: Tensor) -> list[float]:
        if not likelihood.is_binary:
            return []
        pairs = zip(guesses.unbind(1), true.unbind(1), strict=True)
        return _rounded(torch.stack([told_cross_entropy(guess, frame) for guess, frame in pairs]))

    def wrong(guesses: Tensor) -> list[float]:
        return _rounded(likelihood.differ(guesses, true).double().sum(dim=(2, 3)).mean(dim=0))

    def overlap(guesses: Tensor) -> list[float]:
        there, real = likelihood.foreground(guesses), likelihood.foreground(true)
        shared, either = (there & real).sum(dim=(2, 3)), (there | real).sum(dim=(2, 3))
        return _rounded(torch.where(either > 0, shared / either.clamp(min=1), 1.0).mean(dim=0))

    small = None
    if "watched" in result and likelihood.is_binary:
        small = small_object_recall(previous, true, result["watched"])
    return FrameFigures(
        bce=_rounded(result["bce"].mean(dim=0)),
        told_bce=told(drawn),
        copy_bce=told(last),
        wrong_pixels=wrong(drawn),
        copy_wrong_pixels=wrong(last),
        foreground_iou=overlap(drawn),
        copy_foreground_iou=overlap(last),
        small_recall=small,
        hits={n: entry.hits for n, entry in found.items()},
        mean_reciprocal_rank={n: entry.mean_reciprocal_rank for n, entry in found.items()},
        copy_hits={n: entry.hits for n, entry in copied.items()},
    )


def _object_figures(
    truth: Truth, result: dict[str, Tensor], shuffled: dict[str, Tensor] | None, config: RolloutConfig
) -> ObjectFigures | None:
    if truth.objects is None:
        return None
    there = result["errors"].isfinite()

    def mean(values: Tensor, balls: slice = slice(None)) -> list[float]:
        kept = torch.where(there, values, torch.nan)[:, :, balls]
        return [round(value, 4) for value in kept.nanmean(dim=(0, 2)).tolist()]

    straight = constant_velocity(truth.objects, config.context, config.horizon, truth.frames.shape[-1])
    step = min(SHORT_HORIZON, config.horizon) - 1
    ratio = None
    if shuffled is not None:
        ratio = float(shuffled["errors"][:, step, 0].mean() / result["errors"][:, step, 0].mean())
    return ObjectFigures(
        fg_ari=float(result["fg_ari"].mean()),
        position_errors=mean(result["errors"]),
        player_errors=mean(result["errors"], slice(1)),
        constant_velocity_errors=mean(straight),
        alive=mean(((result["masses"] - 1.0).abs() <= MASS_TOLERANCE).float()),
        shuffled_ratio=ratio,
    )


def _player_figures(
    truth: Truth, result: dict[str, Tensor], shuffled: dict[str, Tensor] | None, config: RolloutConfig
) -> PlayerFigures | None:
    lane, first, last = truth.lane, config.context, truth.frames[:, config.context]
    if lane is None:
        return None
    real = lane.find(truth.frames[:, first + 1 : first + config.horizon + 1])
    there = real.found & lane.find(last[:, None]).found

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


def _reward_figures(truth: Truth, result: dict[str, Tensor], config: RolloutConfig) -> RewardFigures:
    if truth.rewards is None or "rewards" not in result:
        return RewardFigures()
    scored = config.horizon if truth.objects is None else min(SHORT_HORIZON, config.horizon)
    earned = truth.rewards[:, config.context : config.context + scored] != 0
    watched = result.get("watched rewards")
    has_losses = bool((truth.rewards < 0).any())

    def precision(guesses: Tensor) -> float | None:
        # Where rewards may be negative, how far a guess is from none tells how sure it is of one.
        return average_precision(earned, guesses.abs() if has_losses else guesses)

    return RewardFigures(
        reward_precision=precision(result["rewards"][:, :scored]),
        reward_precision_watching=None if watched is None else precision(watched[:, :scored]),
        reward_rate=float(earned.float().mean()),
    )


def _rounded(values: Tensor) -> list[float]:
    """Rounds for JSON; what isn't there is -1, since JSON knows no NaN."""
    return [round(value, 4) for value in values.nan_to_num(nan=-1.0).tolist()]

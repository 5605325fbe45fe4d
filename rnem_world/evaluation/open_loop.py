"""Dreams of frames without known objects, as of a game: pixels, slots, the player, rewards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from rnem_world.errors import ConfigError
from rnem_world.evaluation.imagination import check_length
from rnem_world.evaluation.players import PlayerLane
from rnem_world.evaluation.retrieval import retrieve
from rnem_world.models.rollout import imagine, observe
from rnem_world.models.world_model import SlotState, WorldModel

RETRIEVED_AFTER = (1, 5, 10)
SMALL_OBJECT = 8
"""Most pixels of a small object, a bullet or a ball."""


@dataclass(frozen=True)
class Recorded:
    """What happened in some sequences.

    Attributes:
        frames: Float (b, t, c, h, w) in [0, 1].
        actions: Int64 (b, t), or None.
        rewards: Float (b, t), or None.
    """

    frames: Tensor
    actions: Tensor | None = None
    rewards: Tensor | None = None

    def part(self, rows: slice) -> Recorded:
        """Picks sequences."""
        return Recorded(
            self.frames[rows],
            None if self.actions is None else self.actions[rows],
            None if self.rewards is None else self.rewards[rows],
        )


@dataclass(frozen=True)
class OpenLoopFigures:
    """The figures of dreams. Lists have one entry for each imagined frame, unless said otherwise.

    Attributes:
        sequences: Number of sequences.
        context: Frames seen before imagination starts.
        horizon: Imagined frames.
        imagination: How the model imagined.
        bce: Cross-entropy of the true frame under the imagined one (the slots' means added up), in nats.
        told_bce: The same of the imagined frame in black and white that is told how often pixels that are on and
            pixels that are off are right after so many frames.
        copy_bce: The same of a copy of the last real frame that is told likewise: the best that a copy can do.
        wrong_pixels: Pixels in which the imagined frame, in black and white, differs from the true one.
        copy_wrong_pixels: Pixels in which the last real frame does.
        small_recall: Part of the pixels of small moving objects (bullets, a ball) that is predicted one frame ahead,
            while the model watches; None if there are no such objects.
        hits: Hits@1 after so many imagined frames, by their number as text: the imagined slots, carried forward, are
            nearest to those that the model has when it watches the same frames, among those of all sequences.
        mean_reciprocal_rank: Likewise.
        copy_hits: Hits@1 of slots left as they were at the end of the context.
        player_error: Distance of the imagined player from the true one, mean, in pixels; empty without a lane.
        player_error_shuffled: The same under other sequences' actions.
        player_error_copy: The same of a player that stays.
        player_found: Part of the imagined frames that show a player where the true one does.
        reward_precision: Average precision of imagined rewards over all steps; None without heads or rewards.
        reward_precision_watching: The same one step ahead, while the model watches.
        reward_rate: Part of the transitions with a reward, the precision of guessing.
    """

    sequences: int
    context: int
    horizon: int
    imagination: str
    bce: list[float]
    told_bce: list[float]
    copy_bce: list[float]
    wrong_pixels: list[float]
    copy_wrong_pixels: list[float]
    small_recall: float | None
    hits: dict[str, float]
    mean_reciprocal_rank: dict[str, float]
    copy_hits: dict[str, float]
    player_error: list[float] = field(default_factory=list)
    player_error_shuffled: list[float] = field(default_factory=list)
    player_error_copy: list[float] = field(default_factory=list)
    player_found: list[float] = field(default_factory=list)
    reward_precision: float | None = None
    reward_precision_watching: float | None = None
    reward_rate: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Gives the figures as JSON-ready values."""
        return vars(self).copy()


@dataclass(frozen=True)
class _Dream:
    """A dream beside watching; every tensor has the sequences first.

    Attributes:
        bce: Float (b, horizon).
        drawn: Float (b, horizon, c, h, w), imagined frames in black and white.
        rewards: Float (b, horizon), imagined; None without heads.
        watched_rewards: Float (b, horizon), told while watching.
        watched: Float (b, horizon, c, h, w), frames predicted one step ahead, in black and white.
        imagined_slots: Float (b, k, d) after so many imagined frames.
        true_slots: The same after watching; 0 stands for the end of the context.
    """

    bce: Tensor
    drawn: Tensor
    rewards: Tensor | None
    watched_rewards: Tensor | None
    watched: Tensor
    imagined_slots: dict[int, Tensor]
    true_slots: dict[int, Tensor]


def _dream(
    model: WorldModel,
    recorded: Recorded,
    actions: Int64[Tensor, "b t"] | None,
    context: int,
    horizon: int,
    slots: int | None,
    noise: float,
    imagination: str,
    generator: torch.Generator,
) -> _Dream:
    """Watches, then imagines under the actions given, and beside it watches on."""
    frames = recorded.frames
    likelihood = model.likelihood
    seen = likelihood.noisy(frames[:, : context + horizon], noise, generator)
    state = model.initial_state(frames.shape[0], slots, generator)
    first = None if recorded.actions is None else recorded.actions[:, :context]
    for _, after in observe(model, state, seen[:, :context], frames[:, 1 : context + 1], first):
        state = after
    slots_at = {0: _look(model, state, frames[:, context])}
    bce, drawn, rewards, imagined = [], [], [], {}
    future = None if actions is None else actions[:, context : context + horizon]
    for step, (_, transition, own) in enumerate(
        imagine(model, state, horizon, future, imagination, noise, generator, frames[:, context])
    ):
        target = frames[:, context + step + 1]
        bce.append(likelihood.frame_loss(likelihood.soft_frame(transition.prediction), target))
        drawn.append(likelihood.own_frame(transition.prediction))
        if transition.heads is not None:
            rewards.append(transition.heads.rewards.sum(dim=1))
        if step + 1 in RETRIEVED_AFTER:
            imagined[step + 1] = _look(model, own, drawn[-1])
    watched, watched_rewards = [], []
    on = None if recorded.actions is None else recorded.actions[:, context : context + horizon]
    targets = frames[:, context + 1 : context + horizon + 1]
    for step, (transition, after) in enumerate(observe(model, state, seen[:, context:], targets, on)):
        watched.append(likelihood.own_frame(transition.prediction))
        if transition.heads is not None:
            watched_rewards.append(transition.heads.rewards.sum(dim=1))
        if step + 1 in RETRIEVED_AFTER:
            slots_at[step + 1] = _look(model, after, targets[:, step])
    return _Dream(
        torch.stack(bce, dim=1),
        torch.stack(drawn, dim=1),
        torch.stack(rewards, dim=1) if rewards else None,
        torch.stack(watched_rewards, dim=1) if watched_rewards else None,
        torch.stack(watched, dim=1),
        imagined,
        slots_at,
    )


def _look(model: WorldModel, state: SlotState, frame: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k d"]:
    """Gives the slots once they have seen a frame, all under action 0, so that no action tells sequences apart."""
    actions = None
    if model.config.number_of_actions:
        actions = torch.zeros(frame.shape[0], dtype=torch.int64, device=frame.device)
    return model.predict(state, frame, actions).theta


@torch.no_grad()
def evaluate_open_loop(
    model: WorldModel,
    recorded: Recorded,
    context: int,
    horizon: int,
    generator: torch.Generator,
    slots: int | None = None,
    noise: float = 0.0,
    batch_size: int = 32,
    imagination: str = "pixels",
    lane: PlayerLane | None = None,
) -> OpenLoopFigures:
    """Measures dreams against what happened.

    Args:
        model: The model, in evaluation mode.
        recorded: At least two sequences of at least ``context + horizon + 1`` frames.
        context: Frames to watch, at least 2.
        horizon: Frames to imagine, at least 1.
        generator: Draws first responsibilities and the noise, on the model's device.
        slots: Number of slots; None takes the model's own.
        noise: Probability that a pixel of an input is flipped: a model that was trained with one strength needs it.
        batch_size: Sequences at once.
        imagination: How the model imagines; see :func:`rnem_world.models.rollout.imagine`.
        lane: Where the player moves, if it is known.

    Raises:
        ConfigError: If there are too few sequences or frames.
    """
    check_length(context, horizon, recorded.frames.shape[1])
    sequences = recorded.frames.shape[0]
    if sequences < 2 or batch_size < 1:
        raise ConfigError(f"{sequences} sequences, {batch_size} at once: at least 2 and 1 are needed")
    knows_actions = model.config.number_of_actions > 0
    if not knows_actions:
        recorded = Recorded(recorded.frames, None, recorded.rewards)

    def dreams(actions: Tensor | None) -> _Dream:
        parts = []
        for start in range(0, sequences, batch_size):
            rows = slice(start, start + batch_size)
            done = None if actions is None else actions[rows]
            parts.append(
                _dream(
                    model,
                    recorded.part(rows),
                    done,
                    context,
                    horizon,
                    slots,
                    noise,
                    imagination,
                    generator,
                )
            )
        return _joined(parts)

    result = dreams(recorded.actions)
    last = recorded.frames[:, context]
    true = recorded.frames[:, context + 1 : context + horizon + 1]
    found = {n: retrieve(slots, result.true_slots[n]) for n, slots in result.imagined_slots.items()}
    copied = {n: retrieve(result.true_slots[0], result.true_slots[n]) for n in found}
    players: dict[str, list[float]] = {}
    if lane is not None:
        shuffled = dreams(recorded.actions.roll(1, dims=0)) if recorded.actions is not None else None
        players = _players(lane, last, true, result.drawn, None if shuffled is None else shuffled.drawn)
    rewards: dict[str, float | None] = {}
    if result.rewards is not None and result.watched_rewards is not None and recorded.rewards is not None:
        earned = recorded.rewards[:, context : context + horizon] > 0
        rewards = {
            "reward_rate": float(earned.double().mean()),
            "reward_precision": _average_precision(earned, result.rewards),
            "reward_precision_watching": _average_precision(earned, result.watched_rewards),
        }
    previous = recorded.frames[:, context : context + horizon]
    return OpenLoopFigures(
        sequences=sequences,
        context=context,
        horizon=horizon,
        imagination=imagination,
        bce=_rounded(result.bce.mean(dim=0)),
        told_bce=_rounded(
            torch.stack(
                [
                    told_cross_entropy(*pair)
                    for pair in zip(result.drawn.unbind(1), true.unbind(1), strict=True)
                ]
            )
        ),
        copy_bce=_rounded(torch.stack([told_cross_entropy(last, frame) for frame in true.unbind(dim=1)])),
        wrong_pixels=_rounded((result.drawn != true).double().sum(dim=(2, 3, 4)).mean(dim=0)),
        copy_wrong_pixels=_rounded((last[:, None] != true).double().sum(dim=(2, 3, 4)).mean(dim=0)),
        small_recall=small_object_recall(previous, true, result.watched),
        hits={str(n): entry.hits for n, entry in found.items()},
        mean_reciprocal_rank={str(n): entry.mean_reciprocal_rank for n, entry in found.items()},
        copy_hits={str(n): entry.hits for n, entry in copied.items()},
        **players,  # type: ignore[arg-type]
        **rewards,  # type: ignore[arg-type]
    )


def told_cross_entropy(guess: Float[Tensor, "b c h w"], true: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """The cross-entropy of frames given guesses in black and white, in nats a frame.

    The guesser is told how often pixels that are on, and pixels that are off in the guess, are on in truth.
    """
    total = guess.new_zeros((), dtype=torch.float64)
    for value in (0.0, 1.0):
        chosen = guess == value
        if chosen.any():
            rate = true[chosen].double().mean()
            total = total + chosen.sum() * (torch.special.entr(rate) + torch.special.entr(1.0 - rate))
    return total / guess.shape[0]


def small_object_recall(
    before: Float[Tensor, "b t c h w"],
    true: Float[Tensor, "b t c h w"],
    predicted: Float[Tensor, "b t c h w"],
) -> float | None:
    """The part of small moving objects' pixels that a prediction has.

    Args:
        before: The frames before the true ones.
        true: The true frames. An object is a group of pixels that touch (corners too); it is small if it has at most
            `SMALL_OBJECT` pixels, and moving if none of them was on before.
        predicted: The predictions, in black and white.

    Returns:
        None if there are no such objects.
    """
    from scipy import ndimage

    frames = (true.flatten(0, 1)[:, 0] > 0).cpu().numpy()
    # Objects of a frame touch only within it.
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1] = True
    labels, count = ndimage.label(frames, structure)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    overlap = np.bincount(labels.ravel(), (before.flatten(0, 1)[:, 0] > 0).cpu().numpy().ravel(), count + 1)
    chosen = (sizes <= SMALL_OBJECT) & (overlap == 0)
    chosen[0] = False
    pixels = torch.from_numpy(chosen[labels])
    if not pixels.any():
        return None
    return round(float(predicted.flatten(0, 1)[:, 0].cpu()[pixels].double().mean()), 4)


def _players(
    lane: PlayerLane, last: Tensor, true: Tensor, drawn: Tensor, shuffled: Tensor | None
) -> dict[str, list[float]]:
    real, start = lane.find(true), lane.find(last[:, None])
    there = real.found & start.found

    def error(frames: Tensor) -> list[float]:
        players = lane.find(frames)
        distance = (players.positions - real.positions).abs()
        both = there & players.found
        return _rounded(torch.where(both, distance, torch.nan).nanmean(dim=0))

    found = lane.find(drawn).found
    return {
        "player_error": error(drawn),
        "player_error_shuffled": [] if shuffled is None else error(shuffled),
        "player_error_copy": error(last[:, None].expand_as(true)),
        "player_found": _rounded(torch.where(there, found.to(true.dtype), torch.nan).nanmean(dim=0)),
    }


def _average_precision(earned: Tensor, guesses: Tensor) -> float | None:
    from sklearn.metrics import average_precision_score

    if not earned.any() or earned.all():
        return None
    return float(average_precision_score(earned.flatten().cpu().numpy(), guesses.flatten().cpu().numpy()))


def _rounded(values: Tensor) -> list[float]:
    """Rounds for JSON; what isn't there is -1, since JSON knows no NaN."""
    return [round(float(value), 4) for value in values.nan_to_num(nan=-1.0)]


def _joined(parts: list[_Dream]) -> _Dream:
    def cat(tensors: list[Tensor | None]) -> Tensor | None:
        there = [tensor for tensor in tensors if tensor is not None]
        return torch.cat(there) if there else None

    def cat_slots(slots: list[dict[int, Tensor]]) -> dict[int, Tensor]:
        return {n: torch.cat([entry[n] for entry in slots]) for n in slots[0]}

    return _Dream(
        torch.cat([part.bce for part in parts]),
        torch.cat([part.drawn for part in parts]),
        cat([part.rewards for part in parts]),
        cat([part.watched_rewards for part in parts]),
        torch.cat([part.watched for part in parts]),
        cat_slots([part.imagined_slots for part in parts]),
        cat_slots([part.true_slots for part in parts]),
    )

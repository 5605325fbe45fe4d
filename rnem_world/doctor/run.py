"""How a trained model fares: is its loss diverging, do its slots bind, are actions obeyed, do its dreams last.

All is judged by a few sequences in some seconds, so that it can be asked while training goes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnem_world.api import RolloutInput, Trained, rollout_input
from rnem_world.data.dataset import Dataset
from rnem_world.data.loader import read_batch
from rnem_world.data.schema import Split
from rnem_world.doctor.findings import Finding
from rnem_world.errors import ConfigError, DataError
from rnem_world.evaluation.metrics import foreground_ari
from rnem_world.models.layers import own_precision
from rnem_world.models.rollout import imagine, observe
from rnem_world.models.world_model import SlotState
from rnem_world.seeding import torch_generator
from rnem_world.training.checkpoint import CHECKPOINTS
from rnem_world.training.logging import LOG_FILE, read_log

PLATEAU_UPDATES = 500
"""So early slots may still sort themselves out: nothing is judged before."""

GOOD_ARI, POOR_ARI = 0.8, 0.5
SHARP, BLURRED = 0.9, 0.7
_LENGTHS = [(15, 20), (10, 10), (6, 6), (2, 2), (1, 1)]
"""Frames to watch and to imagine: the first of these that episodes last for."""

_OBEYS = 5
_WORST_RISE = 1.5
_OVERFITTING = 1.1
_FEWEST_ENTRIES = 6

_BINDING_ADVICE = (
    "train on (docs/binding.md says what helps: fewer balls first, the first steps out of the loss, another seed); "
    "try --slots, one more than there are objects"
)


@dataclass(frozen=True)
class Watched:
    """What a model made of some sequences.

    Attributes:
        fg_ari: FG-ARI over the last five frames watched; None without the truth.
        sharpness: The largest responsibility of a pixel that shows something, among the slots, mean over those.
        slots_used: How many slots have such pixels: the exponential of their shares' entropy, mean over frames.
        slots: How many there are.
        obeyed: The loss of imagined frames under other sequences' actions, over that under their own; None where
            actions can't be told apart.
        obeyed_error: The standard error of that ratio.
        mass_left: Pixels that show something in the last imagined frame, over those of the true one; None if the
            true ones show nothing.
    """

    fg_ari: float | None
    sharpness: float
    slots_used: float
    slots: int
    obeyed: float | None
    obeyed_error: float
    mass_left: float | None


def examine_run(
    checkpoint: str,
    run: Path | None,
    data: Path | None,
    *,
    split: Split = "test",
    sequences: int = 32,
    device: str | torch.device = "auto",
    prefer: str = "best",
    seed: int = 0,
) -> Iterator[Finding]:
    """Examines a run, a checkpoint or a world.

    Args:
        checkpoint: A run, a checkpoint, the name of a shipped world, or ``hf://owner/name``.
        run: The run's folder, whose log is read; None if there is none.
        data: Path of a dataset; None takes the one that the model was trained on.
        split: Which sequences.
        sequences: How many at most.
        device: Where the model is to be.
        prefer: The ``best`` checkpoint of a run, or its ``last``.
        seed: Of noise and first responsibilities.

    Raises:
        CheckpointError: If there is no such checkpoint.
        ConfigError: If the data doesn't suit the model, or there are too few sequences.
        DataError: If there is no such dataset.
    """
    if sequences < 2:
        raise ConfigError(
            f"{sequences} sequences were asked for: at least 2 are needed, to exchange their actions"
        )
    trained = Trained.load(checkpoint, device, prefer)
    updates = None
    if run is not None and (run / LOG_FILE).is_file():
        entries = read_log(run)
        updates = max((int(entry.get("update", 0)) for entry in entries), default=0)
        yield judge_losses(entries)
    else:
        yield Finding("loss", "note", "there is no log of the training, it is a checkpoint alone")
    watched = watch(trained, data, split, sequences, seed)
    yield judge_binding(watched, updates)
    yield judge_actions(watched, trained, updates)
    yield judge_dreams(watched, trained)


def run_folder(given: Path) -> Path | None:
    """Finds the run that a checkpoint or a run's folder belongs to; None for one by itself."""
    for folder in (given, given.parent.parent):
        if (folder / CHECKPOINTS).is_dir():
            return folder
    return None


def judge_losses(entries: list[dict[str, Any]]) -> Finding:
    """Judges by the log whether the loss is diverging, still falling, or has stopped to."""
    losses = [entry["loss"] for entry in entries if entry.get("kind") == "training" and "loss" in entry]
    valid = [entry["losses"]["loss"]["total"] for entry in entries if entry.get("kind") == "validation"]
    if not all(map(math.isfinite, (*losses, *valid))):
        advice = "go back to an earlier checkpoint with a lower --learning-rate, or set --clip-norm"
        return Finding("loss", "bad", "it was NaN or infinite", advice)
    if len(losses) < _FEWEST_ENTRIES:
        return Finding("loss", "note", f"{len(losses)} entries in the log", "too early to say: train on")
    size = max(len(losses) // 5, 2)
    recent, before = np.median(losses[-size:]), np.median(losses[-2 * size : -size])
    lowest = min(np.median(losses[start : start + size]) for start in range(len(losses) - size + 1))
    text = (
        f"training {recent:.4g} nats a frame, at first {np.median(losses[:size]):.4g}, at best {lowest:.4g}"
    )
    if valid:
        text += f"; validation {valid[-1]:.4g}, at best {min(valid):.4g}"
    if recent > _WORST_RISE * lowest:
        advice = "lower --learning-rate and set --clip-norm or a clip_factor; --resume goes on from the last checkpoint"
        return Finding("loss", "bad", f"{text}: it is diverging", advice)
    if len(valid) > 2 and valid[-1] > _OVERFITTING * min(valid):
        advice = "the best checkpoint is kept and taken; more data or noise helps, more updates don't"
        return Finding("loss", "note", f"{text}: it learns its data by heart", advice)
    falls = recent < 0.98 * before
    return Finding("loss", "good", f"{text}: {'still falling' if falls else 'level'}")


@torch.no_grad()
@own_precision
def watch(trained: Trained, data: Path | None, split: Split, sequences: int, seed: int) -> Watched:
    """Lets a model watch sequences and imagine on, under their own actions and under others'.

    Raises:
        ConfigError: If the data doesn't suit the model, or the sequences are too short.
        DataError: If there is no such dataset.
    """
    given, groups = _read(trained, data, split, sequences)
    model, frames, how = trained.model, given.frames, given.how
    generator = torch_generator(seed, "doctor", device=trained.device)
    inputs = model.likelihood.noisy(frames[:, : how.context], how.noise, generator)
    state = model.initial_state(frames.shape[0], generator=generator)
    gammas: list[Tensor] = []
    targets = frames[:, 1 : how.context + 1]
    for _, after in observe(model, state, inputs, targets, given.actions):
        state = after
        gammas.append(after.gamma[:, :, 0])
    late = torch.stack(gammas[-5:], dim=1)
    shown = model.likelihood.foreground(targets[:, -late.shape[1] :])
    ari = None if groups is None else float(foreground_ari(late, groups[:, -late.shape[1] :]).mean())
    sharpness, used = _sharpness(late, shown)
    losses, mass = _dream(trained, given, state, given.actions, seed)
    obeyed, error = None, 0.0
    actions = given.actions
    if actions is not None and bool((actions != actions.roll(1, dims=0)).any()):
        others, _ = _dream(trained, given, state, actions.roll(1, dims=0), seed)
        obeyed = float(others.mean() / losses.mean())
        error = float((others - losses).std() / math.sqrt(len(losses)) / losses.mean())
    return Watched(ari, sharpness, used, late.shape[2], obeyed, error, mass)


def _read(
    trained: Trained, data: Path | None, split: Split, sequences: int
) -> tuple[RolloutInput, Tensor | None]:
    """Reads frames and actions, and the objects in the frames watched, (b, context, h, w), where they are known."""
    with Dataset.open(trained.data(data)) as dataset:
        info = dataset.info(split)
        count = min(sequences, info.number_of_sequences)
        lengths = [length for length in _LENGTHS if sum(length) < info.number_of_frames] or _LENGTHS[-1:]
        for context, horizon in lengths:  # as much as episodes last for
            try:
                given = rollout_input(
                    trained, data, split=split, count=count, context=context, horizon=horizon
                )
            except DataError:
                if (context, horizon) == lengths[-1]:
                    raise
                continue
            if given.lasts is None or bool(given.lasts.all()):
                break
        if "groups" not in info.arrays:
            return given, None
        read = read_batch(dataset, split, given.sequences, context + 1, ["groups"], given.begins)
    groups = read.groups
    return given, None if groups is None else groups[:, 1:].to(trained.device)


def _sharpness(gammas: Tensor, shown: Tensor) -> tuple[float, float]:
    """Tells how sharply pixels are shared out, and among how many slots.

    Args:
        gammas: Float (b, t, k, h, w).
        shown: Bool (b, t, h, w), pixels that show something.
    """
    parts = gammas / gammas.sum(dim=2, keepdim=True).clamp_min(1e-9)
    weights = shown.float()
    largest = (parts.amax(dim=2) * weights).sum() / weights.sum().clamp_min(1.0)
    masses = (parts * weights[:, :, None]).sum(dim=(3, 4))
    shares = masses / masses.sum(dim=2, keepdim=True).clamp_min(1e-9)
    entropy = -(shares * shares.clamp_min(1e-9).log()).sum(dim=2)
    return float(largest), float(entropy.exp().mean())


def _dream(
    trained: Trained, given: RolloutInput, state: SlotState, actions: Tensor | None, seed: int
) -> tuple[Tensor, float | None]:
    """Imagines on; gives the loss (b,) of the first imagined frames, and how much of what is shown is left."""
    model, how, likelihood = trained.model, given.how, trained.model.likelihood
    future = None if actions is None else actions[:, how.context :]
    generator = torch_generator(seed, "dream", device=trained.device)
    losses: list[Tensor] = []
    truth = given.frames[:, how.context + 1 :]
    drawn = truth[:, 0]
    dream = imagine(
        model, state, how.horizon, future, how.imagination, how.noise, generator, given.frames[:, how.context]
    )
    for step, (_, transition, _) in enumerate(dream):
        drawn = likelihood.own_frame(transition.prediction)
        if step < _OBEYS:
            losses.append(likelihood.frame_loss(likelihood.soft_frame(transition.prediction), truth[:, step]))
    there = likelihood.foreground(truth[:, how.horizon - 1]).sum()
    mass = float(likelihood.foreground(drawn).sum() / there) if there else None
    return torch.stack(losses).mean(dim=0), mass


def judge_binding(watched: Watched, updates: int | None) -> Finding:
    """Judges whether each object has a slot; by the truth where it is known, else by how sharp slots are."""
    used = f"{watched.slots_used:.1f} of {watched.slots} slots have objects"
    if watched.slots == 1:
        return Finding("binding", "note", "one slot has all: there is nothing to bind", "")
    if watched.fg_ari is not None:
        text = f"FG-ARI {watched.fg_ari:.3f} ({used})"
        good, poor = watched.fg_ari >= GOOD_ARI, watched.fg_ari < POOR_ARI
    else:
        text = f"pixels are their slot's to {watched.sharpness:.3f}, the truth isn't known ({used})"
        good = watched.sharpness >= SHARP and watched.slots_used >= 1.5
        poor = watched.sharpness < BLURRED or watched.slots_used < 1.2
    if good:
        return Finding("binding", "good", text)
    if updates is not None and updates < PLATEAU_UPDATES:
        return Finding(
            "binding", "note", f"{text}, after {updates} updates", "too early to say: ask after 500"
        )
    return Finding("binding", "bad" if poor else "note", text, _BINDING_ADVICE)


def judge_actions(watched: Watched, trained: Trained, updates: int | None) -> Finding:
    """Judges whether imagined frames depend on the actions, and in the right way."""
    if not trained.config.model.takes_actions:
        advice = "train with --feed-actions or --world-model on data with actions, if there is a player"
        return Finding("actions", "note", "the model takes none", advice)
    if watched.obeyed is None:
        return Finding("actions", "note", "all sequences have the same actions", "collect data with others")
    text = (
        f"under others' actions frames cost {watched.obeyed:.2f} +- {watched.obeyed_error:.2f} times as much"
    )
    if watched.obeyed > 1.0 + max(0.02, 2.0 * watched.obeyed_error):
        return Finding("actions", "good", f"obeyed: {text}")
    if updates is not None and updates < PLATEAU_UPDATES:
        return Finding("actions", "note", text, "too early to say: ask after 500 updates")
    advice = (
        "train on; see that actions line up with frames (`rnem-world data check`, docs/data.md), that they are "
        "random and held for some steps, and that the player is large enough to matter"
    )
    return Finding("actions", "bad", f"not obeyed: {text}", advice)


def judge_dreams(watched: Watched, trained: Trained) -> Finding:
    """Judges whether what is shown vanishes or multiplies in dreams."""
    if watched.mass_left is None:
        return Finding("dreams", "note", "the true frames show nothing at their end", "")
    text = f"in the end they show {watched.mass_left:.2f} times as much as the real frames"
    if 0.7 <= watched.mass_left <= 1.4:
        return Finding("dreams", "good", text)
    if not trained.config.model.is_world_model:
        advice = "models of the paper fade: train one to dream in, with --world-model (docs/world-model.md)"
    elif trained.config.training.closed_loop.fraction == 0.0:
        advice = "fine-tune on own frames: training.closed_loop.fraction in the file of --config (docs/world-model.md)"
    else:
        advice = "train on: own frames come late in training, and help for as long as they are many"
    return Finding("dreams", "note", text, advice)

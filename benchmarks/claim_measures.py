"""What the paper claims of its models, measured: predictions of the next frame, and what they imagine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rnem_world.api import Trained, evaluate
from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import Split
from rnem_world.evaluation.imagination import evaluate_imagination
from rnem_world.evaluation.truth import read_truth
from rnem_world.models.rollout import Imagination, RolloutConfig
from rnem_world.seeding import torch_generator

STEPS = 30
"""Predictions in a sequence; the last ten, from frame 20 on, are reported."""
CONTEXT, HORIZON = 15, 20
"""Frames that are watched, and imagined after them."""


@dataclass(frozen=True)
class Watching:
    """A model that watches balls, which is what is measured.

    Attributes:
        trained: The model.
        data: The balls.
        split: Which part of them.
        sequences: How many.
        slots: Number of slots.
    """

    trained: Trained
    data: Path
    split: Split
    sequences: int
    slots: int


def prediction(watching: Watching, noise: float = 0.0) -> dict[str, Any]:
    """Measures predictions of the next frame.

    Args:
        watching: Which model, and what it watches.
        noise: Probability that an input pixel is flipped.

    Returns:
        Over the last steps ``plain_bce`` (nats a frame), ``relational`` (likewise, where balls touch) and ``ari``;
        ``curve``, the plain BCE of each step.
    """
    found = evaluate(
        watching.trained,
        watching.data,
        split=watching.split,
        sequences=watching.sequences,
        slots=watching.slots,
        steps=STEPS,
        noise=noise,
        ami_sequences=0,
    )
    return {
        "plain_bce": found.scores["last_plain_bce"],
        "relational": found.losses["relational"]["last_total"],
        "ari": found.scores["last_fg_ari"],
        "curve": found.curves["plain_bce"],
    }


def closed_loop(watching: Watching, imagination: Imagination) -> dict[str, Any]:
    """Measures what a model imagines from its own frames.

    Args:
        watching: Which model, and what it watches.
        imagination: ``pixels``, its own frame made hard, or ``soft``, the original's sum of gamma times prediction.

    Returns:
        Lists with an entry for each imagined frame: ``position`` and ``constant_velocity``, errors in radii, and
        ``alive``, part of the balls whose slot has still their mass, where there are slots to match; and
        ``foreground_iou`` of the frame.
    """
    trained, slots = watching.trained, watching.slots
    with Dataset.open(watching.data) as dataset:
        truth = read_truth(dataset, watching.split, watching.sequences, CONTEXT + HORIZON + 1, trained.device)
    if slots == 1:  # which can't be matched to balls
        truth = replace(truth, objects=None)
    figures = evaluate_imagination(
        trained.model,
        truth,
        RolloutConfig(CONTEXT, HORIZON, imagination, slots=slots),
        torch_generator(0, "closed loop", device=trained.device),
    )
    found: dict[str, Any] = {"foreground_iou": figures.frames.foreground_iou}
    if figures.objects is not None:
        found["position"] = figures.objects.position_errors
        found["constant_velocity"] = figures.objects.constant_velocity_errors
        found["alive"] = figures.objects.alive
    return found

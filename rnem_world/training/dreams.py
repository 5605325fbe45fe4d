"""Watching a world model learn what its dreams pay: rewards and ends of a few dreams at every validation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from rnem_world.data.dataset import Dataset
from rnem_world.data.episodes import usual_context
from rnem_world.evaluation.imagination import evaluate_imagination
from rnem_world.evaluation.imagination_figures import ImaginationFigures
from rnem_world.evaluation.truth import read_truth
from rnem_world.models.rollout import Imagination, RolloutConfig
from rnem_world.models.world_model import WorldModel
from rnem_world.seeding import torch_generator
from rnem_world.training.config import TrainingConfig

SEQUENCES, CONTEXT, HORIZON = 64, 16, 10
"""So many dreams of so many frames are measured, after so many real ones where episodes aren't shorter."""


def measure_dreams(
    model: WorldModel, dataset: Dataset, options: TrainingConfig, device: torch.device
) -> ImaginationFigures | None:
    """Measures dreams of the first validation sequences, always the same ones.

    Args:
        model: The model.
        dataset: Its data.
        options: How it is trained.
        device: Where it is.

    Returns:
        None for a model without heads, and where sequences tell no rewards or are too short.
    """
    info = dataset.info("validation")
    context = usual_context(dataset) or CONTEXT
    needed = context + HORIZON
    if model.heads is None or "rewards" not in info.arrays or info.number_of_frames < needed or context < 3:
        return None
    # Objects are of no concern here, and a model may have fewer slots.
    truth = read_truth(dataset, "validation", SEQUENCES, needed, device, context, with_objects=False)
    truth = replace(truth, lane=None)
    way: Imagination = "pixels" if model.prior_code is None else "latent"
    how = RolloutConfig(context - 1, HORIZON, way, options.noise.usual_strength)
    was_training = model.training
    try:
        generator = torch_generator(options.seed, "dreams", device=device)
        return evaluate_imagination(model.eval(), truth, how, generator)
    finally:
        model.train(was_training)


def logged_figures(figures: ImaginationFigures) -> dict[str, Any]:
    """Gives what is logged of them: how well rewards and ends are told."""
    return {**vars(figures.rewards), **vars(figures.ends)}

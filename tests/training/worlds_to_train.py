"""A small world model with everything that training has: chunks, closed loops, heads, actions, clipping."""

from __future__ import annotations

from typing import Any

from rnem_world.models.config import ModelConfig
from rnem_world.training.config import (
    ClosedLoopConfig,
    NoiseConfig,
    OptimizerConfig,
    PriorCodeConfig,
    RunConfig,
    TrainingConfig,
)

STEPS, SIZE = 6, 4
MODEL = ModelConfig(
    architecture="projection32",
    slots=3,
    hidden_size=16,
    attention_size=8,
    number_of_actions=9,
    slot_inputs="error_frame_motion",
    theta_update="gated",
    heads=True,
    prior_code=True,
)


def run_config(**options: Any) -> RunConfig:
    """A run whose batches make 3 updates each, on data of the preset `avoid`."""
    training = {
        "sequence_steps": STEPS,
        "chunk_steps": 2,
        "cold_start_steps": 1,
        "window": "random",
        "batch_size": SIZE,
        "noise": NoiseConfig(per_sequence=True),
        "closed_loop": ClosedLoopConfig(0.7, 2, 3, latent_fraction=0.5),
        "prior_code": PriorCodeConfig(
            0.25, 2, after_updates=2
        ),  # one sequence of the batch, so of one process
        # Plain gradient descent, since Adam's first steps make much of rounding.
        "optimizer": OptimizerConfig("momentum", 1e-5, clip_factor=1.05, warm_up_updates=3),
        "epochs": 100,
        "patience": 100,
        "score_every": 1,
        "seed": 6,
        **options,
    }
    return RunConfig(MODEL, TrainingConfig(**training))

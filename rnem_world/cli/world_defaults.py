"""What ``train --world-model`` and ``train --env atari`` mean: options, data, and what follows from the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

# What a model needs to dream in, beyond the paper; each is an option of its own, see docs/world-model.md.
WORLD_MODEL: dict[str, Any] = {
    "model": {
        "hidden_size": 128,
        "attention_size": 64,
        "slot_inputs": "error_frame_motion",
        "theta_update": "gated",
        "heads": True,
        "prior_code": True,
    },
    "training": {
        "sequence_steps": 72,
        "chunk_steps": 12,
        "cold_start_steps": 5,
        "window": "random",
        "batch_size": 32,
        "valid_size": 200,
        "patience": 100,
        "noise": {"per_sequence": True},
        "closed_loop": {"fraction": 0.3, "steps": 2, "after_updates": 3000, "latent_fraction": 0.5},
        "prior_code": {"after_updates": 3000},
        "optimizer": {"clip_factor": 2.0},
    },
}
WORLD_DATA = {"num_train": 8000, "num_valid": 500, "num_test": 500, "frames": 101}

ENVIRONMENTS = ("balls", "atari")
GAME = "SpaceInvaders"

# The paper's options for Atari (`enc_dec_84_atari`, which follows from the size of the frames) ...
ATARI: dict[str, Any] = {
    "model": {"slots": 4},
    "training": {
        "sequence_steps": 25,
        "batch_size": 32,
        "window": "random",
        "noise": {"probability": 0.002},
    },
}
# ... and what a world model of a game takes instead of the balls'.
ATARI_WORLD: dict[str, Any] = {
    "model": {"slots": 4},
    "training": {
        "sequence_steps": 48,
        "chunk_steps": 12,
        "batch_size": 16,
        "loss": {"motion_weight": 5.0},
        "noise": {"probability": 0.002, "per_sequence": True},
        "closed_loop": {"after_updates": 8000},
        "prior_code": {"after_updates": 8000},
    },
}


def usual_for(environment: str, world_model: bool, slots: int) -> dict[str, Any]:
    """Gives the options of a kind of run, where they differ from those of the configuration's classes.

    Args:
        environment: One of `ENVIRONMENTS`.
        world_model: Whether to train a world model.
        slots: The number of slots of the model; one stays one.
    """
    from rnem_world.cli.options import merged

    values = WORLD_MODEL if world_model else {}
    if environment == "atari":
        values = merged(values, ATARI_WORLD if world_model else ATARI)
        if slots == 1:
            values = merged(values, {"model": {"slots": 1}})
    return values


class Suited(NamedTuple):
    """What a world model takes from a dataset.

    Attributes:
        architecture: The world models' own for frames of that size, None if there is none.
        has_actions: Whether it can be told actions.
        has_rewards: Whether it can learn rewards.
    """

    architecture: str | None
    has_actions: bool
    has_rewards: bool


def suited_to(data: Path) -> Suited:
    """Looks at the training split of a dataset.

    Raises:
        DataError: If there is none.
    """
    from rnem_world.data.dataset import Dataset
    from rnem_world.models.config import ARCHITECTURES

    with Dataset.open(data) as dataset:
        info = dataset.info("training")
    name = f"projection{info.height}"
    return Suited(
        name if name in ARCHITECTURES else None, info.number_of_actions is not None, "rewards" in info.arrays
    )

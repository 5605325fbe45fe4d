"""What ``rnem-world train --world-model`` means: options, data, and what follows from the data."""

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
        "closed_loop": {"fraction": 0.3, "steps": 2, "after_updates": 3000},
        "prior_code": {"after_updates": 3000},
        "optimizer": {"clip_factor": 2.0},
    },
}
WORLD_DATA = {"num_train": 8000, "num_valid": 500, "num_test": 500, "frames": 101}


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

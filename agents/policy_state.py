"""What a policy's training goes on from: weights, optimizer, random generators, and DQN's replay buffer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm

from rnem_world.agents.policy_folder import (
    CONFIG_FILE,
    last_checkpoint,
    read_trainer,
    read_weights,
    write_checkpoint,
)
from rnem_world.errors import CheckpointError

_REPLAY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def save_training(model: BaseAlgorithm, folder: Path, keep: int) -> None:
    """Writes a checkpoint.

    Args:
        model: The algorithm.
        folder: The policy's folder.
        keep: How many checkpoints stay there.

    Raises:
        OutputError: If it can't be written.
    """
    keys: Any = np.random.get_state(legacy=True)  # noqa: NPY002
    trainer = {
        "steps": model.num_timesteps,
        "updates": model._n_updates,
        "optimizer": model.policy.optimizer.state_dict(),
        "torch_generator": torch.get_rng_state(),
        "numpy_keys": torch.from_numpy(np.asarray(keys[1]).astype(np.int64)),
        "numpy_rest": [int(keys[2]), int(keys[3]), float(keys[4])],
    }
    write_checkpoint(folder, model.num_timesteps, model.policy.state_dict(), trainer, _replay(model), keep)


def restore_training(model: BaseAlgorithm, folder: Path) -> None:
    """Goes on from the last checkpoint.

    Args:
        model: The algorithm, as new.
        folder: The policy's folder.

    Raises:
        CheckpointError: If there is none, or it doesn't fit the algorithm.
    """
    checkpoint = last_checkpoint(folder)
    trainer, replay = read_trainer(checkpoint)
    try:
        model.policy.load_state_dict(read_weights(checkpoint))
        model.policy.optimizer.load_state_dict(trainer["optimizer"])
        model.num_timesteps = trainer["steps"]
        model._n_updates = trainer["updates"]
        if replay is not None:
            buffer = _buffer(model)
            for name in _REPLAY:
                getattr(buffer, name)[: len(replay[name])] = replay[name]
            buffer.pos, buffer.full = int(replay["position"]), bool(replay["full"])
        torch.set_rng_state(trainer["torch_generator"])
        keys = trainer["numpy_keys"].numpy().astype(np.uint32)
        np.random.set_state(("MT19937", keys, *trainer["numpy_rest"]))  # noqa: NPY002
    except (RuntimeError, KeyError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{checkpoint} doesn't fit {folder / CONFIG_FILE}: {str(error).splitlines()[0]}"
        ) from error


def _buffer(model: BaseAlgorithm) -> Any:
    return getattr(model, "replay_buffer", None)


def _replay(model: BaseAlgorithm) -> dict[str, NDArray[Any]] | None:
    buffer = _buffer(model)
    if buffer is None:
        return None
    filled = buffer.buffer_size if buffer.full else buffer.pos
    arrays = {name: getattr(buffer, name)[:filled] for name in _REPLAY}
    return arrays | {"position": np.asarray(buffer.pos), "full": np.asarray(buffer.full)}

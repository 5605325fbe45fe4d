"""What a policy is: what it is trained with, what it sees and does, and the folder that holds it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from rnem_world.agents.config import CONFIG_FILE, FORMER_WIDTH, PolicyConfig, moved, with_paths
from rnem_world.config import build
from rnem_world.errors import CheckpointError
from rnem_world.io import atomic_folder, remove_folder, write_json

CHECKPOINTS = "checkpoints"
WEIGHTS_FILE, TRAINER_FILE, REPLAY_FILE = "policy.safetensors", "trainer.pt", "replay.npz"
_NAME = re.compile(r"step-\d+")

Space = spaces.Space[Any]


def shows_frames(space: Space) -> bool:
    """Tells whether observations are frames of bytes, (h, w, c) or (c, h, w)."""
    return isinstance(space, spaces.Box) and len(space.shape) == 3 and space.dtype == np.uint8


def channels_first(space: Space) -> bool:
    """Tells whether frames are (c, h, w) and not (h, w, c), as stable-baselines3 does: channels are the fewest."""
    return shows_frames(space) and int(np.argmin(space.shape or ())) == 0


def shows_slots(space: Space) -> bool:
    """Tells whether observations are slots (k, d)."""
    is_matrix = isinstance(space, spaces.Box) and len(space.shape) == 2
    return is_matrix and np.issubdtype(space.dtype, np.floating)


def describe_spaces(observation_space: Space, action_space: Space) -> dict[str, Any]:
    """Describes spaces for a policy's configuration: two that differ in this need different policies."""
    shapes, dtypes = _shapes_and_dtypes(observation_space)
    return {
        "observations": shapes,
        "dtype": dtypes,
        "actions": int(action_space.n) if isinstance(action_space, spaces.Discrete) else str(action_space),
    }


def _shapes_and_dtypes(space: Space) -> tuple[Any, Any]:
    """Describes observations, by name where they have any."""
    if isinstance(space, spaces.Dict):
        parts = {name: _shapes_and_dtypes(part) for name, part in space.spaces.items()}
        return {name: part[0] for name, part in parts.items()}, {
            name: part[1] for name, part in parts.items()
        }
    return list(space.shape or ()), str(space.dtype)


def saw_slots(trained: Mapping[str, Any]) -> bool:
    """Tells by a policy's description of spaces whether it was trained on slots."""
    shape = trained.get("observations")
    return isinstance(shape, list) and len(shape) == 2 and "float" in str(trained.get("dtype", "float"))


def check_policy_spaces(
    folder: Path, trained: dict[str, Any], observation_space: Space, action_space: Space
) -> None:
    """Refuses a policy that was trained for another world.

    Raises:
        CheckpointError: If it sees or does something else.
    """
    given = describe_spaces(observation_space, action_space)
    names = {"actions": "actions", "observations": "observations of the shape", "dtype": "dtype"}
    for name, what in names.items():
        before, now = trained.get(name, []), given[name]
        # The number of slots may differ: they are seen as a set.
        are_sets = name == "observations" and shows_slots(observation_space) and isinstance(before, list)
        if before != now and not (are_sets and before[1:] == now[1:]):
            raise CheckpointError(
                f"the agent {folder} was trained with {what} {before}, and the environment has {now}: "
                "evaluate it in the world that it was trained for"
            )


def write_policy_config(folder: Path, config: PolicyConfig, spaces: Mapping[str, Any]) -> None:
    """Writes what a policy is trained with, and what it sees and does.

    Raises:
        OutputError: If it can't be written.
    """
    values = {**asdict(config), "spaces": dict(spaces), "folder": str(folder.absolute())}
    write_json(folder / CONFIG_FILE, values)


def read_policy_config(folder: Path) -> tuple[PolicyConfig, dict[str, Any]]:
    """Reads the configuration of a policy, and the spaces that it was trained in.

    Paths in it that aren't there any more are looked for beside the folder, which may have been moved with them.

    Raises:
        CheckpointError: If there is none, or it is broken.
    """
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text())
        spaces, before = values.pop("spaces"), values.pop("folder", None)
        config = build(PolicyConfig, {"slot_width": FORMER_WIDTH, **values})
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} holds no agent (no {CONFIG_FILE}): give the folder of `rnem-world agent train`"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is broken: {error}") from error
    if before is not None:
        find = partial(moved, before=str(before), now=folder)
        options = with_paths(config.env, config.env_options, find)
        config = replace(config, slots_of=find(config.slots_of), env_options=options)
    return config, dict(spaces)


def checkpoints_of(folder: Path) -> list[Path]:
    """Lists a policy's checkpoints, the oldest first."""
    return sorted(path for path in (folder / CHECKPOINTS).glob("step-*") if _NAME.fullmatch(path.name))


def last_checkpoint(folder: Path) -> Path:
    """Finds the newest checkpoint.

    Raises:
        CheckpointError: If there is none.
    """
    found = checkpoints_of(folder)
    if not found:
        raise CheckpointError(f"{folder} holds no checkpoint yet (no {CHECKPOINTS}/step-*): train it first")
    return found[-1]


def write_policy_checkpoint(
    folder: Path,
    steps: int,
    weights: Mapping[str, Tensor],
    trainer: Mapping[str, Any],
    replay: Mapping[str, NDArray[Any]] | None,
    keep: int,
) -> None:
    """Writes a checkpoint and removes old ones.

    Args:
        folder: The policy's folder.
        steps: Steps that the policy has been trained for.
        weights: The policy's weights.
        trainer: What else resuming needs: plain values and tensors.
        replay: The replay buffer, for algorithms that have one.
        keep: How many checkpoints to keep.

    Raises:
        OutputError: If it can't be written.
    """
    place = folder / CHECKPOINTS / f"step-{steps:012d}"
    with atomic_folder(place) as temporary:
        save_file(
            {name: value.detach().cpu().clone() for name, value in weights.items()}, temporary / WEIGHTS_FILE
        )
        torch.save(dict(trainer), temporary / TRAINER_FILE)
        if replay is not None:
            np.savez(temporary / REPLAY_FILE, **dict(replay))  # type: ignore[arg-type]
    for old in checkpoints_of(folder)[:-keep]:
        remove_folder(old)


def read_policy_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Reads a policy's weights.

    Raises:
        CheckpointError: If they are missing or broken.
    """
    try:
        return load_file(checkpoint / WEIGHTS_FILE)
    except Exception as error:  # safetensors has kinds of its own
        raise CheckpointError(f"{checkpoint / WEIGHTS_FILE} can't be read: {error}") from error


def read_trainer(checkpoint: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]] | None]:
    """Reads what resuming needs beside the weights.

    Raises:
        CheckpointError: If it is missing or broken.
    """
    replay: dict[str, NDArray[Any]] | None = None
    try:
        trainer = torch.load(checkpoint / TRAINER_FILE, map_location="cpu", weights_only=True)
        if (checkpoint / REPLAY_FILE).exists():
            with np.load(checkpoint / REPLAY_FILE, allow_pickle=False) as arrays:
                replay = {name: arrays[name] for name in arrays.files}
    except Exception as error:  # torch, zipfile and NumPy raise errors of many kinds
        raise CheckpointError(f"{checkpoint} can't be resumed: {error}") from error
    return trainer, replay

"""Recorded streams of short episodes, for the tests of whatever must not cross a reset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rnem_world.actions import ActionSpace
from rnem_world.data.schema import DatasetAttributes
from rnem_world.data.writer import write_shard
from tests.conftest import moving_discs


def marks(lengths: list[int], frames: int, truncated: bool = False) -> dict[str, np.ndarray]:
    """What a sequence of episodes of so many frames says of them; the last may go on beyond it."""
    first, ended = np.zeros(frames, np.bool_), np.zeros(frames, np.bool_)
    begin = 0
    for length in lengths:
        first[begin] = True
        if begin + length <= frames:
            ended[begin + length - 2] = True
        begin += length
    nothing = np.zeros_like(ended)
    return {
        "is_first": first,
        "terminations": nothing if truncated else ended,
        "truncations": ended if truncated else nothing,
    }


def write_streams(
    path: Path,
    length: int = 11,
    frames: int = 40,
    actions: ActionSpace | None = None,
    sizes: dict[str, int] | None = None,
    offset: int = 0,
) -> Path:
    """Writes discs that move in episodes of so many frames; sequence i begins offset + i frames into an episode."""
    actions = ActionSpace.discrete(3) if actions is None else actions
    splits: dict[Any, Any] = {}
    for seed, (split, n) in enumerate((sizes or {"training": 12, "validation": 6, "test": 6}).items()):
        generator = np.random.default_rng(seed)
        episodes = moving_discs(n, frames, 32, seed, None)
        number = ((frames + n + offset) // length + 1) * length
        whole = marks([length] * (number // length), number)
        each = [
            {name: array[row : row + frames] for name, array in whole.items()}
            for row in range(offset, offset + n)
        ]
        if actions.kind == "box":
            done = generator.uniform(-1, 1, (frames, n, actions.length)).astype(np.float32)
        else:
            done = generator.integers(0, actions.sizes, (frames, n, actions.length))
        if actions.is_discrete:
            done = done[..., 0]
        splits[split] = replace(
            episodes,
            groups=None,
            collisions=None,
            actions=done,
            rewards=(generator.random((frames, n)) < 0.2).astype(np.float32),
            **{name: np.stack([part[name] for part in each], axis=1) for name in whole},
        )
    numbers = actions.sizes[0] if actions.is_discrete else None
    attributes = DatasetAttributes("Discs-v0", {}, 0, number_of_actions=numbers, action_space=actions)
    write_shard(path, splits, attributes)
    return path

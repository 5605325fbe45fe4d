"""Sequences of random discs, made without the physics package."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from rnem_world.data.schema import DatasetAttributes, EpisodeBatch

ACTIONS = 5
ATTRIBUTES = DatasetAttributes(
    environment_id="Discs-v0", settings={"radius": 3, "sizes": [1, 2]}, seed=3, number_of_actions=ACTIONS
)


def discs(
    n: int, t: int = 6, size: int = 12, seed: int = 0, channels: int = 1, maximum: int = 1
) -> EpisodeBatch:
    """Makes n sequences of t frames with three discs, and every array that a split may hold."""
    generator = np.random.default_rng(seed)
    centres = generator.uniform(2, size - 2, (t, n, 3, 2)).astype(np.float32)
    axis = np.arange(size) + 0.5
    distance = (axis[:, None] - centres[..., 0, None, None]) ** 2 + (axis - centres[..., 1, None, None]) ** 2
    groups = ((distance <= 6) * np.arange(1, 4)[:, None, None]).max(axis=2).astype(np.uint8)[..., None]
    mask = np.repeat(groups > 0, channels, axis=-1).astype(np.uint8)
    features = mask if maximum == 1 else (mask * generator.integers(1, 256, mask.shape)).astype(np.uint8)
    ends = generator.random((t, n)) < 0.2
    ends[:-2] = False  # an episode a sequence
    return EpisodeBatch(
        features=features,
        groups=groups,
        collisions=np.repeat(groups == 2, channels, axis=-1).astype(np.uint8),
        events=(groups == 2).any(axis=(2, 3, 4), keepdims=True).astype(np.uint8),
        actions=generator.integers(0, ACTIONS, (t, n)),
        rewards=generator.normal(size=(t, n)).astype(np.float32),
        terminations=ends,
        truncations=np.zeros_like(ends),
        is_first=np.zeros_like(ends),
        seeds=generator.integers(0, 2**63, (t, n), np.uint64),
        lives=generator.integers(0, 4, (t, n), np.uint8),
        positions=centres,
        velocities=generator.normal(size=centres.shape).astype(np.float32),
    )


def original_file(path: Path, episodes: EpisodeBatch, kind: str, with_actions: bool = False) -> Path:
    """Writes the layout of the original program: no attributes, h5py's own chunks, bool or float arrays."""
    features = episodes.features.astype({"bool": bool, "float": np.float32}[kind])
    with h5py.File(path, "w") as file:
        for split in ("training", "test"):
            group = file.create_group(split)
            group.create_dataset("features", data=features, chunks=True, compression="gzip")
            if episodes.groups is not None:
                group.create_dataset("groups", data=episodes.groups.astype(np.float32), chunks=True)
            if with_actions and episodes.actions is not None:
                group.create_dataset("actions", data=np.eye(ACTIONS, dtype=np.float32)[episodes.actions])
                group.create_dataset("events", data=np.asarray(episodes.events, np.float32))
            else:
                group.create_dataset("collisions", data=np.asarray(episodes.collisions, np.float32))
    return path


def break_file(path: Path, name: str = "features", row: int = 0) -> None:
    """Overwrites one compressed chunk with other bytes."""
    with h5py.File(path) as file:
        array = file["training"][name]
        place = array.id.get_chunk_info_by_coord((0, row) + (0,) * (array.ndim - 2))
    with open(path, "r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\xff" * place.size)

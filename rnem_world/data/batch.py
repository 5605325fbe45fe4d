"""A batch of windows as the model takes it: torch tensors, batch first, channels before height and width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from rnem_world.data.dataset import Dataset, SplitInfo
from rnem_world.data.schema import ARRAYS
from rnem_world.errors import DataError
from rnem_world.types import Split

Array = NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """Windows of sequences.

    ``actions[:, t]`` turns frame t into frame t+1; ``rewards[:, t]``, ``terminations[:, t]`` and
    ``collisions[:, t]`` belong to that same transition.

    Attributes:
        frames: The frames, 0..maximum_value.
        indices: Which sequences of the split they are.
        groups: Which object a pixel belongs to, 0 for the background.
        collisions: 1 where an object is touching another; (b, t, 1, 1, 1) if the dataset has only
            whole events.
        actions: Numbers of actions.
        rewards: Rewards.
        terminations: Whether the transition ends the episode.
        lives: The lives that are left.
        positions: The balls' centres in units of the box.
        velocities: The balls' velocities in units a frame.
        maximum_value: 1 for binary frames, 255 for others.
    """

    frames: UInt8[Tensor, "b t c h w"]
    indices: Int64[Tensor, " b"]
    groups: UInt8[Tensor, "b t h w"] | None = None
    collisions: UInt8[Tensor, "b t #c #h #w"] | None = None
    actions: Int64[Tensor, "b t"] | None = None
    rewards: Float32[Tensor, "b t"] | None = None
    terminations: Bool[Tensor, "b t"] | None = None
    lives: UInt8[Tensor, "b t"] | None = None
    positions: Float32[Tensor, "b t n 2"] | None = None
    velocities: Float32[Tensor, "b t n 2"] | None = None
    maximum_value: int = 1

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Returns the batch with all its tensors on ``device``."""
        moved: dict[str, Any] = {
            entry.name: value.to(device, non_blocking=non_blocking)
            for entry in fields(self)
            if isinstance(value := getattr(self, entry.name), Tensor)
        }
        return replace(self, **moved)


def read_batch(
    dataset: Dataset,
    split: Split,
    indices: Sequence[int],
    number_of_frames: int | None = None,
    start: int | Sequence[int] = 0,
    arrays: Iterable[str] | None = None,
) -> Batch:
    """Reads chosen sequences, without a loader.

    Args:
        dataset: The dataset.
        split: Its split.
        indices: Which sequences.
        number_of_frames: The length of the windows; up to the end if None.
        start: The first frame, one for all or one for each.
        arrays: Which arrays besides the frames; all if None.

    Raises:
        DataError: If something isn't there or is damaged.
    """
    names = select_arrays(dataset, split, arrays)
    read = dataset.read(split, indices, names, start, number_of_frames)
    ordered = {name: batch_first(name, array) for name, array in read.items()}
    return make_batch(ordered, np.asarray(indices, dtype=np.int64), dataset.attributes.maximum_value)


def select_arrays(dataset: Dataset, split: Split, arrays: Iterable[str] | None) -> tuple[str, ...]:
    """Lists the arrays to read: the frames, and those asked for or, without a wish, all that make sense.

    Raises:
        DataError: If one that was asked for is missing.
    """
    if arrays is None:
        there = dataset.info(split).arrays
        return tuple(name for name in there if not (name == "events" and "collisions" in there))
    wanted = {"features", *arrays}
    dataset.require(split, sorted(wanted))
    if {"collisions", "events"} <= wanted:
        raise DataError("collisions and events were both asked for; a batch holds one of them")
    return tuple(name for name in ARRAYS if name in wanted)


def batch_first(name: str, array: Array) -> Array:
    """Turns a time-first array into (b, t, ...): images into (b, t, c, h, w), groups into (b, t, h, w)."""
    if name == "groups":
        return np.ascontiguousarray(np.moveaxis(array[..., 0], 1, 0))
    if ARRAYS[name].rank == 5:
        return np.ascontiguousarray(array.transpose(1, 0, 4, 2, 3))
    return np.ascontiguousarray(np.moveaxis(array, 1, 0))


def batch_shape(name: str, info: SplitInfo, stored_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of one frame of an array as a batch holds it."""
    if name in ("features", "collisions"):
        return (info.channels, info.height, info.width)
    if name == "groups":
        return (info.height, info.width)
    return () if name == "actions" else stored_shape[2:]


def make_batch(arrays: Mapping[str, Array], indices: Array, maximum_value: int) -> Batch:
    """Wraps batch-first arrays, named as in the schema, as tensors that share their memory."""
    names = {"features": "frames", "events": "collisions"}
    tensors: dict[str, Any] = {
        names.get(name, name): torch.from_numpy(array) for name, array in arrays.items()
    }
    return Batch(indices=torch.from_numpy(indices), maximum_value=maximum_value, **tensors)

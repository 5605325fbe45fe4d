"""Pieces of a split's sequences as arrays, batch first: out of the files, or out of a copy in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rnem_world.data.dataset import Dataset, SplitInfo
from rnem_world.data.schema import ARRAYS, Split, find_wrong_value
from rnem_world.errors import DataError

Array = NDArray[Any]

_BLOCK_BYTES = 2**26  # decoded bytes read at a time while a split is copied into memory


def select_arrays(dataset: Dataset, split: Split, arrays: Iterable[str] | None) -> tuple[str, ...]:
    """Lists the arrays to read: the frames, and those asked for or, without a wish, all that make sense.

    Raises:
        DataError: If one that was asked for is missing.
    """
    if arrays is None:
        there = dataset.info(split).arrays
        unwanted = {"seeds", *(["events"] if "collisions" in there else [])}
        return tuple(name for name in there if name not in unwanted)
    wanted = {"features", *arrays}
    if "seeds" in wanted:
        raise DataError("seeds were asked for, and no batch holds them: Dataset.read gives them")
    dataset.require(split, sorted(wanted))
    if {"collisions", "events"} <= wanted:
        raise DataError("collisions and events were both asked for; a batch holds one of them")
    return tuple(name for name in ARRAYS if name in wanted)


def fetch(
    dataset: Dataset, split: Split, arrays: Sequence[str], indices: Any, starts: Any, length: int | None
) -> dict[str, Array]:
    """Reads ``length`` frames from ``starts[i]`` on of each sequence ``indices[i]``, batch first.

    Raises:
        DataError: If a number is none that can be learned: infinite, or an action that doesn't exist.
    """
    read = dataset.read(split, indices, arrays, starts, length)
    for name, array in read.items():
        if name in ("actions", "rewards") and array.size:
            said = dataset.attributes
            wrong = find_wrong_value(name, array, said.number_of_actions, 255, said.action_space)
            if wrong is not None:
                frame = wrong.frame + int(np.broadcast_to(starts, np.shape(indices))[wrong.sequence])
                raise DataError(
                    f"{dataset.path}: {split}/{name}, sequence {indices[wrong.sequence]}, frame {frame}: is "
                    f"{wrong.value}, expected {wrong.expected}; mend the data (`rnem-world data check` looks through "
                    "all of it)"
                )
    return {name: _batch_first(name, array) for name, array in read.items()}


def _batch_first(name: str, array: Array) -> Array:
    """Turns a time-first array into (b, t, ...): images into (b, t, c, h, w), groups into (b, t, h, w)."""
    if name == "groups":
        return np.ascontiguousarray(np.moveaxis(array[..., 0], 1, 0))
    if array.ndim == 5:
        return np.ascontiguousarray(array.transpose(1, 0, 4, 2, 3))
    return np.ascontiguousarray(np.moveaxis(array, 1, 0))


def _batch_shape(name: str, info: SplitInfo, tail: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of one frame of an array as a batch holds it."""
    if name in ("features", "collisions"):
        return (info.channels, info.height, info.width)
    return (info.height, info.width) if name == "groups" else tail


class MemoryCopy:
    """The first sequences of a split in memory; arrays that are only 0 or 1 take a bit a pixel.

    Attributes:
        bytes_needed: How much memory it takes once it is filled.
    """

    def __init__(
        self, dataset: Dataset, split: Split, arrays: Sequence[str], number_of_sequences: int
    ) -> None:
        self._dataset, self._split = dataset, split
        info = dataset.info(split)
        binary = dataset.attributes.maximum_value == 1
        self._shapes = {name: _batch_shape(name, info, dataset.decoded_tail(split, name)) for name in arrays}
        self._dtypes = {name: dataset.schema(name).dtype for name in arrays}
        self._packed = {name for name in arrays if name == "collisions" or (name == "features" and binary)}
        self._rows, self._frames = number_of_sequences, info.number_of_frames
        self._arrays: dict[str, Array] = {}
        self.bytes_needed = (
            self._rows
            * self._frames
            * sum(int(np.prod(self._kept_shape(name))) * self._dtypes[name].itemsize for name in arrays)
        )

    def _kept_shape(self, name: str) -> tuple[int, ...]:
        shape = self._shapes[name]
        return (-(-int(np.prod(shape)) // 8),) if name in self._packed else shape

    def fill(self) -> None:
        """Reads the split, if that hasn't been done.

        Raises:
            DataError: If the files are damaged.
        """
        if self._arrays:
            return
        arrays = {
            name: np.empty((self._rows, self._frames, *self._kept_shape(name)), self._dtypes[name])
            for name in self._shapes
        }
        decoded = self._frames * sum(
            int(np.prod(shape)) * self._dtypes[name].itemsize for name, shape in self._shapes.items()
        )
        block = max(1, _BLOCK_BYTES // decoded)
        with tqdm(total=self._rows, desc=f"reading {self._split}", unit="seq", disable=None) as progress:
            for first in range(0, self._rows, block):
                rows = range(first, min(first + block, self._rows))
                for name, array in fetch(self._dataset, self._split, tuple(arrays), rows, 0, None).items():
                    if name in self._packed:
                        array = np.packbits(array.reshape(*array.shape[:2], -1), axis=-1)  # noqa: PLW2901
                    arrays[name][rows.start : rows.stop] = array
                progress.update(len(rows))
        self._arrays = arrays

    def fetch(self, indices: Array, starts: Array, length: int) -> dict[str, Array]:
        """Returns ``length`` frames from ``starts[i]`` on of each sequence ``indices[i]``, batch first."""
        frames = starts[:, None] + np.arange(length)
        windows = {name: array[indices[:, None], frames] for name, array in self._arrays.items()}
        for name in self._packed:
            shape = self._shapes[name]
            bits = np.unpackbits(windows[name], axis=-1, count=int(np.prod(shape)))
            windows[name] = bits.reshape(*bits.shape[:2], *shape)
        return windows

"""Where a loader takes its windows from: the files, or a copy of the split in memory, masks packed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rnem_world.data.batch import batch_first, batch_shape
from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import ARRAYS
from rnem_world.types import Split

Array = NDArray[Any]

_BLOCK_BYTES = 2**26  # decoded bytes read at a time while a split is copied into memory


class FileSource:
    """Reads windows from the files when they are asked for."""

    def __init__(self, dataset: Dataset, split: Split, arrays: Sequence[str]) -> None:
        self._dataset, self._split, self._arrays = dataset, split, arrays

    def fetch(self, indices: Array, starts: Array, length: int) -> dict[str, Array]:
        """Returns ``length`` frames from ``starts[i]`` on of each sequence ``indices[i]``, batch first."""
        read = self._dataset.read(self._split, indices, self._arrays, starts, length)
        return {name: batch_first(name, array) for name, array in read.items()}


class MemorySource:
    """Holds the first sequences of a split in memory; arrays that are only 0 or 1 take a bit a pixel.

    Raises:
        DataError: If the files are damaged.
    """

    def __init__(
        self, dataset: Dataset, split: Split, arrays: Sequence[str], number_of_sequences: int
    ) -> None:
        info, stored = dataset.info(split), dataset.stored(split)
        self._shapes = {name: batch_shape(name, info, stored[name].shape) for name in arrays}
        self._packed = {name: is_packed(name, dataset.attributes.maximum_value) for name in arrays}
        self._arrays = {
            name: np.empty(
                (number_of_sequences, info.number_of_frames, *self._stored_shape(name)), ARRAYS[name].dtype
            )
            for name in arrays
        }
        decoded = sum(
            info.number_of_frames * int(np.prod(self._shapes[name])) * ARRAYS[name].dtype.itemsize
            for name in arrays
        )
        block = max(1, _BLOCK_BYTES // decoded)
        with tqdm(total=number_of_sequences, desc=f"reading {split}", unit="seq", disable=None) as progress:
            for first in range(0, number_of_sequences, block):
                rows = range(first, min(first + block, number_of_sequences))
                for name, array in dataset.read(split, rows, arrays).items():
                    ordered = batch_first(name, array)
                    if self._packed[name]:
                        ordered = np.packbits(ordered.reshape(*ordered.shape[:2], -1), axis=-1)
                    self._arrays[name][rows.start : rows.stop] = ordered
                progress.update(len(rows))

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        shape = self._shapes[name]
        return (-(-int(np.prod(shape)) // 8),) if self._packed[name] else shape

    def fetch(self, indices: Array, starts: Array, length: int) -> dict[str, Array]:
        """Returns ``length`` frames from ``starts[i]`` on of each sequence ``indices[i]``, batch first."""
        frames = starts[:, None] + np.arange(length)
        windows = {name: array[indices[:, None], frames] for name, array in self._arrays.items()}
        for name, window in windows.items():
            if self._packed[name]:
                shape = self._shapes[name]
                bits = np.unpackbits(window, axis=-1, count=int(np.prod(shape)))
                windows[name] = bits.reshape(*window.shape[:2], *shape)
        return windows


def is_packed(name: str, maximum_value: int) -> bool:
    """Tells whether an array is kept as bits in memory."""
    return name == "collisions" or (name == "features" and maximum_value == 1)


def memory_bytes(dataset: Dataset, split: Split, arrays: Sequence[str], number_of_sequences: int) -> int:
    """Returns how much memory :class:`MemorySource` would take."""
    info, stored = dataset.info(split), dataset.stored(split)
    frame = 0
    for name in arrays:
        values = int(np.prod(batch_shape(name, info, stored[name].shape)))
        packed = is_packed(name, dataset.attributes.maximum_value)
        frame += -(-values // 8) if packed else values * ARRAYS[name].dtype.itemsize
    return number_of_sequences * info.number_of_frames * frame

"""Feeding a split to a training: shuffled windows in batches, the same for the same seed and epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rnem_world.data.batch import Batch, make_batch, read_batch, select_arrays
from rnem_world.data.dataset import Dataset
from rnem_world.data.memory import FileSource, MemorySource, memory_bytes
from rnem_world.data.prefetch import prefetch
from rnem_world.errors import ConfigError, DataError, suggest
from rnem_world.seeding import numpy_generator
from rnem_world.types import Split

__all__ = ["Batch", "LoaderConfig", "SequenceLoader", "read_batch"]

Window = Literal["start", "random"]

PREFETCHED_BATCHES = 2


@dataclass(frozen=True)
class LoaderConfig:
    """How a split is cut into batches.

    Attributes:
        batch_size: Sequences in a batch, for each process.
        number_of_frames: The length of the windows.
        window: Whether windows begin at the first frame ("start") or anywhere ("random").
        limit: Use only the first so many sequences; all if None.
        memory_gigabytes: A split that takes no more is kept in memory; 0 always reads from the files.
        drop_last: Leave out the last batch if it isn't full.
        shuffle: Draw a new order every epoch.

    Raises:
        ConfigError: If a value makes no sense.
    """

    batch_size: int
    number_of_frames: int
    window: Window = "start"
    limit: int | None = None
    memory_gigabytes: float | int = 4.0
    drop_last: bool = True
    shuffle: bool = True

    def __post_init__(self) -> None:
        for name in ("batch_size", "number_of_frames", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}, expected at least 1")
        if self.window not in get_args(Window):
            raise ConfigError(f"window is {self.window!r}, {suggest(self.window, get_args(Window))}")
        if not self.memory_gigabytes >= 0:
            raise ConfigError(f"memory_gigabytes is {self.memory_gigabytes}, expected at least 0")


class SequenceLoader:
    """Gives the batches of an epoch, each sequence once.

    With several processes, every process makes the same global batches of ``batch_size * world_size``
    sequences and takes its own contiguous part.

    Args:
        dataset: Where the sequences are; it must stay open, or be reopenable, while batches are taken.
        split: Which split.
        config: How it is cut into batches.
        seed: The seed of order and windows.
        rank: The number of this process.
        world_size: The number of processes.
        arrays: The arrays wanted besides the frames; all that are there if None.

    Raises:
        ConfigError: If the rank isn't below the world size.
        DataError: If the split, an array, frames or sequences that the configuration asks for are missing.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: Split,
        config: LoaderConfig,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        arrays: Iterable[str] | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank is {rank} of world_size {world_size}, expected 0 <= rank < world_size")
        self.config, self.seed, self.rank, self.world_size = config, seed, rank, world_size
        self.dataset, self.split = dataset, split
        self.arrays = select_arrays(dataset, split, arrays)
        self.info = dataset.info(split)
        self.number_of_sequences = self._count()
        needed = memory_bytes(dataset, split, self.arrays, self.number_of_sequences)
        self.in_memory = needed <= config.memory_gigabytes * 1e9
        self._source: FileSource | MemorySource | None = None

    def __len__(self) -> int:
        """The number of batches that this process gives in an epoch."""
        full, rest = divmod(self.number_of_sequences, self._global_batch_size)
        return full + (not self.config.drop_last and self._share(rest)[0] < self._share(rest)[1])

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Gives the batches of one epoch; the next two are made meanwhile on a background thread.

        Args:
            epoch: The number of the epoch; with the seed it decides order and windows.
            first_batch: Start here, with what an uninterrupted epoch gives from there on.

        Returns:
            An iterator; dropping it ends the thread.

        Raises:
            ConfigError: If ``first_batch`` lies beyond the epoch.
            DataError: While iterating, if the files are damaged.
        """
        if not 0 <= first_batch <= len(self):
            raise ConfigError(
                f"first_batch is {first_batch}, expected 0 to {len(self)}, the batches of an epoch"
            )
        self._open_source()  # here, not in the thread: reading a large split must heed Ctrl-C
        return prefetch(self._batches(epoch, first_batch), PREFETCHED_BATCHES)

    def indices(self, epoch: int) -> list[NDArray[Any]]:
        """Returns which sequences this process's batches of an epoch hold."""
        order = np.arange(self.number_of_sequences)
        if self.config.shuffle:
            numpy_generator(self.seed, "order", epoch).shuffle(order)
        batches = []
        for number in range(len(self)):
            whole = order[number * self._global_batch_size :][: self._global_batch_size]
            begin, end = self._share(len(whole))
            batches.append(whole[begin:end])
        return batches

    def _batches(self, epoch: int, first_batch: int) -> Iterator[Batch]:
        source = self._open_source()
        starts = self._starts(epoch)
        for indices in self.indices(epoch)[first_batch:]:
            arrays = source.fetch(indices, starts[indices], self.config.number_of_frames)
            yield make_batch(arrays, indices, self.dataset.attributes.maximum_value)

    def _open_source(self) -> FileSource | MemorySource:
        if self._source is None:
            if self.in_memory:
                self._source = MemorySource(self.dataset, self.split, self.arrays, self.number_of_sequences)
            else:
                self._source = FileSource(self.dataset, self.split, self.arrays)
        return self._source

    def _starts(self, epoch: int) -> NDArray[Any]:
        """The first frame of each sequence's window; drawn for all, so that it depends on nothing else."""
        last = self.info.number_of_frames - self.config.number_of_frames
        if self.config.window == "start":
            return np.zeros(self.number_of_sequences, np.int64)
        return numpy_generator(self.seed, "window", epoch).integers(0, last + 1, self.number_of_sequences)

    @property
    def _global_batch_size(self) -> int:
        return self.config.batch_size * self.world_size

    def _share(self, size: int) -> tuple[int, int]:
        """Where this process's part of a global batch begins and ends; the parts differ by one at most."""
        return size * self.rank // self.world_size, size * (self.rank + 1) // self.world_size

    def _count(self) -> int:
        """Checks the configuration against the split and returns how many sequences are used."""
        config, there = self.config, self.info.number_of_sequences
        place = f"{self.split!r} of {self.dataset.path}"
        if config.number_of_frames > self.info.number_of_frames:
            raise DataError(
                f"windows of {config.number_of_frames} frames were asked for, but the sequences in {place} "
                f"have {self.info.number_of_frames}; ask for fewer frames (--steps is one less than the frames)"
            )
        if config.limit is not None and config.limit > there:
            raise DataError(f"limit is {config.limit}, but {place} has {there} sequences; lower the limit")
        count = config.limit if config.limit is not None else there
        if config.drop_last and self._global_batch_size > count:
            processes = f" x {self.world_size} processes" if self.world_size > 1 else ""
            raise DataError(
                f"a batch of {config.batch_size} sequences{processes} is larger than the {count} used of "
                f"{place}; lower the batch size (--batch-size)"
            )
        return count

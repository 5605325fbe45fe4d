"""Feeding a split to a training: shuffled windows in batches, the same for the same seed and epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from rnem_world.config import check_at_least, check_between, check_one_of, check_types
from rnem_world.data.batch_first import MemoryCopy, fetch, select_arrays
from rnem_world.data.dataset import Dataset
from rnem_world.data.rare import Drawn, RareEvents
from rnem_world.data.schema import Split
from rnem_world.errors import ConfigError, DataError
from rnem_world.seeding import numpy_generator

Array = NDArray[Any]
Item = TypeVar("Item")
Window = Literal["start", "random"]

PREFETCHED_BATCHES = 2


@dataclass(frozen=True)
class Batch:
    """Windows of sequences as the model takes them: torch tensors, batch first, channels before height and width.

    ``actions[:, t]`` turns frame t into frame t+1; ``rewards[:, t]``, ``terminations[:, t]`` and
    ``collisions[:, t]`` belong to that same transition.

    Attributes:
        frames: The frames, 0..maximum_value.
        indices: Which sequences of the split they are.
        groups: Which object a pixel belongs to, 0 for the background.
        collisions: 1 where an object is touching another; (b, t, 1, 1, 1) if the dataset has only
            whole events.
        actions: Numbers of actions; or of others what :class:`~rnem_world.actions.ActionSpace` stores, (b, t, d).
        rewards: Rewards.
        terminations: Whether the transition ends the episode.
        truncations: Whether the episode is cut off after the transition.
        is_first: Whether the frame begins an episode: the transition to it is none.
        lives: The lives that are left.
        positions: The balls' centres in units of the box.
        velocities: The balls' velocities in units a frame.
        weights: How much each window counts where some are drawn more often than others; None for 1.
        maximum_value: 1 for binary frames, 255 for others.
    """

    frames: UInt8[Tensor, "b t c h w"]
    indices: Int64[Tensor, " b"]
    groups: UInt8[Tensor, "b t h w"] | None = None
    collisions: UInt8[Tensor, "b t #c #h #w"] | None = None
    actions: Int64[Tensor, "b t *d"] | Float32[Tensor, "b t d"] | None = None
    rewards: Float32[Tensor, "b t"] | None = None
    terminations: Bool[Tensor, "b t"] | None = None
    truncations: Bool[Tensor, "b t"] | None = None
    is_first: Bool[Tensor, "b t"] | None = None
    lives: UInt8[Tensor, "b t"] | None = None
    positions: Float32[Tensor, "b t n 2"] | None = None
    velocities: Float32[Tensor, "b t n 2"] | None = None
    weights: Float32[Tensor, " b"] | None = None
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
    arrays: Iterable[str] | None = None,
    starts: int | Sequence[int] | Array = 0,
) -> Batch:
    """Reads chosen sequences or pieces of them, without a loader.

    Args:
        dataset: The dataset.
        split: Its split.
        indices: Which sequences.
        number_of_frames: How many frames of each; all if None.
        arrays: Which arrays besides the frames; all if None.
        starts: The first frame of each, or of all.

    Raises:
        DataError: If something isn't there or is damaged.
    """
    names = select_arrays(dataset, split, arrays)
    arrays_read = fetch(dataset, split, names, indices, starts, number_of_frames)
    return _make_batch(arrays_read, np.asarray(indices, dtype=np.int64), dataset.attributes.maximum_value)


def _make_batch(arrays: Mapping[str, Array], indices: Array, maximum_value: int) -> Batch:
    """Wraps batch-first arrays, named as in the schema, as tensors that share their memory."""
    names = {"features": "frames", "events": "collisions"}
    tensors: dict[str, Any] = {
        names.get(name, name): torch.from_numpy(array) for name, array in arrays.items()
    }
    return Batch(indices=torch.from_numpy(indices), maximum_value=maximum_value, **tensors)


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
        rare_fraction: The part of the windows that are drawn because something rare happens in them: another reward
            than the usual one, or an end. Batches then have weights.

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
    rare_fraction: float | int = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        check_between(self, 0, 1, "rare_fraction")
        check_at_least(self, 1, "batch_size", "number_of_frames", "limit")
        check_at_least(self, 0, "memory_gigabytes")
        check_one_of(self, "window", get_args(Window))


class SequenceLoader:
    """Gives the batches of an epoch, each sequence once, unless windows are drawn for what happens in them.

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
        self._events: RareEvents | None = None
        self._memory = MemoryCopy(dataset, split, self.arrays, self.number_of_sequences)
        self.in_memory = self._memory.bytes_needed <= config.memory_gigabytes * 1e9
        self.bytes_in_memory = self._memory.bytes_needed if self.in_memory else 0

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
        if self.in_memory:
            self._memory.fill()  # here, not in the thread: reading a large split must heed Ctrl-C
        return prefetch(self._batches(epoch, first_batch), PREFETCHED_BATCHES)

    def windows(self, epoch: int) -> list[Drawn]:
        """Returns which windows this process's batches of an epoch hold."""
        order = np.arange(self.number_of_sequences)
        if self.config.shuffle:
            numpy_generator(self.seed, "order", epoch).shuffle(order)
        starts = self._starts(epoch)[order]
        drawn = Drawn(order, starts, np.ones(len(order), np.float32))
        if self.config.rare_fraction > 0:
            generator = numpy_generator(self.seed, "events", epoch)
            drawn = self._rare_events().draw(order, starts, self.config.rare_fraction, generator)
        batches = []
        for number in range(len(self)):
            begin = number * self._global_batch_size
            size = min(self._global_batch_size, self.number_of_sequences - begin)
            first, last = self._share(size)
            own = slice(begin + first, begin + last)
            batches.append(Drawn(drawn.sequences[own], drawn.starts[own], drawn.weights[own]))
        return batches

    def indices(self, epoch: int) -> list[NDArray[Any]]:
        """Returns which sequences this process's batches of an epoch hold."""
        return [drawn.sequences for drawn in self.windows(epoch)]

    def _batches(self, epoch: int, first_batch: int) -> Iterator[Batch]:
        for drawn in self.windows(epoch)[first_batch:]:
            window = (drawn.sequences, drawn.starts, self.config.number_of_frames)
            if self.in_memory:
                arrays = self._memory.fetch(*window)
            else:
                arrays = fetch(self.dataset, self.split, self.arrays, *window)
            batch = _make_batch(arrays, drawn.sequences, self.dataset.attributes.maximum_value)
            if self.config.rare_fraction > 0:
                batch = replace(batch, weights=torch.from_numpy(drawn.weights))
            yield batch

    def _starts(self, epoch: int) -> NDArray[Any]:
        """The first frame of each sequence's window; drawn for all, so that it depends on nothing else."""
        if self.config.window == "start":
            return np.zeros(self.number_of_sequences, np.int64)
        generator = numpy_generator(self.seed, "window", epoch)
        return generator.integers(0, self._last_start + 1, self.number_of_sequences)

    @property
    def _last_start(self) -> int:
        """The last frame that a window may begin with."""
        if self.config.window == "start":
            return 0
        return self.info.number_of_frames - self.config.number_of_frames

    def _rare_events(self) -> RareEvents:
        if self._events is None:
            self._events = RareEvents.of(
                self.dataset,
                self.split,
                self.number_of_sequences,
                self.config.number_of_frames,
                self._last_start,
            )
        return self._events

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


def prefetch(produce: Iterator[Item], depth: int) -> Generator[Item, None, None]:
    """Yields what ``produce`` yields, made up to ``depth`` items ahead by a thread of its own.

    The thread starts with the first item asked for. When the generator is closed, dropped or fails, the
    thread has ended before control returns. An exception in ``produce`` is raised where its item would have
    come.

    Args:
        produce: What to run; only the thread touches it.
        depth: How many finished items wait at most.

    Yields:
        The items, in order.
    """
    pool, end = ThreadPoolExecutor(1, "rnem-world-prefetch"), object()
    try:
        ahead = deque(pool.submit(next, produce, end) for _ in range(depth + 1))
        while (item := ahead.popleft().result()) is not end:
            ahead.append(pool.submit(next, produce, end))
            yield item  # type: ignore[misc]  # it isn't `end`
    finally:
        pool.shutdown(cancel_futures=True)

"""Writing datasets as HDF5, whole or not at all, and joining shards."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rnem_world.data.dataset import Dataset, Place
from rnem_world.data.schema import SCHEMA_VERSION, SPLITS, DatasetAttributes, EpisodeBatch, Split
from rnem_world.data.shards import READ_ERRORS
from rnem_world.errors import DataError
from rnem_world.io import atomic_file

GZIP_LEVEL = 1


def write_shard(
    path: str | os.PathLike[str], splits: Mapping[Split, EpisodeBatch], attributes: DatasetAttributes
) -> None:
    """Writes a dataset file; afterwards it is there completely, or the earlier one is untouched.

    Args:
        path: The file; its folder is made if needed.
        splits: The sequences of each split, time first.
        attributes: What the file says about itself; ``number_of_actions`` or ``action_space`` is needed with actions.

    Raises:
        DataError: If the sequences are wrong; nothing is written then.
        OutputError: If the file can't be written.
    """
    if not splits:
        raise DataError(f"nothing to write to {path}: no split was given")
    for split, episodes in splits.items():
        if split not in SPLITS:
            raise DataError(f"{split!r} is no split, expected one of {', '.join(SPLITS)}")
        if (
            episodes.actions is not None
            and attributes.number_of_actions is None
            and attributes.action_space is None
        ):
            raise DataError(
                f"{split!r} has actions, but the attributes give neither number_of_actions nor action_space"
            )
        try:
            episodes.validate(attributes.number_of_actions, attributes.maximum_value, attributes.action_space)
        except DataError as error:
            raise DataError(f"{split!r} can't be written to {path}: {error}") from error
    with new_hdf5(Path(path)) as (file, check):
        file.attrs.update(attributes.to_hdf5())
        for split in SPLITS:
            if split in splits:
                for name, values in splits[split].arrays().items():
                    _create(file, split, name, values.shape, values.dtype)[...] = values
                    check()


def merge_shards(
    paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str], out: str | os.PathLike[str]
) -> None:
    """Joins shards into one file, split by split and in the order given; chunks are copied as they are.

    Args:
        paths: Files written by :func:`write_shard`, or a folder of them.
        out: The file to write.

    Raises:
        DataError: If the shards differ, are damaged, or have another layout than ours.
        OutputError: If the file can't be written.
    """
    with Dataset.open(paths) as dataset:
        merge_sequences(dataset, {split: dataset.places(split) for split in dataset.splits}, out)


def merge_sequences(
    dataset: Dataset,
    places: Mapping[Split, Sequence[Place]],
    out: str | os.PathLike[str],
    attributes: DatasetAttributes | None = None,
) -> None:
    """Copies chosen sequences of a dataset into the splits of a new file, chunk by chunk, memory flat.

    Args:
        dataset: Files written by :func:`write_shard`.
        places: For each split of the new file, its sequences.
        out: The file to write.
        attributes: What the new file says about itself; what the source says if None.

    Raises:
        DataError: If a source is damaged or has another layout than ours.
        OutputError: If the file can't be written.
    """
    with new_hdf5(Path(out)) as (file, check):
        said = attributes or dataset.attributes
        file.attrs.update(replace(said, schema_version=SCHEMA_VERSION).to_hdf5())
        for split, chosen in places.items():
            if not chosen:
                continue
            for name, stored in dataset.stored(chosen[0][1]).items():
                shape = (stored.shape[0], len(chosen), *stored.shape[2:])
                target = _create(file, split, name, shape, dataset.schema(name).dtype)
                for row, place in enumerate(chosen):
                    _copy_chunk(dataset, name, place, target, row)
                    check()


def _copy_chunk(dataset: Dataset, name: str, place: Place, target: h5py.Dataset, row: int) -> None:
    shard, split, source_row = place
    path = dataset.shard_paths[shard]
    source = dataset.handle(shard, split, name)
    if not _has_our_layout(source, dataset.schema(name).dtype):
        raise DataError(
            f"{path}: {split}/{name} isn't stored as one compressed chunk a sequence, so it can't be merged; "
            "only files written by rnem-world can"
        )
    tail = (0,) * (source.ndim - 2)
    try:
        mask, chunk = source.id.read_direct_chunk((0, source_row, *tail))
    except READ_ERRORS as error:
        raise DataError(
            f"{path}: {split}/{name}, sequence {source_row} can't be read: the file is damaged"
        ) from error
    target.id.write_direct_chunk((0, row, *tail), chunk, mask)


def _has_our_layout(array: h5py.Dataset, dtype: np.dtype[Any]) -> bool:
    one_sequence = (array.shape[0], 1, *array.shape[2:])
    filters = array.id.get_create_plist()
    only_gzip = filters.get_nfilters() == 1 and filters.get_filter(0)[0] == h5py.h5z.FILTER_DEFLATE
    return bool(array.chunks == one_sequence and only_gzip and array.dtype == dtype)


def _create(
    file: h5py.File, split: Split, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> h5py.Dataset:
    return file.require_group(split).create_dataset(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(shape[0], 1, *shape[2:]),
        compression="gzip",
        compression_opts=GZIP_LEVEL,
        shuffle=False,
        track_times=False,
    )


@contextmanager
def new_hdf5(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Opens a new HDF5 file that takes the place of ``path`` when the block ends well; see `atomic_file`.

    Args:
        path: The file to write.

    Yields:
        The file, open for writing, and a function that raises the error if writing has failed; call it now
        and then, for HDF5 itself is not told.

    Raises:
        OutputError: If it can't be written.
    """
    with atomic_file(path) as temporary:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        guarded = _GuardedFile(descriptor)

        def check() -> None:
            if guarded.failure is not None:
                raise guarded.failure

        try:
            with h5py.File(guarded, "w") as file:
                yield file, check
            check()
        finally:
            os.close(descriptor)


class _GuardedFile(io.RawIOBase):
    """The file below HDF5: after a failed write it keeps the failure and goes on in memory.

    HDF5 2.0 crashes the interpreter (segmentation fault) when a write fails while a file or an array is
    closed, as on a full disk, so it never gets to see a failure.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.failure: OSError | None = None
        self._descriptor = descriptor
        self._position = 0
        self._remembered: dict[int, bytes] = {}

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._descriptor).st_size}
        self._position = base[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        content = self._remembered.get(self._position, b"")[: len(view)]
        if not content:
            content = os.pread(self._descriptor, len(view), self._position)
        view[: len(content)] = content
        self._position += len(content)
        return len(content)

    def write(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        try:
            done = 0
            while self.failure is None and done < len(view):
                done += os.pwrite(self._descriptor, view[done:], self._position + done)
        except OSError as error:
            self.failure = error
        if self.failure is not None:
            self._remembered[self._position] = bytes(view)
        self._position += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        if self.failure is None:
            try:
                os.ftruncate(self._descriptor, size)
            except OSError as error:
                self.failure = error
        return size

    def flush(self) -> None:
        """Nothing waits here; `atomic_file` calls fsync at the end."""

"""Writing datasets as HDF5, whole or not at all, and joining shards; :class:`Dataset` reads them."""

from __future__ import annotations

import errno
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py

from rnem_world.data.dataset import Dataset, SplitInfo
from rnem_world.data.episode import EpisodeBatch
from rnem_world.data.inspection import READ_ERRORS
from rnem_world.data.schema import ARRAYS, SCHEMA_VERSION, DatasetAttributes
from rnem_world.errors import DataError, OutputError, RnemWorldError
from rnem_world.types import SPLITS, Split

__all__ = ["Dataset", "SplitInfo", "merge_sequences", "merge_shards", "write_shard"]

GZIP_LEVEL = 1

Pick = tuple[int, Split, int]
"""One sequence of a list of shards: the number of the shard, the split and the row there."""


def write_shard(
    path: str | os.PathLike[str], splits: Mapping[Split, EpisodeBatch], attributes: DatasetAttributes
) -> None:
    """Writes a dataset file; afterwards it is there completely, or the earlier one is untouched.

    Args:
        path: The file; its folder is made if needed.
        splits: The sequences of each split, time first.
        attributes: What the file says about itself; ``number_of_actions`` is needed with actions.

    Raises:
        DataError: If the sequences are wrong; nothing is written then.
        OutputError: If the file can't be written.
    """
    if not splits:
        raise DataError(f"nothing to write to {path}: no split was given")
    for split, episodes in splits.items():
        if split not in SPLITS:
            raise DataError(f"{split!r} is no split, expected one of {', '.join(SPLITS)}")
        if episodes.actions is not None and attributes.number_of_actions is None:
            raise DataError(f"{split!r} has actions, but the attributes don't give number_of_actions")
        try:
            episodes.validate(attributes.number_of_actions, attributes.maximum_value)
        except DataError as error:
            raise DataError(f"{split!r} can't be written to {path}: {error}") from error
    with replacing(Path(path)) as file:
        file.attrs.update(attributes.to_hdf5())
        for split in SPLITS:
            if split in splits:
                for name, values in splits[split].arrays().items():
                    _create(file, split, name, values.shape)[...] = values


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
        picks: dict[Split, list[Pick]] = {
            split: [
                (number, split, row)
                for number, size in enumerate(dataset.shard_sizes(split))
                for row in range(size)
            ]
            for split in dataset.splits
        }
        merge_sequences(dataset, picks, out)


def merge_sequences(
    dataset: Dataset, picks: Mapping[Split, Sequence[Pick]], out: str | os.PathLike[str]
) -> None:
    """Copies chosen sequences of a dataset into the splits of a new file, chunk by chunk, memory flat.

    Args:
        dataset: Files written by :func:`write_shard`.
        picks: For each split of the new file, its sequences.
        out: The file to write.

    Raises:
        DataError: If a source is damaged or has another layout than ours.
        OutputError: If the file can't be written.
    """
    with replacing(Path(out)) as file:
        file.attrs.update(replace(dataset.attributes, schema_version=SCHEMA_VERSION).to_hdf5())
        for split, chosen in picks.items():
            if not chosen:
                continue
            for name, stored in dataset.stored(chosen[0][1]).items():
                shape = (stored.shape[0], len(chosen), *stored.shape[2:])
                target = _create(file, split, name, shape)
                for row, pick in enumerate(chosen):
                    _copy_chunk(dataset, name, pick, target, row)


def _copy_chunk(dataset: Dataset, name: str, pick: Pick, target: h5py.Dataset, row: int) -> None:
    shard, split, source_row = pick
    path = dataset.shard_paths[shard]
    source = dataset.handle(shard, split, name)
    if not _has_our_layout(name, source):
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


def _has_our_layout(name: str, array: h5py.Dataset) -> bool:
    one_sequence = (array.shape[0], 1, *array.shape[2:])
    filters = array.id.get_create_plist()
    only_gzip = filters.get_nfilters() == 1 and filters.get_filter(0)[0] == h5py.h5z.FILTER_DEFLATE
    return bool(array.chunks == one_sequence and only_gzip and array.dtype == ARRAYS[name].dtype)


def _create(file: h5py.File, split: Split, name: str, shape: tuple[int, ...]) -> h5py.Dataset:
    return file.require_group(split).create_dataset(
        name,
        shape=shape,
        dtype=ARRAYS[name].dtype,
        chunks=(shape[0], 1, *shape[2:]),
        compression="gzip",
        compression_opts=GZIP_LEVEL,
        shuffle=False,
        track_times=False,
    )


@contextmanager
def replacing(path: Path) -> Iterator[h5py.File]:
    """Opens a new HDF5 file that takes the place of ``path`` when the block ends well.

    The file is written beside its place under a temporary name, flushed to the disk, then renamed. If
    anything goes wrong the temporary file is removed and ``path`` is as before. What a killed process left
    behind is removed by the next one that writes the same file on the same machine.

    Args:
        path: The file to write.

    Yields:
        The file, open for writing.

    Raises:
        OutputError: If it can't be written.
    """
    temporary = path.with_name(f".{path.name}.{_owner()}-{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        _remove_orphans(path)
        with h5py.File(temporary, "w", locking=False) as file:
            yield file
            file.flush()
        _synchronise(temporary)
        os.replace(temporary, path)
        _synchronise(path.parent)
    except RnemWorldError:
        raise
    except OSError as error:
        raise OutputError(f"{path} can't be written: {_reason(error)}") from error
    finally:
        with suppress(OSError):  # after os.replace there is nothing left to remove
            temporary.unlink()


def _owner() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _remove_orphans(path: Path) -> None:
    pattern = re.compile(re.escape(f".{path.name}.{socket.gethostname()}-") + r"(\d+)-\d+\.tmp")
    for entry in path.parent.iterdir():
        found = pattern.fullmatch(entry.name)
        if found and not _is_running(int(found[1])):
            with suppress(OSError):
                entry.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    text = " ".join(str(error).split())
    number = re.search(r"errno = (\d+)", text)
    code = error.errno or (int(number[1]) if number else None)
    plain: dict[Any, str] = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EFBIG: "the file would be larger than is allowed here",
        errno.EACCES: "no permission",
        errno.EPERM: "no permission",
        errno.EROFS: "the disk is read-only",
        errno.EISDIR: "it is a folder; give the name of a file",
        errno.ENOTDIR: "a part of its path is a file, not a folder",
        errno.EEXIST: "a part of its path is a file, not a folder",
        errno.ENAMETOOLONG: "its name is too long",
    }
    return plain.get(code, text[:200])

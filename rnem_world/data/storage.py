"""Writing datasets as HDF5, whole or not at all, and joining shards; :class:`Dataset` reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import h5py

from rnem_world.data.atomic import replacing
from rnem_world.data.dataset import Dataset, SplitInfo
from rnem_world.data.episode import EpisodeBatch
from rnem_world.data.inspection import READ_ERRORS
from rnem_world.data.schema import ARRAYS, SCHEMA_VERSION, DatasetAttributes
from rnem_world.errors import DataError
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
    with replacing(Path(path)) as (file, check):
        file.attrs.update(attributes.to_hdf5())
        for split in SPLITS:
            if split in splits:
                for name, values in splits[split].arrays().items():
                    _create(file, split, name, values.shape)[...] = values
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
    with replacing(Path(out)) as (file, check):
        file.attrs.update(replace(dataset.attributes, schema_version=SCHEMA_VERSION).to_hdf5())
        for split, chosen in picks.items():
            if not chosen:
                continue
            for name, stored in dataset.stored(chosen[0][1]).items():
                shape = (stored.shape[0], len(chosen), *stored.shape[2:])
                target = _create(file, split, name, shape)
                for row, pick in enumerate(chosen):
                    _copy_chunk(dataset, name, pick, target, row)
                    check()


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

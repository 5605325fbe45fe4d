"""Finding the files of a dataset, and which splits and arrays they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rnem_world.data.decoding import is_binary, stored_axes
from rnem_world.data.schema import ARRAYS, DatasetAttributes
from rnem_world.errors import DataError, suggest
from rnem_world.types import SPLITS, Split

SUFFIXES = (".h5", ".hdf5")
READ_ERRORS = (OSError, RuntimeError, KeyError)  # what h5py raises on a damaged file
_SNIFFED_SEQUENCES = 8


@dataclass(frozen=True)
class StoredArray:
    """Shape and dtype of one array in a file, as it is stored."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stored_bytes: int


Shard = Mapping[Split, Mapping[str, StoredArray]]


def open_hdf5(path: Path) -> h5py.File:
    """Opens a file for reading.

    Args:
        path: An HDF5 file. No lock is taken: our files are replaced, never changed.

    Raises:
        DataError: If it is missing, truncated, or no HDF5 file; in one line.
    """
    try:
        return h5py.File(path, "r", locking=False)
    except FileNotFoundError as error:
        near = [entry.name for entry in path.parent.glob("*") if entry.suffix in SUFFIXES]
        hint = f"; {suggest(path.name, near)}" if near else ""
        raise DataError(f"{path}: no such file{hint}") from error
    except PermissionError as error:
        raise DataError(f"{path}: no permission to read it") from error
    except OSError as error:
        text = str(error)
        if "truncated" in text:
            reason = "the file is truncated (an interrupted copy?); copy it again or make it anew"
        elif "signature not found" in text:
            reason = "not an HDF5 file; frames and videos are turned into one by 'rnem-world data import'"
        else:
            reason = f"the file is damaged ({first_line(error)}); copy it again or make it anew"
        raise DataError(f"{path}: {reason}") from error


def first_line(error: BaseException) -> str:
    """Returns what an error says, in one line and not too long."""
    return " ".join(str(error).split())[:160]


def find_shards(path: Path) -> list[Path]:
    """Lists the files of a dataset, by name: the file itself, or those in a folder.

    Raises:
        DataError: If there are none.
    """
    if not path.is_dir():
        return [path]
    shards = sorted(
        entry for entry in path.iterdir() if entry.suffix in SUFFIXES and not entry.name.startswith(".")
    )
    if not shards:
        raise DataError(f"{path}: the folder holds no {' or '.join(SUFFIXES)} file")
    return shards


def inspect_file(path: Path, file: h5py.File) -> Shard:
    """Finds the splits and arrays of a file and checks that their shapes fit together."""
    shard: dict[Split, dict[str, StoredArray]] = {}
    try:
        for split in SPLITS:
            if isinstance(file.get(split), h5py.Group):
                shard[split] = _inspect_split(path, split, file[split])
        there = list(file)
    except READ_ERRORS as error:
        raise DataError(
            f"{path}: the file is damaged ({first_line(error)}); copy it again or make it anew"
        ) from error
    if not shard:
        raise DataError(
            f"{path}: not a dataset, it has none of the groups {', '.join(SPLITS)}; "
            f"it has: {', '.join(there) or 'nothing'}"
        )
    return shard


def _inspect_split(path: Path, split: Split, group: h5py.Group) -> dict[str, StoredArray]:
    arrays: dict[str, StoredArray] = {}
    sizes: dict[str, int] = {"1": 1, "2": 2}
    for name in ARRAYS:
        array = group.get(name)
        if not isinstance(array, h5py.Dataset):
            continue
        axes = stored_axes(name, array.ndim)
        place = f"{path}: {split}/{name} has the shape {array.shape}, expected ({', '.join(axes)})"
        if array.ndim != len(axes):
            raise DataError(place)
        for axis, size in zip(axes, array.shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                raise DataError(f"{place} where {axis} is {sizes[axis]}")
        if array.dtype.kind not in "buif":
            raise DataError(f"{path}: {split}/{name} holds {array.dtype}, expected numbers")
        if 0 in array.shape:
            raise DataError(f"{place}: it is empty")
        arrays[name] = StoredArray(tuple(array.shape), array.dtype, int(array.id.get_storage_size()))
    if "features" not in arrays:
        raise DataError(f"{path}: {split!r} has no array 'features'; it has: {', '.join(group) or 'nothing'}")
    return arrays


def guess_maximum_value(path: Path, file: h5py.File, shard: Shard) -> int:
    """Looks at a few sequences of a file without attributes: binary frames, or grey ones?"""
    for split, arrays in shard.items():
        stored = arrays["features"]
        if stored.dtype.kind == "b":
            continue
        sequences = np.unique(np.linspace(0, stored.shape[1] - 1, _SNIFFED_SEQUENCES).astype(int))
        try:
            if not all(is_binary(file[split]["features"][:, sequence]) for sequence in sequences.tolist()):
                return 255
        except READ_ERRORS as error:
            raise DataError(f"{path}: {split}/features can't be read ({first_line(error)})") from error
    return 1


def find_number_of_actions(attributes: DatasetAttributes, shard: Shard) -> int | None:
    """Takes the number of actions from one-hot actions if the file doesn't say it."""
    for arrays in shard.values():
        if attributes.number_of_actions is None and "actions" in arrays and len(arrays["actions"].shape) == 3:
            return arrays["actions"].shape[2]
    return attributes.number_of_actions

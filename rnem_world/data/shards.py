"""One file of a dataset: opening it, what is in it, and its values in the dtypes of the schema.

The files are our own, or those of the original program, which stores frames as bool or as floats, groups and
collisions as floats, and actions as one-hot floats (T, N, A).
"""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from rnem_world.actions import ActionSpace
from rnem_world.data.schema import (
    ARRAYS,
    ORIGINAL_LAYOUT,
    SPLITS,
    DatasetAttributes,
    Split,
    array_schema,
)
from rnem_world.errors import DataError, suggest

SUFFIXES = (".h5", ".hdf5")
READ_ERRORS = (OSError, RuntimeError, KeyError)  # what h5py raises on a damaged file
MOST_OPEN = 64
"""Files of a dataset that are open at once: systems allow a process 256 to 1,024 of all kinds."""

_SNIFFED_SEQUENCES = 8


@dataclass(frozen=True)
class StoredArray:
    """Shape and dtype of one array in a file, as it is stored."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stored_bytes: int


@dataclass(frozen=True)
class Shard:
    """What one file of a dataset holds.

    Attributes:
        path: The file.
        splits: The arrays of each of its splits.
        attributes: What it says about itself, or what was found out where it says nothing.
        found_out: The names of the attributes that were: ``maximum_value`` from a few sequences, and
            ``number_of_actions`` from all, which is the least that there can be.
    """

    path: Path
    splits: Mapping[Split, Mapping[str, StoredArray]]
    attributes: DatasetAttributes
    found_out: frozenset[str]


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
        if error.errno in (errno.EMFILE, errno.ENFILE):
            reason = (
                "too many files are open already; close some, or allow more, for example `ulimit -n 4096`"
            )
        elif "truncated" in text:
            reason = "the file is truncated (an interrupted copy?); copy it again or make it anew"
        elif "signature not found" in text:
            reason = "not an HDF5 file; frames and videos are turned into one by 'rnem-world data import'"
        else:
            reason = f"the file is damaged ({first_line(error)}); copy it again or make it anew"
        raise DataError(f"{path}: {reason}") from error


def first_line(error: BaseException) -> str:
    """Returns what an error says, in one line and not too long."""
    return " ".join(str(error).split())[:160]


def inspect_file(path: Path, file: h5py.File) -> Shard:
    """Finds the attributes, splits and arrays of a file and checks that their shapes fit together.

    Raises:
        DataError: If it is damaged or no dataset.
    """
    try:
        attributes = DatasetAttributes.from_hdf5(file.attrs, str(path))
        found: dict[str, Any] = {}
        splits = {
            split: _inspect_split(path, split, file[split], attributes.action_space)
            for split in SPLITS
            if isinstance(file.get(split), h5py.Group)
        }
        if not splits:
            raise DataError(
                f"{path}: not a dataset, it has none of the groups {', '.join(SPLITS)}; "
                f"it has: {', '.join(file) or 'nothing'}"
            )
        if attributes.schema_version == ORIGINAL_LAYOUT and "maximum_value" not in file.attrs:
            binary = all(_looks_binary(file[split]["features"]) for split in splits)
            found["maximum_value"] = 1 if binary else 255
        stored = {split: file[split]["actions"] for split, arrays in splits.items() if "actions" in arrays}
        if attributes.number_of_actions is None and attributes.action_space is None and stored:
            columns = [actions.shape[2] for actions in stored.values() if actions.ndim == 3]
            if columns:  # one-hot
                attributes = replace(attributes, number_of_actions=int(max(columns)))
            else:
                counts = [
                    _count_actions(actions, f"{path}: {split}/actions") for split, actions in stored.items()
                ]
                found["number_of_actions"] = max(counts)
    except READ_ERRORS as error:
        raise DataError(
            f"{path}: the file is damaged ({first_line(error)}); copy it again or make it anew"
        ) from error
    return Shard(path, splits, replace(attributes, **found), frozenset(found))


def _count_actions(actions: h5py.Dataset, place: str) -> int:
    """Counts the actions of a file that doesn't say how many there are: the highest and one more."""
    numbers = decode("actions", actions[...], 1, place)
    if int(numbers.min()) < 0:
        raise DataError(f"{place} holds {numbers.min()}, expected numbers of actions, from 0")
    return int(numbers.max()) + 1


def _inspect_split(
    path: Path, split: Split, group: h5py.Group, action_space: ActionSpace | None
) -> dict[str, StoredArray]:
    arrays: dict[str, StoredArray] = {}
    sizes: dict[str, int] = {}
    for name in ARRAYS:
        array, schema = group.get(name), array_schema(name, action_space)
        if not isinstance(array, h5py.Dataset):
            continue
        if name == "actions" and array.ndim == 3 and len(schema.axes) == 2:
            schema = replace(schema, axes=(*schema.axes, "actions"))  # one-hot
        try:
            schema.check_shape(array.shape, sizes)
        except DataError as error:
            hint = ""
            if array.shape[:1] == (sizes.get("t", 0) - 1,) and array.ndim == len(schema.axes):
                hint = "; its last entry is of the transition out of the last frame: add zeros for that"
            raise DataError(f"{path}: {split}/{name} {error}{hint}") from error
        if array.dtype.kind not in "buif":
            raise DataError(f"{path}: {split}/{name} holds {array.dtype}, expected numbers")
        arrays[name] = StoredArray(tuple(array.shape), array.dtype, int(array.id.get_storage_size()))
    if "features" not in arrays:
        raise DataError(f"{path}: {split!r} has no array 'features'; it has: {', '.join(group) or 'nothing'}")
    return arrays


def _looks_binary(features: h5py.Dataset) -> bool:
    """Looks at a few sequences of a file without attributes; all the others are checked when they are read."""
    if features.dtype.kind == "b":
        return True
    sequences = np.unique(np.linspace(0, features.shape[1] - 1, _SNIFFED_SEQUENCES).astype(int))
    return all(_is_binary(features[:, sequence]) for sequence in sequences.tolist())


class OpenFiles:
    """Opens files and their arrays when they are asked for, and keeps the last ones used open.

    It may be used by several threads; a process that was forked or sent a pickled copy opens them for itself.

    Args:
        paths: The files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._connect()

    def file(self, number: int) -> h5py.File:
        """Returns a file, which stays open while fewer than `MOST_OPEN` others are asked for.

        Raises:
            DataError: If it can't be opened.
        """
        self._renew()
        with self._lock:
            if number not in self._files:
                if len(self._files) >= MOST_OPEN:
                    self._close(next(iter(self._files)))
                self._files[number] = open_hdf5(self.paths[number])
            self._files.move_to_end(number)
            return self._files[number]

    def array(self, number: int, name: str) -> h5py.Dataset:
        """Returns the array ``name`` of a file."""
        self._renew()
        with self._lock:
            file, key = self.file(number), (number, name)
            if key not in self._arrays:
                self._arrays[key] = file[name]
            return self._arrays[key]

    def read(self, number: int, name: str, where: tuple[slice, ...]) -> NDArray[Any]:
        """Reads a part of an array; HDF5 takes one reader at a time."""
        self._renew()
        with self._lock:
            values: NDArray[Any] = self.array(number, name)[where]
        return values

    def close(self) -> None:
        """Closes the files; they are opened again when they are asked for."""
        self._renew()
        with self._lock:
            for number in tuple(self._files):
                self._close(number)

    def _close(self, number: int) -> None:
        self._files.pop(number).close()
        for key in [key for key in self._arrays if key[0] == number]:
            del self._arrays[key]

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.paths = state["paths"]
        self._connect()

    def _connect(self) -> None:
        self._lock = threading.RLock()
        self._files: OrderedDict[int, h5py.File] = OrderedDict()
        self._arrays: dict[tuple[int, str], h5py.Dataset] = {}
        self._process = os.getpid()

    def _renew(self) -> None:
        if self._process != os.getpid():  # forked: HDF5 handles and locks of the parent are not ours to use
            self._connect()


def _is_binary(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "b" or bool(((array == 0) | (array == 1)).all())


def decode(
    name: str,
    array: NDArray[Any],
    maximum_value: int,
    place: str,
    action_space: ActionSpace | None = None,
) -> NDArray[Any]:
    """Converts an array as it was stored, without losing anything silently.

    Args:
        name: Its name in the schema.
        array: Its values, time first.
        maximum_value: 1 or 255, what frames are to reach; floats in [0, 1] are scaled by 255 if it is 255.
        place: Where it stands, for error messages.
        action_space: The file's.

    Returns:
        The values in the schema's dtype; one-hot actions as their numbers.

    Raises:
        DataError: If the values can't be those of such an array.
    """
    schema = array_schema(name, action_space)
    if name == "actions" and array.ndim == 3 and len(schema.axes) == 2:
        return _decode_one_hot(array, place)
    dtype = schema.dtype
    if name == "features":
        return _decode_features(array, maximum_value, place)
    if dtype.kind == "f":
        return array.astype(dtype, copy=False)
    if array.dtype == dtype:
        return array
    with np.errstate(invalid="ignore"):
        converted = array.astype(dtype)
    if not np.array_equal(converted, array):
        wrong = array[converted != array].flat[0]
        kinds = {"b": "0 or 1", "u": "whole numbers from 0 to 255"}
        raise DataError(f"{place} holds {wrong}, expected {kinds.get(dtype.kind, 'whole numbers')}")
    return converted


def _decode_features(array: NDArray[Any], maximum_value: int, place: str) -> NDArray[Any]:
    if maximum_value == 1:
        if array.dtype.kind == "b":
            return array.view(np.uint8)
        if array.dtype == np.uint8:
            fine = array.size == 0 or int(array.max()) <= 1
        else:
            fine = _is_binary(array)
        if not fine:
            wrong = array[(array != 0) & (array != 1)].flat[0]
            raise DataError(
                f"{place} holds {wrong}, but the file's frames are binary (0 or 1); for grey or colour "
                "frames give the file an attribute maximum_value = 255"
            )
        return array.astype(np.uint8, copy=False)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    low, high = float(array.min(initial=0)), float(array.max(initial=0))
    if array.dtype.kind == "f":
        if not (low >= 0 and high <= 1):
            raise DataError(
                f"{place} holds floats from {low:g} to {high:g}, expected values in [0, 1] (or uint8 in "
                "0..255); divide them by their maximum, or store them as uint8"
            )
        return np.rint(array * 255.0).astype(np.uint8)
    if array.dtype.kind not in "iu" or low < 0 or high > 255:
        raise DataError(f"{place} holds {array.dtype} from {low:g} to {high:g}, expected 0..255")
    return array.astype(np.uint8)


def _decode_one_hot(array: NDArray[Any], place: str) -> NDArray[Any]:
    number = np.argmax(array, axis=-1)
    one = np.take_along_axis(array, number[..., None], axis=-1)[..., 0] == 1
    fine = one & ((array != 0).sum(axis=-1) == 1)
    if not fine.all():
        t, n = (int(index[0]) for index in np.nonzero(~fine))
        row = np.array2string(array[t, n], separator=", ", threshold=12)
        raise DataError(
            f"{place} isn't one-hot: in frame {t} the row is {row}, expected a single 1 among zeros; numbers of "
            "actions have the shape (T, N)"
        )
    actions: NDArray[np.int64] = number.astype(np.int64)
    return actions

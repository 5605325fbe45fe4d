"""Reading a dataset: one HDF5 file, or a folder of shards read as one."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from rnem_world.actions import ActionSpace
from rnem_world.data.schema import SPLITS, ArraySchema, DatasetAttributes, Split, array_schema
from rnem_world.data.shards import (
    READ_ERRORS,
    OpenFiles,
    Shard,
    StoredArray,
    decode,
    find_shards,
    first_line,
    inspect_file,
)
from rnem_world.errors import DataError, suggest

_SAME = (
    "schema_version",
    "environment_id",
    "settings",
    "number_of_actions",
    "action_space",
    "maximum_value",
)

Place = tuple[int, Split, int]
"""One sequence of a dataset: the number of the shard, the split and the row there."""


@dataclass(frozen=True)
class SplitInfo:
    """The sizes of one split.

    Attributes:
        number_of_sequences: N.
        number_of_frames: T.
        height: H in pixels.
        width: W in pixels.
        channels: C.
        arrays: The names of the arrays, in the order of the schema.
        number_of_actions: A, or None without actions or if an action is more than one whole number.
        action_space: What an action is; None without actions.
        actions_are_counted: Whether A was found out from those that occur; there may be more.
    """

    number_of_sequences: int
    number_of_frames: int
    height: int
    width: int
    channels: int
    arrays: tuple[str, ...]
    number_of_actions: int | None
    action_space: ActionSpace | None = None
    actions_are_counted: bool = False


class Dataset:
    """A dataset opened for reading.

    Reads are safe from several threads; a pickled or forked copy opens the files for itself. Usable as a
    context manager.

    Attributes:
        path: What was opened.
        shard_paths: Its files.
        attributes: What the files say about themselves.
        found_out: The names of those that they don't say, and that were found out from the arrays.
    """

    def __init__(self, path: Path, shard_paths: Sequence[Path]) -> None:
        self.path = path
        self.shard_paths = tuple(shard_paths)
        self._files = OpenFiles(shard_paths)
        try:
            shards = [
                inspect_file(shard, self._files.file(number)) for number, shard in enumerate(self.shard_paths)
            ]
            self.attributes: DatasetAttributes = _common_attributes(shards)
            self.found_out: frozenset[str] = frozenset().union(*(shard.found_out for shard in shards))
            _check_agreement(shards)
        except BaseException:
            self.close()
            raise
        self._offsets: dict[Split, NDArray[Any]] = {}
        self._stored: dict[Split, dict[str, StoredArray]] = {}
        for split in SPLITS:
            parts = [shard.splits[split] for shard in shards if split in shard.splits]
            if parts:
                self._stored[split] = {name: _together([part[name] for part in parts]) for name in parts[0]}
                sizes = [
                    shard.splits[split]["features"].shape[1] if split in shard.splits else 0
                    for shard in shards
                ]
                self._offsets[split] = np.cumsum([0, *sizes])

    @classmethod
    def open(cls, path: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Dataset:
        """Opens a file, a folder of shards, or a list of shards.

        Args:
            path: One ``.h5`` file, a folder whose ``.h5`` files, sorted by name, are read as one dataset, or
                the files themselves in the order wanted.

        Raises:
            DataError: If it is missing, damaged, no dataset, or its shards differ.
        """
        if isinstance(path, str | os.PathLike):
            place = Path(
                path
            ).absolute()  # files are opened again later, perhaps from another working directory
            return cls(place, find_shards(place))
        shards = [Path(shard).absolute() for shard in path]
        if not shards:
            raise DataError("no files were given: expected at least one shard")
        return cls(shards[0], shards)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that the dataset has."""
        return tuple(self._stored)

    def info(self, split: Split) -> SplitInfo:
        """Returns the sizes of a split.

        Raises:
            DataError: If the dataset lacks it.
        """
        stored = self.stored(split)
        said, has_actions = self.attributes, "actions" in stored
        action_space = said.action_space if has_actions else None
        if has_actions and action_space is None and said.number_of_actions is not None:
            action_space = ActionSpace.discrete(said.number_of_actions)
        frames, sequences, height, width, channels = stored["features"].shape
        return SplitInfo(
            number_of_sequences=sequences,
            number_of_frames=frames,
            height=height,
            width=width,
            channels=channels,
            arrays=tuple(stored),
            number_of_actions=said.number_of_actions if has_actions else None,
            action_space=action_space,
            actions_are_counted=has_actions and "number_of_actions" in self.found_out,
        )

    def stored(self, split: Split) -> dict[str, StoredArray]:
        """Describes the arrays of a split as they are stored, all shards together.

        Raises:
            DataError: If the dataset lacks the split.
        """
        if split not in self._stored:
            raise DataError(f"{self.path} has no split {split!r}: {suggest(split, self.splits)}")
        return self._stored[split]

    def places(self, split: Split) -> list[Place]:
        """Lists where each sequence of a split is."""
        sizes = np.diff(self._offsets[split]).tolist()
        return [(shard, split, row) for shard, size in enumerate(sizes) for row in range(size)]

    def handle(self, shard: int, split: Split, name: str) -> h5py.Dataset:
        """Returns the open HDF5 array of one shard."""
        return self._files.array(shard, f"{split}/{name}")

    def require(self, split: Split, arrays: Iterable[str]) -> None:
        """Checks that a split has the arrays.

        Raises:
            DataError: Naming the first that is missing, and those that are there.
        """
        there = self.info(split).arrays
        for name in arrays:
            if name not in there:
                raise DataError(f"{self.path} has no array {name!r} in {split!r}: {suggest(name, there)}")

    def schema(self, name: str) -> ArraySchema:
        """Says what an array looks like, actions as they are here."""
        return array_schema(name, self.attributes.action_space)

    def decoded_tail(self, split: Split, name: str) -> tuple[int, ...]:
        """Returns the shape of an array's entry for one frame of one sequence, as `read` gives it."""
        if name == "actions":
            space = self.attributes.action_space
            return () if space is None else space.stored_shape
        return self.stored(split)[name].shape[2:]

    def read(
        self,
        split: Split,
        indices: Sequence[int] | NDArray[Any],
        arrays: Sequence[str],
        start: int | Sequence[int] | NDArray[Any] = 0,
        length: int | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Reads sequences, sample by sample, or run by run where indices are consecutive.

        Args:
            split: The split.
            indices: Which sequences, in any order, repeated or not.
            arrays: Which arrays.
            start: The first frame, one for all or one for each sequence.
            length: How many frames; all from ``start`` on if None.

        Returns:
            The arrays by name, time first, (length, len(indices), ...), in the schema's dtypes.

        Raises:
            DataError: If something isn't there or is damaged.
        """
        self.require(split, arrays)
        info = self.info(split)
        chosen = np.asarray(indices, dtype=np.int64)
        starts = np.broadcast_to(np.asarray(start, dtype=np.int64), chosen.shape)
        if length is None:
            length = info.number_of_frames - int(starts.max(initial=0))
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < info.number_of_sequences):
            raise DataError(
                f"sequences {chosen.min()} to {chosen.max()} were asked for, but {split!r} of {self.path} "
                f"has {info.number_of_sequences}, counted from 0"
            )
        last = int(starts.max(initial=0)) + length
        if length < 1 or starts.min(initial=0) < 0 or last > info.number_of_frames:
            raise DataError(
                f"frames {starts.min(initial=0)} to {last - 1} were asked for, but the sequences in "
                f"{split!r} of {self.path} have {info.number_of_frames}, counted from 0"
            )
        result = {
            name: np.empty((length, len(chosen), *self.decoded_tail(split, name)), self.schema(name).dtype)
            for name in arrays
        }
        for begin, end, shard, row in self._runs(split, chosen, starts):
            first = int(starts[begin])
            for name, array in result.items():
                rows = slice(row, row + end - begin)
                array[:, begin:end] = self._read_rows(shard, split, name, slice(first, first + length), rows)
        return result

    def close(self) -> None:
        """Closes the files; a later read opens them again."""
        self._files.close()

    def __enter__(self) -> Dataset:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {self._offsets[split][-1]}" for split in self.splits)
        return f"Dataset({str(self.path)!r}: {sizes})"

    def _runs(
        self, split: Split, chosen: NDArray[Any], starts: NDArray[Any]
    ) -> Iterable[tuple[int, int, int, int]]:
        """Yields (begin, end) of consecutive sequences, their shard, and the first one's row there."""
        if not len(chosen):
            return
        shard = np.searchsorted(self._offsets[split], chosen, side="right") - 1
        breaks = (np.diff(chosen) != 1) | (np.diff(shard) != 0) | (np.diff(starts) != 0)
        edges = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(chosen)]
        for begin, end in itertools.pairwise(edges):
            number = int(shard[begin])
            yield begin, end, number, int(chosen[begin] - self._offsets[split][number])

    def _read_rows(self, shard: int, split: Split, name: str, frames: slice, rows: slice) -> NDArray[Any]:
        place = f"{self.shard_paths[shard]}: {split}/{name}, sequences {rows.start} to {rows.stop - 1},"
        try:
            values = self._files.read(shard, f"{split}/{name}", (frames, rows))
        except READ_ERRORS as error:
            raise DataError(
                f"{place} can't be read ({first_line(error)}): the file is damaged; copy it again or make it "
                "anew"
            ) from error
        return decode(name, values, self.attributes.maximum_value, place, self.attributes.action_space)


def _together(parts: Sequence[StoredArray]) -> StoredArray:
    """Describes the same array of several shards as one."""
    first, sequences = parts[0], sum(part.shape[1] for part in parts)
    shape = (first.shape[0], sequences, *first.shape[2:])
    return StoredArray(shape, first.dtype, sum(part.stored_bytes for part in parts))


def _common_attributes(shards: Sequence[Shard]) -> DatasetAttributes:
    """Joins the attributes of all shards.

    Returns:
        The attributes of the first; the seed is None if the shards have different ones, and different policies and
        versions of packages are all named.

    Raises:
        DataError: If those that matter differ.
    """
    # Frames that look binary are grey if those of another shard are, and there an action more may occur.
    guessed = {
        name: max(getattr(shard.attributes, name) for shard in shards if name in shard.found_out)
        for name in frozenset().union(*(shard.found_out for shard in shards))
    }
    found = [
        replace(shard.attributes, **{name: guessed[name] for name in shard.found_out}) for shard in shards
    ]
    first = found[0]
    for shard, attributes in zip(shards, found, strict=True):
        check_alike(first, attributes, shards[0].path.name, str(shard.path))
    policies = [str(attributes.settings.get("policy")) for attributes in found]
    if len(set(policies)) > 1:
        first = replace(first, settings=first.settings | {"policy": _all_named(policies)})
    versions = [_versions(attributes.settings) for attributes in found]
    if any(other != versions[0] for other in versions):
        names = dict.fromkeys(name for each in versions for name in each)
        joined = {name: _all_named(each[name] for each in versions if name in each) for name in names}
        recipe = first.settings["recipe"] | {"versions": joined}
        first = replace(first, settings=first.settings | {"recipe": recipe})
    return first if len({attributes.seed for attributes in found}) == 1 else replace(first, seed=None)


def check_alike(
    expected: DatasetAttributes, given: DatasetAttributes, expected_where: str, given_where: str
) -> None:
    """Checks that two files may be read as one dataset, as far as their attributes tell.

    Args:
        expected: The attributes of one.
        given: Those of the other.
        expected_where: What the one is called in an error.
        given_where: What the other is called.

    Raises:
        DataError: If attributes that matter differ.
    """
    for name in _SAME:
        wanted, found = (_what_must_agree(getattr(one, name)) for one in (expected, given))
        if found != wanted:
            raise DataError(
                f"{given_where}: {name} is {found!r}, but {wanted!r} in {expected_where}; only shards made with the "
                "same settings can be read as one dataset"
            )


def _what_must_agree(value: object) -> object:
    # Who acted may differ from shard to shard, and by which versions of packages: the rules of the world are the same.
    # A file has lists where a program has tuples.
    if not isinstance(value, dict):
        return value
    value = {key: part for key, part in value.items() if key != "policy"}
    if "recipe" in value:
        value["recipe"] = without_versions(value["recipe"])
    return json.loads(json.dumps(value))


def without_versions(setting: Any) -> Any:
    """Gives a setting of a dataset without the versions of packages, by which the rules of the world don't change."""
    if not isinstance(setting, dict):
        return setting
    return {key: part for key, part in setting.items() if key != "versions"}


def _all_named(texts: Iterable[str]) -> str:
    """Names each once, also those of datasets that were joined before."""
    return " + ".join(sorted({part for text in texts for part in text.split(" + ")}))


def _versions(settings: Mapping[str, Any]) -> dict[str, str]:
    recipe = settings.get("recipe")
    found = recipe.get("versions") if isinstance(recipe, dict) else None
    return {name: str(version) for name, version in found.items()} if isinstance(found, dict) else {}


def _check_agreement(shards: Sequence[Shard]) -> None:
    """Checks that each split has the same arrays, of the same sizes, in all shards that have it.

    Raises:
        DataError: Naming the first shard that differs.
    """
    first: dict[Split, tuple[Path, dict[str, tuple[int, ...]]]] = {}
    for shard in shards:
        for split, arrays in shard.splits.items():
            shapes = {name: (array.shape[0], *array.shape[2:]) for name, array in arrays.items()}
            path, expected = first.setdefault(split, (shard.path, shapes))
            if shapes != expected:
                raise DataError(
                    f"{shard.path}: {split!r} has the arrays {shapes} (sizes without the sequences), but {path.name} "
                    f"has {expected}; only equal shards can be read as one dataset"
                )

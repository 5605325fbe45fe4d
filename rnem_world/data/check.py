"""Looking through a whole dataset for the first thing wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rnem_world.data.arrays import unknown_name
from rnem_world.data.blanks import BlankCounter, episode_warning, go_on_after_the_end
from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import (
    ARRAYS,
    ORIGINAL_LAYOUT,
    SPLITS,
    DatasetAttributes,
    Split,
    find_wrong_value,
)
from rnem_world.data.shards import open_hdf5
from rnem_world.errors import DataError

_BLOCK_BYTES = 2**23


@dataclass(frozen=True)
class Problem:
    """What is wrong with a dataset, and where; a part of the place is None if the problem concerns all of it.

    Attributes:
        message: What is wrong, in one line, with its place.
        split: The split.
        array: The array.
        sequence: The sequence in that split, from 0.
        frame: The frame, from 0.
    """

    message: str
    split: Split | None = None
    array: str | None = None
    sequence: int | None = None
    frame: int | None = None


@dataclass(frozen=True)
class Report:
    """What :func:`check_dataset` found.

    Attributes:
        path: The dataset.
        sequences: How many sequences of each split were looked through without finding a problem.
        problem: The first thing wrong, or None.
        warnings: What is strange but not wrong.
        notes: What was found out about a file that another program wrote, and what follows from it.
    """

    path: Path
    sequences: dict[Split, int]
    problem: Problem | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def raise_problem(self) -> None:
        """Raises the problem, if there is one.

        Raises:
            DataError: With its message.
        """
        if self.problem is not None:
            raise DataError(self.problem.message)


class _Found(Exception):  # noqa: N818 it's how a search ends, no error
    def __init__(
        self, message: str, split: Split, array: str, sequence: int | None = None, frame: int | None = None
    ) -> None:
        self.problem = Problem(message, split, array, sequence, frame)


def check_dataset(path: str | os.PathLike[str]) -> Report:
    """Reads every chunk of a dataset and checks shapes, dtypes and values; needs little memory.

    Args:
        path: A file, or a folder of shards.

    Returns:
        The first thing wrong, if anything, and warnings.
    """
    warnings: list[str] = []
    notes: list[str] = []
    sequences: dict[Split, int] = {}
    problem = None
    try:
        with Dataset.open(path) as dataset:
            warnings += _unread(dataset) + _strange_sizes(dataset)
            for split in dataset.splits:
                _check_dtypes(dataset, split)
                warnings += _check_split(dataset, split)
                sequences[split] = dataset.info(split).number_of_sequences
            if dataset.found_out or dataset.attributes.schema_version == ORIGINAL_LAYOUT:
                notes += _what_follows(dataset)
    except DataError as error:
        problem = Problem(str(error))
    except _Found as found:
        problem = found.problem
    return Report(Path(path), sequences, problem, tuple(warnings), tuple(notes))


def _unread(dataset: Dataset) -> list[str]:
    """Names what is in the files that nobody will read."""
    found: dict[str, None] = {}  # a set that keeps its order
    attributes = [entry.name for entry in fields(DatasetAttributes)]
    for path in dataset.shard_paths:
        with open_hdf5(path) as file:
            for name in file.attrs.keys() - set(attributes):
                found[f"the attribute {unknown_name(name, attributes)}"] = None
            for split in file:
                if split not in SPLITS:
                    found[unknown_name(split, SPLITS)] = None
                    continue
                group = file[split]
                misplaced = {name for each in (group, *group.values()) for name in each.attrs}
                for name in sorted(misplaced & set(attributes)):
                    found[f"the attribute {name} in {split} (it belongs to the file)"] = None
                for name in group.keys() - ARRAYS.keys():
                    found[f"{split}/{unknown_name(name)}"] = None
    return [f"nothing will read {what}" for what in found]


def _what_follows(dataset: Dataset) -> list[str]:
    """Says how a file that another program wrote is understood, and what a model can learn from it."""
    notes = []
    for split in dataset.splits:
        info = dataset.info(split)
        notes.append(
            f"{split}: {info.number_of_sequences} sequences of {info.number_of_frames} frames, {info.height} x "
            f"{info.width} x {info.channels}; time is the first axis"
        )
    values = "0 and 1" if dataset.attributes.maximum_value == 1 else "0 to 255"
    if "maximum_value" in dataset.found_out:
        values += ", as those looked at have; the attribute maximum_value (1 or 255) says it for certain"
    notes.append(f"frames: {values}")
    missing = [split for split in ("training", "validation") if split not in dataset.splits]
    if missing:
        notes.append(f"training: not possible, it needs the group {missing[0]!r}")
    if "training" not in dataset.splits:
        return notes
    info = dataset.info("training")
    if info.action_space is None:
        notes.append("actions: none, a world model won't have any (one action, which does nothing)")
    elif info.number_of_actions is None:
        notes.append(f"actions: {info.action_space.described}")
    else:
        counted = ""
        if "number_of_actions" in dataset.found_out:
            certain = "the attribute number_of_actions says it for certain"
            counted = f", counted: one more than the highest that occurs; {certain}"
        notes.append(f"actions: {info.number_of_actions}{counted}")
    notes += [_what_heads_learn(dataset, name) for name in ("rewards", "terminations")]
    return notes


def _what_heads_learn(dataset: Dataset, name: str) -> str:
    info = dataset.info("training")
    if "rewards" not in info.arrays:
        return f"{name}: a world model won't learn them, for there are no rewards"
    if name not in info.arrays:
        return f"{name}: none, a world model won't learn them"
    values = dataset.read("training", range(info.number_of_sequences), (name,))[name]
    return f"{name}: in {np.count_nonzero(values)} of {values.size} transitions they aren't 0"


def _strange_sizes(dataset: Dataset) -> list[str]:
    warnings = []
    shapes = {}
    for split in dataset.splits:
        info = dataset.info(split)
        shapes[split] = (info.height, info.width, info.channels)
        if info.number_of_frames < 2:
            warnings.append(f"{split}: sequences of a single frame, there is nothing to predict")
    if len(set(shapes.values())) > 1:
        warnings.append(f"the frames of the splits differ in height, width or channels: {shapes}")
    return warnings


def _check_dtypes(dataset: Dataset, split: Split) -> None:
    number_of_actions = dataset.attributes.number_of_actions
    for name, stored in dataset.stored(split).items():
        problem = None
        if (
            dataset.attributes.schema_version != ORIGINAL_LAYOUT
            and stored.dtype != dataset.schema(name).dtype
        ):
            problem = f"is stored as {stored.dtype}, expected {dataset.schema(name).dtype}"
        is_one_hot = name == "actions" and len(stored.shape) > len(dataset.schema(name).axes)
        if is_one_hot and number_of_actions != stored.shape[2]:
            problem = (
                f"has {stored.shape[2]} columns, but the file says there are {number_of_actions} actions"
            )
        if problem:
            raise _Found(f"{dataset.path}: {split}/{name} {problem}", split, name)


def _check_split(dataset: Dataset, split: Split) -> list[str]:
    """Checks every value of a split and returns the warnings."""
    info, attributes = dataset.info(split), dataset.attributes
    balls = dataset.stored(split)["positions"].shape[2] if "positions" in info.arrays else None
    blanks, crossing = BlankCounter(attributes.maximum_value), 0
    total = info.number_of_sequences * len(info.arrays)
    with tqdm(total=total, desc=f"checking {split}", unit="seq", disable=None) as progress:
        for name in info.arrays:
            for first, values in _blocks(dataset, split, name):
                wrong = find_wrong_value(
                    name, values, info.number_of_actions, attributes.maximum_value, attributes.action_space
                )
                place: tuple[int, ...] = ()
                if wrong is not None:
                    place, message = (
                        (wrong.frame, wrong.sequence),
                        f"is {wrong.value}, expected {wrong.expected}",
                    )
                elif name == "groups" and balls is not None and int(values.max()) > balls:
                    place = tuple(int(index[0]) for index in np.nonzero(values > balls)[:2])
                    message = f"has the object {values[place].max()}, but positions has only {balls} balls"
                if place:
                    frame, sequence = place[0], first + place[1]
                    where = f"{dataset.path}: {split}/{name}, sequence {sequence}, frame {frame}"
                    raise _Found(f"{where}: {message}", split, name, sequence, frame)
                if name == "features":
                    blanks.add(values)
                elif name == "terminations" and "is_first" not in info.arrays:
                    crossing += go_on_after_the_end(values)
                progress.update(values.shape[1])
    where = f"{split}: "
    return blanks.warnings(where) + episode_warning(crossing, info.number_of_sequences, where)


def _blocks(dataset: Dataset, split: Split, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yields the first sequence and the values of blocks of sequences."""
    stored = dataset.stored(split)[name]
    sequences = stored.shape[1]
    one = stored.dtype.itemsize * int(np.prod(stored.shape)) // sequences
    size = max(1, _BLOCK_BYTES // one)
    for first in range(0, sequences, size):
        rows = range(first, min(first + size, sequences))
        try:
            yield first, dataset.read(split, rows, (name,))[name]
        except DataError:
            raise _locate(dataset, split, name, rows) from None


def _locate(dataset: Dataset, split: Split, name: str, rows: range) -> _Found:
    """Finds the first sequence that can't be read, and the frame if its others can."""
    frames = dataset.info(split).number_of_frames
    for row in rows:
        message = _complaint(dataset, split, name, row, 0, frames)
        if message is None:
            continue
        complaints = [_complaint(dataset, split, name, row, frame, 1) for frame in range(frames)]
        wrong = [frame for frame, complaint in enumerate(complaints) if complaint is not None]
        if not wrong or len(wrong) == frames:
            return _Found(message, split, name, row)
        return _Found(f"{complaints[wrong[0]]} (frame {wrong[0]})", split, name, row, wrong[0])
    return _Found(f"{dataset.path}: {split}/{name} can't be read", split, name)


def _complaint(dataset: Dataset, split: Split, name: str, row: int, start: int, length: int) -> str | None:
    try:
        dataset.read(split, [row], (name,), start, length)
    except DataError as error:
        return str(error)
    return None

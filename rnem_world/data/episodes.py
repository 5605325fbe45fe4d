"""Episodes within recorded sequences: how long they are, and where there are frames that no reset parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import SPLITS, Split

SHORTEST_CONTEXT, LONGEST_CONTEXT = 2, 16
"""Real frames that dreams begin with, where the length of the episodes decides."""
CONTEXTS_IN_EPISODE = 4
LONG_EPISODE = 256
"""Frames of an episode whose beginning is a small part of it."""
LOOKED_AT = 2048
"""Sequences from which the length of the episodes is told."""
BLOCK = 512
"""Sequences that are looked through at once."""


class Windows(NamedTuple):
    """Pieces of sequences.

    Attributes:
        sequences: Of which sequence of the split each is.
        begins: Its first frame there.
    """

    sequences: Int64[np.ndarray, " n"]
    begins: Int64[np.ndarray, " n"]


def marks_episodes(dataset: Dataset, split: Split) -> bool:
    """Tells whether sequences of a split may cross resets, and say where."""
    return split in dataset.splits and "is_first" in dataset.info(split).arrays


def typical_length(dataset: Dataset) -> int | None:
    """Tells the median number of frames that belong together: of an episode, or the part of it in one sequence.

    Returns:
        None for a dataset that doesn't say where episodes begin.
    """
    split = next((name for name in SPLITS if marks_episodes(dataset, name)), None)
    if split is None:
        return None
    rows = np.arange(min(dataset.info(split).number_of_sequences, LOOKED_AT))
    begins = dataset.read(split, rows, ["is_first"])["is_first"]
    begins[0] = True
    frame, column = np.nonzero(begins)
    order = np.lexsort((frame, column))
    frame, column = frame[order], column[order]
    following = np.append(frame[1:], len(begins))
    is_last = np.append(column[1:] != column[:-1], True)
    return int(np.median(np.where(is_last, len(begins), following) - frame))


def usual_context(dataset: Dataset) -> int | None:
    """Tells how many real frames dreams begin with: a quarter of an episode, at least 2 and at most 16.

    Returns:
        None for a dataset that doesn't say where episodes begin.
    """
    length = typical_length(dataset)
    return None if length is None else clipped_context(length)


def clipped_context(length: int) -> int:
    """Tells how many real frames dreams begin with, by the frames of a typical episode."""
    return min(max(length // CONTEXTS_IN_EPISODE, SHORTEST_CONTEXT), LONGEST_CONTEXT)


def is_long(length: float) -> bool:
    """Tells whether so little of an episode lies near its beginning that dreams had better begin anywhere in it."""
    return length > LONG_EPISODE


def begins_anywhere(dataset: Dataset, split: Split) -> bool:
    """Tells whether dreams had better begin anywhere in the episodes of a split, which says where they begin.

    The mean length of an episode counts, not that of the parts that sequences have of it.
    """
    info = dataset.info(split)
    rows = np.arange(min(info.number_of_sequences, LOOKED_AT))
    begins = int(dataset.read(split, rows, ["is_first"])["is_first"].sum())
    return is_long(len(rows) * info.number_of_frames / max(begins, 1))


def find_windows(
    dataset: Dataset,
    split: Split,
    together: int,
    length: int,
    limit: int,
    at_first: bool = False,
    sequences: Sequence[int] | None = None,
) -> Windows:
    """Finds pieces of sequences that begin with frames of one episode, which goes on after them.

    Args:
        dataset: The dataset.
        split: Which split.
        together: Frames that have to be of one episode, none of them its last.
        length: Frames of a piece, of which those after may be of other episodes.
        limit: How many pieces at most.
        at_first: Whether a piece begins with the first frame of an episode, and a sequence may have several; else each
            sequence has one, as near to its beginning as can be.
        sequences: Of which sequences; None for all.
    """
    info = dataset.info(split)
    there = [name for name in ("is_first", "terminations", "truncations") if name in info.arrays]
    wanted = np.arange(info.number_of_sequences) if sequences is None else np.array(sequences, dtype=np.int64)
    last = info.number_of_frames - length
    if last < 0:
        wanted = wanted[:0]
    if "is_first" not in there:
        return Windows(wanted[:limit], np.zeros_like(wanted[:limit]))
    found, begins = [wanted[:0]], [wanted[:0]]
    for start in range(0, len(wanted), BLOCK):
        missing = limit - sum(map(len, found))
        if missing <= 0:
            break
        rows = wanted[start : start + BLOCK]
        marks = dataset.read(split, rows, there)
        fits = _one_episode(marks, together)[: last + 1]
        if at_first:
            column, frame = np.nonzero((fits & marks["is_first"][: last + 1]).T)
        else:
            column = np.flatnonzero(fits.any(axis=0))
            frame = fits.argmax(axis=0)[column]
        found.append(rows[column][:missing])
        begins.append(frame[:missing])
    return Windows(np.concatenate(found), np.concatenate(begins))


def _one_episode(marks: dict[str, NDArray[np.bool_]], together: int) -> Bool[np.ndarray, "s n"]:
    """Tells of the frames whether so many from each on are of one episode, and its last frame isn't among them.

    Args:
        marks: ``is_first`` (t, n), and which transitions end an episode or cut it off, where that is known.
        together: The number of frames.

    Returns:
        Of the first t - together + 1 frames.
    """
    first = marks["is_first"]
    # What parts frame t from t + 1: a reset, or the end that the transition between them makes.
    parted = np.concatenate([first[1:], np.zeros((1, first.shape[1]), np.bool_)])
    after = parted[together - 1 :]
    for name in ("terminations", "truncations"):
        if name in marks:
            parted = parted | marks[name]
    parts = np.concatenate([np.zeros((1, first.shape[1]), np.int64), np.cumsum(parted, axis=0)])
    inside = parts[together - 1 : -1] - parts[: len(parts) - together]
    fits: Bool[np.ndarray, "s n"] = (inside == 0) & ~after
    return fits

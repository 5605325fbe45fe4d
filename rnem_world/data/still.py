"""Which actions leave the picture as it is: what first frames can be watched under, before anything is done."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Shaped

from rnem_world.data.dataset import Dataset

MOST_SEQUENCES = 200
"""Sequences that are looked at."""

LARGEST_SHARE = 0.97
"""An action moves something if what changes under the stillest one is less than this share of what changes under it."""

SURE = 2.0
"""Standard errors by which that has to be less."""

NONE = -1
"""Stands for no value."""


def still_actions(dataset: Dataset) -> tuple[int, ...] | None:
    """Finds the value of each whole number of an action after which least of the picture changes.

    In many environments one value is to do nothing; in others, such as CartPole, whose values push to one side or the
    other, each moves things.

    Args:
        dataset: Data with actions; of its training split the first sequences are looked at.

    Returns:
        A value for each number, from 0 as they are stored, the first where several do nothing; -1 where all move
        things alike. None for data without actions, or with real numbers, among which 0 stands for nothing.
    """
    space = dataset.info("training").action_space
    if space is None or space.kind == "box":
        return None
    info = dataset.info("training")
    names = ["features", "actions", *({"is_first"} & set(info.arrays))]
    read = dataset.read("training", range(min(info.number_of_sequences, MOST_SEQUENCES)), names)
    frames = read["features"]
    change = np.empty((len(frames) - 1, frames.shape[1]))
    for step in range(len(change)):  # one at a time, for all differences at once would fill the memory
        moved = frames[step + 1].astype(np.int16) - frames[step]
        change[step] = np.abs(moved).mean(axis=(1, 2, 3))
    # The action of a frame leads to the next one, unless an episode begins there.
    counts = ~read["is_first"][1:] if "is_first" in read else np.ones(change.shape, np.bool_)
    actions = read["actions"][: len(change)][counts].reshape(-1, space.length)
    sizes = space.sizes
    return tuple(_stillest(change[counts], actions[:, number], size) for number, size in enumerate(sizes))


def _stillest(change: Float64[np.ndarray, " n"], values: Shaped[np.ndarray, " n"], size: int) -> int:
    """Finds the first of the values after which least changes, if any other changes more."""
    found = [change[values == value] for value in range(size)]
    if min(len(changes) for changes in found) < 2:
        return NONE
    means = np.array([changes.mean() for changes in found])
    errors = np.array([changes.std() / np.sqrt(len(changes)) for changes in found])
    least = int(means.argmin())
    apart = means - means[least] > SURE * np.hypot(errors, errors[least])
    moves = apart & (means[least] < LARGEST_SHARE * means)
    return int((~moves).argmax()) if moves.any() else NONE

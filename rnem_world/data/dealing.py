"""Dealing windows out to the splits, so that no frame is in two of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from rnem_world.data.windows import ImportConfig
from rnem_world.seeding import numpy_generator
from rnem_world.types import SPLITS, Split


def deal_out(windows: list[tuple[int, int]], config: ImportConfig) -> dict[Split, list[int]]:
    """Deals the windows out to the splits, so that no frame is in two of them.

    Windows that don't overlap are shuffled; others stay in their order, and those at a border are left out.

    Args:
        windows: Clip and first frame of each.
        config: Ratio, seed, length and stride.

    Returns:
        The numbers of each split's windows.
    """
    counts = counts_by_ratio(len(windows), config.ratio)
    order = np.arange(len(windows))
    overlap = config.step < config.number_of_frames
    if not overlap:
        numpy_generator(config.seed, "import").shuffle(order)
    edges = np.cumsum([0, *counts])
    chosen: dict[Split, list[int]] = {}
    last: tuple[int, int] | None = None  # the last window of the splits before
    for split, (begin, end) in zip(SPLITS, pairwise(edges.tolist()), strict=True):
        numbers = order[begin:end].tolist()
        if overlap:
            numbers = [number for number in numbers if not _shares_frames(windows[number], last, config)]
            last = windows[numbers[-1]] if numbers else last
        chosen[split] = numbers
    return chosen


def _shares_frames(window: tuple[int, int], last: tuple[int, int] | None, config: ImportConfig) -> bool:
    return last is not None and window[0] == last[0] and window[1] < last[1] + config.number_of_frames


def counts_by_ratio(total: int, ratio: Sequence[float | int]) -> list[int]:
    """Divides sequences by the largest remainder; a split that is wanted gets at least one if there are enough."""
    wanted = np.array(ratio, dtype=np.float64) / sum(ratio) * total
    counts = np.floor(wanted + 1e-9).astype(int)
    for place in np.argsort(-(wanted - counts), kind="stable")[: total - counts.sum()]:
        counts[place] += 1
    if total >= np.count_nonzero(wanted):
        for place in np.flatnonzero((wanted > 0) & (counts == 0)):
            counts[place] += 1
            counts[np.argmax(counts)] -= 1
    return [int(count) for count in counts]

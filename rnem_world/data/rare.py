"""Drawing windows in which something rare happens more often, and telling by how much they then count too much."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy.typing import NDArray

from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import Split

SEQUENCES_AT_ONCE = 4096


@dataclass(frozen=True)
class Drawn:
    """Windows that were drawn, n of them.

    Attributes:
        sequences: Of which sequences they are.
        starts: Their first frames.
        weights: How often each would have been drawn without regard to events, over how often it is: what keeps a mean
            over windows what it would be.
    """

    sequences: Int64[np.ndarray, " n"]
    starts: Int64[np.ndarray, " n"]
    weights: Float32[np.ndarray, " n"]


class RareEvents:
    """The transitions of a split in which something rare happens: another reward than the usual one, or an end.

    Args:
        events: Whether something happens, for each sequence and transition.
        number_of_frames: Length of a window, which has one transition less.
        last_start: Windows begin at frame 0 to this one.
    """

    def __init__(self, events: Bool[np.ndarray, "n t"], number_of_frames: int, last_start: int) -> None:
        self._sequences = len(events)
        self._transitions, self._last = number_of_frames - 1, last_start
        rows, times = np.nonzero(events[:, : last_start + self._transitions])
        # The starts of the windows that an event lies in.
        self._low = np.maximum(times - self._transitions + 1, 0)
        self._high = np.minimum(times, last_start)
        self._rows = rows
        # How likely a window is drawn for its events: each event is as likely as any other, and so is each window
        # around it.
        density = np.zeros((len(events), last_start + self._transitions + 1))
        np.add.at(density, (rows, times + 1), 1.0 / (self._high - self._low + 1))
        self._cumulative = density.cumsum(axis=1) / max(len(rows), 1)

    @classmethod
    def of(
        cls, dataset: Dataset, split: Split, sequences: int, number_of_frames: int, last_start: int
    ) -> RareEvents:
        """Looks for them in the first sequences of a split.

        Args:
            dataset: The dataset.
            split: Its split, with rewards, ends, or both.
            sequences: How many sequences.
            number_of_frames: Length of a window.
            last_start: Windows begin at frame 0 to this one.
        """
        there = set(dataset.info(split).arrays)
        names = [name for name in ("rewards", "terminations", "is_first") if name in there]
        parts = []
        for first in range(0, sequences, SEQUENCES_AT_ONCE):
            rows = range(first, min(first + SEQUENCES_AT_ONCE, sequences))
            parts.append(dataset.read(split, rows, names))
        read = {name: np.concatenate([part[name] for part in parts], axis=1).T for name in names}
        events = np.zeros((sequences, dataset.info(split).number_of_frames), np.bool_)
        if "rewards" in read:
            values, counts = np.unique(read["rewards"], return_counts=True)
            events |= read["rewards"] != values[counts.argmax()]
        if "terminations" in read:
            events |= read["terminations"]
        if "is_first" in read:  # no transition leads to the first frame of an episode
            events[:, :-1] &= ~read["is_first"][:, 1:]
        return cls(events, number_of_frames, last_start)

    def draw(
        self,
        sequences: NDArray[np.int64],
        starts: NDArray[np.int64],
        fraction: float,
        generator: np.random.Generator,
    ) -> Drawn:
        """Puts windows around events in the place of some that were drawn evenly.

        Args:
            sequences: Of which sequences those are.
            starts: Their first frames.
            fraction: The part of them that gives way.
            generator: Draws which, and around what.
        """
        number = len(sequences)
        if not len(self._rows):
            return Drawn(sequences, starts, np.ones(number, np.float32))
        gives_way = generator.random(number) < fraction
        event = generator.integers(len(self._rows), size=number)
        around = generator.integers(self._low[event], self._high[event] + 1)
        sequences = np.where(gives_way, self._rows[event], sequences)
        starts = np.where(gives_way, around, starts)
        end = self._cumulative[sequences, starts + self._transitions]
        chance = end - self._cumulative[sequences, starts]
        windows = self._sequences * (self._last + 1)
        weights = 1.0 / (1.0 - fraction + fraction * windows * chance)
        return Drawn(sequences, starts, weights.astype(np.float32))

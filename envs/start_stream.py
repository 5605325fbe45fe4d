"""Random numbers that choose starts: one stream for each of N environments, drawn for many of them at once."""

from __future__ import annotations

import numpy as np
from gymnasium.utils.seeding import np_random
from jaxtyping import Integer, UInt64
from numpy.typing import NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


def key_of(generator: np.random.Generator) -> int:
    """Draws the key of a stream."""
    return int(generator.integers(2**63))


class StartStream:
    """N streams of 64-bit numbers, each fixed by a key and by how many were drawn: SplitMix64 (Steele et al., 2014).

    A generator of NumPy's for every environment would need a Python loop in every step that resets many of them.

    Args:
        number_of_streams: N.
    """

    def __init__(self, number_of_streams: int) -> None:
        generator, _ = np_random()
        self.keys: NDArray[np.uint64] = generator.integers(
            2**63, size=number_of_streams, dtype=np.uint64, endpoint=False
        )
        self.draws: NDArray[np.uint64] = np.zeros(number_of_streams, dtype=np.uint64)

    def seed(self, row: int, seed: int) -> None:
        """Starts one stream anew: as the environment of that seed does by itself."""
        self.start(row, key_of(np_random(seed)[0]))

    def start(self, row: int, key: int) -> None:
        """Starts one stream anew from its key."""
        self.keys[row] = key
        self.draws[row] = 0

    def draw(self, rows: Integer[np.ndarray, " m"]) -> UInt64[np.ndarray, " m"]:
        """Draws one number from each of the given streams."""
        self.draws[rows] += np.uint64(1)
        mixed = self.keys[rows] + self.draws[rows] * _GAMMA
        mixed = (mixed ^ (mixed >> _SHIFTS[0])) * _MULTIPLIERS[0]
        mixed = (mixed ^ (mixed >> _SHIFTS[1])) * _MULTIPLIERS[1]
        result: NDArray[np.uint64] = mixed ^ (mixed >> _SHIFTS[2])
        return result

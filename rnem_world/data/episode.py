"""A batch of recorded sequences in memory, as a collector makes them and a file stores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy.typing import NDArray

from rnem_world.data.schema import ARRAYS
from rnem_world.errors import DataError


@dataclass(frozen=True)
class EpisodeBatch:
    """N sequences of T frames; every array has time first.

    ``actions[t]`` turns frame t into frame t+1; ``rewards[t]``, ``terminations[t]``, ``collisions[t]`` and
    ``events[t]`` belong to that same transition. The entry T-1 describes the transition out of the last
    frame.

    Attributes:
        features: The frames, 0/1 or 0..255.
        groups: Which object a pixel belongs to: 0 the background, 1..n the objects.
        collisions: 1 at the pixels of objects that are touching another.
        events: 1 where something is happening anywhere in the frame.
        actions: Numbers of actions, from 0.
        rewards: Rewards.
        terminations: Whether the transition ends the episode.
        lives: The lives that are left.
        positions: The balls' centres in units of the box.
        velocities: The balls' velocities in units a frame.
    """

    features: UInt8[np.ndarray, "t n h w c"]
    groups: UInt8[np.ndarray, "t n h w 1"] | None = None
    collisions: UInt8[np.ndarray, "t n h w c"] | None = None
    events: UInt8[np.ndarray, "t n 1 1 1"] | None = None
    actions: Int64[np.ndarray, "t n"] | None = None
    rewards: Float32[np.ndarray, "t n"] | None = None
    terminations: Bool[np.ndarray, "t n"] | None = None
    lives: UInt8[np.ndarray, "t n"] | None = None
    positions: Float32[np.ndarray, "t n balls 2"] | None = None
    velocities: Float32[np.ndarray, "t n balls 2"] | None = None

    @property
    def number_of_frames(self) -> int:
        """T."""
        return int(self.features.shape[0])

    @property
    def number_of_sequences(self) -> int:
        """N."""
        return int(self.features.shape[1])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Returns the arrays that are there, in the order of the schema."""
        return {name: array for name in ARRAYS if (array := getattr(self, name)) is not None}

    def validate(self, number_of_actions: int | None = None, maximum_value: int = 255) -> None:
        """Checks shapes, dtypes and values.

        Args:
            number_of_actions: If given, actions must be smaller.
            maximum_value: Frames must not exceed it.

        Raises:
            DataError: Naming the first thing wrong.
        """
        sizes: dict[str, int] = {"1": 1, "2": 2}
        for name, array in self.arrays().items():
            schema = ARRAYS[name]
            expected = f"expected ({', '.join(schema.axes)}) of {schema.dtype}"
            if array.ndim != schema.rank or array.dtype != schema.dtype:
                raise DataError(f"{name} has the shape {array.shape} and dtype {array.dtype}, {expected}")
            for axis, size in zip(schema.axes, array.shape, strict=True):
                if sizes.setdefault(axis, size) != size:
                    raise DataError(
                        f"{name} has the shape {array.shape}, {expected} where {axis} is {sizes[axis]}"
                    )
            if array.size == 0:
                raise DataError(f"{name} has the shape {array.shape}: nothing to store")
            wrong = find_wrong_value(name, array, number_of_actions, maximum_value)
            if wrong is not None:
                raise DataError(
                    f"{name} is {wrong.value} in frame {wrong.frame} of sequence {wrong.sequence}, "
                    f"expected {wrong.expected}"
                )


@dataclass(frozen=True)
class WrongValue:
    """The first value of an array that can't be right.

    Attributes:
        frame: Its frame.
        sequence: Its sequence.
        value: What it is.
        expected: What it should have been.
    """

    frame: int
    sequence: int
    value: str
    expected: str


def find_wrong_value(
    name: str, array: NDArray[Any], number_of_actions: int | None, maximum_value: int
) -> WrongValue | None:
    """Looks through the values of one array of the schema's dtype.

    Args:
        name: The array's name in the schema.
        array: Its values, time first.
        number_of_actions: Actions must be smaller, if given.
        maximum_value: Frames must not exceed it.

    Returns:
        The first value that is wrong, or None.
    """
    if array.dtype.kind == "f":
        fine = np.isfinite(array)
        expected = "a finite number"
    else:
        lower, upper = 0, np.iinfo(np.int64).max
        if name == "features":
            upper = maximum_value
        elif name in ("collisions", "events"):
            upper = 1
        elif name == "actions" and number_of_actions is not None:
            upper = number_of_actions - 1
        if lower <= int(array.min()) and int(array.max()) <= upper:
            return None
        fine = (array >= lower) & (array <= upper)
        expected = f"{lower} to {upper}" if upper < np.iinfo(np.int64).max else f"at least {lower}"
    if fine.all():
        return None
    place = np.unravel_index(int(np.argmin(fine)), array.shape)
    return WrongValue(int(place[0]), int(place[1]), str(array[place]), expected)

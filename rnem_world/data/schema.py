"""The layout of a dataset: its splits, the arrays that a split may hold, its attributes, and sequences in memory.

Every array has time first and the sequence second: ``features`` is (T, N, H, W, C). ``actions[t]`` turns frame t into
frame t+1; ``rewards[t]``, ``terminations[t]``, ``truncations[t]``, ``collisions[t]`` and ``events[t]`` belong to that
same transition. The entry T-1 describes the transition out of the last frame. ``is_first[t]`` says that frame t begins
an episode: the transition t-1 -> t is none then, and what is stored of it means nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8, UInt64
from numpy.typing import NDArray

from rnem_world.actions import ActionSpace
from rnem_world.errors import ConfigError, DataError

Split = Literal["training", "validation", "test"]
SPLITS: tuple[Split, ...] = ("training", "validation", "test")

SCHEMA_VERSION = 1

NO_SEED = 2**64 - 1
"""What stands in ``seeds`` where no episode begins, or its seed isn't known."""

ORIGINAL_LAYOUT = 0
"""The schema version of files without attributes: those that the original program published."""


@dataclass(frozen=True)
class ArraySchema:
    """What one array of a split looks like.

    Attributes:
        axes: The names of its axes, in order; an axis called ``"1"`` has the size 1.
        dtype: How it is stored and read.
    """

    axes: tuple[str, ...]
    dtype: np.dtype[Any]

    def check_shape(self, shape: tuple[int, ...], sizes: dict[str, int]) -> None:
        """Checks the shape of an array.

        Args:
            shape: The shape.
            sizes: The sizes of axes known so far, by name; new ones are added.

        Raises:
            DataError: Saying what the shape is and should be, to be preceded by the array's name.
        """
        expected = f"has the shape {shape}, expected ({', '.join(self.axes)})"
        if len(shape) != len(self.axes):
            raise DataError(expected)
        for axis, size in zip(self.axes, shape, strict=True):
            known = int(axis) if axis.isdigit() else sizes.setdefault(axis, size)
            if known != size:
                raise DataError(f"{expected} where {axis} is {known}")
        if 0 in shape:
            raise DataError(f"{expected}: it is empty, nothing to store")


def _schema(axes: str, dtype: type[np.generic]) -> ArraySchema:
    return ArraySchema(tuple(axes.split()), np.dtype(dtype))


ARRAYS: Mapping[str, ArraySchema] = {
    "features": _schema("t n h w c", np.uint8),
    "groups": _schema("t n h w 1", np.uint8),
    "collisions": _schema("t n h w c", np.uint8),
    "events": _schema("t n 1 1 1", np.uint8),
    "actions": _schema("t n", np.int64),
    "rewards": _schema("t n", np.float32),
    "terminations": _schema("t n", np.bool_),
    "truncations": _schema("t n", np.bool_),
    "is_first": _schema("t n", np.bool_),
    "seeds": _schema("t n", np.uint64),
    "lives": _schema("t n", np.uint8),
    "positions": _schema("t n balls 2", np.float32),
    "velocities": _schema("t n balls 2", np.float32),
}
"""The arrays that a split may hold, in their order; :class:`EpisodeBatch` says what they mean."""


def array_schema(name: str, action_space: ActionSpace | None = None) -> ArraySchema:
    """Says what an array looks like in a file whose actions are of some space; one whole number if it is None."""
    if name != "actions" or action_space is None or action_space.is_discrete:
        return ARRAYS[name]
    return ArraySchema(("t", "n", str(action_space.length)), action_space.stored_dtype)


def _package_version() -> str:
    try:
        return importlib.metadata.version("rnem-world")
    except importlib.metadata.PackageNotFoundError:  # run from a folder that was never installed
        return ""


@dataclass(frozen=True)
class DatasetAttributes:
    """What a file says about itself.

    Attributes:
        environment_id: Where the sequences come from, for example ``"RNEM-BallsReal-v0"``; empty if unknown.
        settings: The generator's settings; anything that JSON can hold.
        seed: The seed of the generator; None if unknown.
        number_of_actions: The number of actions, if the sequences have any and an action is one whole number.
        action_space: The environment's actions, where an action is more than a whole number from 0 on, or the
            environment is known.
        maximum_value: 1 for binary frames (0 and 1 only), 255 for grey or colour ones.
        package_version: The version of the program that wrote the file.
        schema_version: The version of the layout; 0 for files of the original program, which have no
            attributes.

    Raises:
        ConfigError: If a value makes no sense.
    """

    environment_id: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    number_of_actions: int | None = None
    action_space: ActionSpace | None = None
    maximum_value: int = 1
    package_version: str = field(default_factory=_package_version)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.maximum_value not in (1, 255):
            raise ConfigError(
                f"maximum_value is {self.maximum_value}, expected 1 (binary frames) or 255 (grey or colour)"
            )
        if self.number_of_actions is not None and self.number_of_actions < 1:
            raise ConfigError(
                f"number_of_actions is {self.number_of_actions}, expected at least 1, or None without actions"
            )
        if self.action_space is not None:
            number = self.action_space.sizes[0] if self.action_space.is_discrete else None
            if self.number_of_actions != number:
                raise ConfigError(
                    f"number_of_actions is {self.number_of_actions}, expected {number} since action_space has "
                    f"{self.action_space.described}"
                )
        try:
            json.dumps(self.settings, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"settings can't be stored as JSON ({error}); use only numbers, strings, lists and dicts"
            ) from error

    def to_hdf5(self) -> dict[str, str | int]:
        """Returns the attributes as strings and integers, the settings as JSON, without the Nones."""
        values: dict[str, Any] = {"schema_version": 0, "package_version": ""}  # these come first in a file
        values |= {entry.name: getattr(self, entry.name) for entry in fields(self)}
        values["settings"] = json.dumps(self.settings, sort_keys=True)
        if self.action_space is not None:
            values["action_space"] = json.dumps(self.action_space.to_json())
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_hdf5(cls, attributes: Mapping[str, Any], place: str = "the file") -> DatasetAttributes:
        """Reads the attributes of a file; those that are missing get their defaults.

        Args:
            attributes: ``h5py.File.attrs``, or any mapping.
            place: The name of the file for error messages.

        Raises:
            DataError: If an attribute is of the wrong kind, or the file comes from a newer version.
        """
        values: dict[str, Any] = {"package_version": "", "schema_version": ORIGINAL_LAYOUT}
        try:
            for name in attributes.keys() & {entry.name for entry in fields(cls)}:
                value = attributes[name]
                if name in ("environment_id", "package_version", "settings", "action_space"):
                    values[name] = value.decode() if isinstance(value, bytes) else str(value)
                else:
                    values[name] = int(value)
            if "settings" in values:
                text, values["settings"] = values["settings"], json.loads(values["settings"])
                if not isinstance(values["settings"], dict):
                    raise ValueError(f"settings are no JSON object but {text[:40]!r}")
            if "action_space" in values:
                values["action_space"] = ActionSpace.from_json(json.loads(values["action_space"]))
            if values["schema_version"] > SCHEMA_VERSION:
                raise ValueError(
                    f"schema version {values['schema_version']} is newer than {SCHEMA_VERSION}, the newest known here; "
                    "update rnem-world"
                )
            return cls(**values)
        except (TypeError, ValueError, ConfigError) as error:
            raise DataError(f"{place}: the attributes are not those of a dataset: {error}") from error


@dataclass(frozen=True)
class EpisodeBatch:
    """N sequences of T frames, as a collector makes them and a file stores them; every array has time first.

    Attributes:
        features: The frames, 0/1 or 0..255.
        groups: Which object a pixel belongs to: 0 the background, 1..n the objects.
        collisions: 1 at the pixels of objects that are touching another.
        events: 1 where something is happening anywhere in the frame.
        actions: Numbers of actions, from 0; or what else :class:`~rnem_world.actions.ActionSpace` stores, (t, n, d).
        rewards: Rewards.
        terminations: Whether the transition ends the episode.
        truncations: Whether the episode is cut off after the transition, without an end.
        is_first: Whether the frame begins an episode.
        seeds: With which seed the environment was reset to it, :data:`NO_SEED` elsewhere.
        lives: The lives that are left.
        positions: The balls' centres in units of the box.
        velocities: The balls' velocities in units a frame.
    """

    features: UInt8[np.ndarray, "t n h w c"]
    groups: UInt8[np.ndarray, "t n h w 1"] | None = None
    collisions: UInt8[np.ndarray, "t n h w c"] | None = None
    events: UInt8[np.ndarray, "t n 1 1 1"] | None = None
    actions: Int64[np.ndarray, "t n *d"] | Float32[np.ndarray, "t n d"] | None = None
    rewards: Float32[np.ndarray, "t n"] | None = None
    terminations: Bool[np.ndarray, "t n"] | None = None
    truncations: Bool[np.ndarray, "t n"] | None = None
    is_first: Bool[np.ndarray, "t n"] | None = None
    seeds: UInt64[np.ndarray, "t n"] | None = None
    lives: UInt8[np.ndarray, "t n"] | None = None
    positions: Float32[np.ndarray, "t n balls 2"] | None = None
    velocities: Float32[np.ndarray, "t n balls 2"] | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Returns the arrays that are there, in the order of the schema."""
        return {name: array for name in ARRAYS if (array := getattr(self, name)) is not None}

    def validate(
        self,
        number_of_actions: int | None = None,
        maximum_value: int = 255,
        action_space: ActionSpace | None = None,
    ) -> None:
        """Checks shapes, dtypes and values.

        Args:
            number_of_actions: If given, actions must be smaller.
            maximum_value: Frames must not exceed it.
            action_space: If given, actions must be of it.

        Raises:
            DataError: Naming the first thing wrong.
        """
        sizes: dict[str, int] = {}
        for name, array in self.arrays().items():
            schema = array_schema(name, action_space)
            if array.dtype != schema.dtype:
                raise DataError(f"{name} has the dtype {array.dtype}, expected {schema.dtype}")
            try:
                schema.check_shape(array.shape, sizes)
            except DataError as error:
                raise DataError(f"{name} {error}") from error
            wrong = find_wrong_value(name, array, number_of_actions, maximum_value, action_space)
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
    name: str,
    array: NDArray[Any],
    number_of_actions: int | None,
    maximum_value: int,
    action_space: ActionSpace | None = None,
) -> WrongValue | None:
    """Looks through the values of one array of the schema's dtype.

    Args:
        name: The array's name in the schema.
        array: Its values, time first.
        number_of_actions: Actions must be smaller, if given.
        maximum_value: Frames must not exceed it.
        action_space: Whole numbers of actions must be below its sizes, if given.

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
        elif name == "seeds":
            upper = NO_SEED
        elif name in ("collisions", "events"):
            upper = 1
        elif name == "actions" and number_of_actions is not None:
            upper = number_of_actions - 1
        elif name == "actions" and action_space is not None:
            return _find_wrong_choice(array, action_space)
        if lower <= int(array.min()) and int(array.max()) <= upper:
            return None
        fine = (array >= lower) & (array <= upper)
        expected = f"{lower} to {upper}" if upper < np.iinfo(np.int64).max else f"at least {lower}"
    return _first_wrong(array, fine, expected)


def _find_wrong_choice(array: NDArray[Any], action_space: ActionSpace) -> WrongValue | None:
    sizes = np.array(action_space.sizes)
    fine = (array >= 0) & (array < sizes)
    return _first_wrong(array, fine, f"whole numbers from 0 to {', '.join(str(size - 1) for size in sizes)}")


def _first_wrong(array: NDArray[Any], fine: NDArray[np.bool_], expected: str) -> WrongValue | None:
    if fine.all():
        return None
    place = np.unravel_index(int(np.argmin(fine)), array.shape)
    return WrongValue(int(place[0]), int(place[1]), str(array[place]), expected)

"""The layout of a dataset file: which arrays a split may hold, their ranks and dtypes, and its attributes.

Every array has time first and the sequence second: ``features`` is (T, N, H, W, C). ``actions[t]`` turns
frame t into frame t+1; ``rewards[t]``, ``terminations[t]``, ``collisions[t]`` and ``events[t]`` belong to
that same transition.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnem_world.errors import ConfigError, DataError

SCHEMA_VERSION = 1

ORIGINAL_LAYOUT = 0
"""The schema version of files without attributes: those that the original program published."""


@dataclass(frozen=True)
class ArraySchema:
    """What one array of a split looks like.

    Attributes:
        axes: The names of its axes, in order; an axis called ``"1"`` has the size 1.
        dtype: How it is stored and read.
        meaning: One phrase for the user.
    """

    axes: tuple[str, ...]
    dtype: np.dtype[Any]
    meaning: str

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.axes)


def _schema(axes: str, dtype: type[np.generic], meaning: str) -> ArraySchema:
    return ArraySchema(tuple(axes.split()), np.dtype(dtype), meaning)


ARRAYS: Mapping[str, ArraySchema] = {
    "features": _schema("t n h w c", np.uint8, "the frames, 0/1 or 0..255"),
    "groups": _schema("t n h w 1", np.uint8, "which object a pixel belongs to, 0 for the background"),
    "collisions": _schema("t n h w c", np.uint8, "1 where an object is touching another during t -> t+1"),
    "events": _schema("t n 1 1 1", np.uint8, "1 where something is happening anywhere during t -> t+1"),
    "actions": _schema("t n", np.int64, "the action that turns frame t into frame t+1"),
    "rewards": _schema("t n", np.float32, "the reward of that transition"),
    "terminations": _schema("t n", np.bool_, "whether that transition ends the episode"),
    "lives": _schema("t n", np.uint8, "the lives that are left"),
    "positions": _schema("t n balls 2", np.float32, "the centres of the balls, in units of the box"),
    "velocities": _schema("t n balls 2", np.float32, "the velocities of the balls, in units a frame"),
}


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
        number_of_actions: The number of actions, if the sequences have any.
        maximum_value: 1 for binary frames, 255 for grey or colour ones.
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
        try:
            json.dumps(self.settings, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"settings can't be stored as JSON ({error}); use only numbers, strings, lists and dicts"
            ) from error

    def to_hdf5(self) -> dict[str, str | int]:
        """Returns the attributes as strings and integers, the settings as JSON, without the Nones."""
        attributes: dict[str, str | int | None] = {
            "schema_version": self.schema_version,
            "package_version": self.package_version,
            "environment_id": self.environment_id,
            "settings": json.dumps(self.settings, sort_keys=True),
            "seed": self.seed,
            "number_of_actions": self.number_of_actions,
            "maximum_value": self.maximum_value,
        }
        return {name: value for name, value in attributes.items() if value is not None}

    @classmethod
    def from_hdf5(cls, attributes: Mapping[str, Any], place: str = "the file") -> DatasetAttributes:
        """Reads the attributes of a file; those that are missing get their defaults.

        Args:
            attributes: ``h5py.File.attrs``, or any mapping.
            place: The name of the file for error messages.

        Raises:
            DataError: If an attribute is of the wrong kind, or the file comes from a newer version.
        """
        integers: dict[str, int | None] = dict.fromkeys(("schema_version", "seed", "number_of_actions"))
        integers["schema_version"] = ORIGINAL_LAYOUT
        integers["maximum_value"] = 1
        texts = {"package_version": "", "environment_id": "", "settings": "{}"}
        try:
            for name in integers.keys() & attributes.keys():
                integers[name] = int(attributes[name])
            for name in texts.keys() & attributes.keys():
                value = attributes[name]
                texts[name] = value.decode() if isinstance(value, bytes) else str(value)
            settings = json.loads(texts["settings"])
            if not isinstance(settings, dict):
                raise ValueError(f"settings are no JSON object but {texts['settings'][:40]!r}")
            version = integers["schema_version"] or ORIGINAL_LAYOUT
            if version > SCHEMA_VERSION:
                raise ValueError(
                    f"schema version {version} is newer than {SCHEMA_VERSION}, the newest known here; "
                    "update rnem-world"
                )
            return cls(
                environment_id=texts["environment_id"],
                settings=settings,
                seed=integers["seed"],
                number_of_actions=integers["number_of_actions"],
                maximum_value=integers["maximum_value"] or 1,
                package_version=texts["package_version"],
                schema_version=version,
            )
        except (TypeError, ValueError) as error:
            raise DataError(f"{place}: the attributes are not those of a dataset: {error}") from error

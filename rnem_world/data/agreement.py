"""Shards that are read as one dataset must have been made alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py

from rnem_world.data.inspection import Shard, find_number_of_actions, guess_maximum_value
from rnem_world.data.schema import ORIGINAL_LAYOUT, DatasetAttributes
from rnem_world.errors import DataError
from rnem_world.types import SPLITS

_SAME = ("schema_version", "environment_id", "settings", "number_of_actions", "maximum_value")


def common_attributes(
    paths: Sequence[Path], shards: Sequence[Shard], files: Sequence[h5py.File]
) -> DatasetAttributes:
    """Reads the attributes of all shards, or finds them out where the files have none.

    Args:
        paths: Their names, for messages.
        shards: Their contents.
        files: The open files.

    Returns:
        The attributes of the first; the seed is None if the shards have different ones, and different policies are
        all named.

    Raises:
        DataError: If those that matter differ.
    """
    found: list[DatasetAttributes] = []
    guessed: list[int] = []
    for path, shard, file in zip(paths, shards, files, strict=True):
        attributes = DatasetAttributes.from_hdf5(file.attrs, str(path))
        if attributes.schema_version == ORIGINAL_LAYOUT:
            if "maximum_value" not in file.attrs:
                guessed.append(guess_maximum_value(path, file, shard))
            attributes = replace(attributes, number_of_actions=find_number_of_actions(attributes, shard))
        found.append(attributes)
    if guessed:
        found = [replace(attributes, maximum_value=max(guessed)) for attributes in found]
    for path, attributes in zip(paths, found, strict=True):
        for name in _SAME:
            expected, given = (
                _without_policy(getattr(found[0], name)),
                _without_policy(getattr(attributes, name)),
            )
            if given != expected:
                raise DataError(
                    f"{path}: {name} is {given!r}, but {expected!r} in {paths[0].name}; only shards made with "
                    "the same settings can be read as one dataset"
                )
    same_seed = all(attributes.seed == found[0].seed for attributes in found)
    policies = sorted({str(attributes.settings.get("policy")) for attributes in found})
    settings = (
        found[0].settings if len(policies) == 1 else found[0].settings | {"policy": " + ".join(policies)}
    )
    return replace(found[0], seed=found[0].seed if same_seed else None, settings=settings)


def _without_policy(value: object) -> object:
    # Who acted may differ from shard to shard: the rules of the world are the same.
    return {key: value[key] for key in value if key != "policy"} if isinstance(value, dict) else value


def check_shards_agree(paths: Sequence[Path], shards: Sequence[Shard]) -> None:
    """Checks that each split has the same arrays, of the same sizes, in all shards that have it.

    Args:
        paths: Their names, for messages.
        shards: Their contents.

    Raises:
        DataError: Naming the first shard that differs.
    """
    for split in SPLITS:
        first: tuple[Path, dict[str, tuple[int, ...]]] | None = None
        for path, shard in zip(paths, shards, strict=True):
            if split not in shard:
                continue
            shapes = {name: (array.shape[0], *array.shape[2:]) for name, array in shard[split].items()}
            if first is None:
                first = (path, shapes)
            elif shapes != first[1]:
                raise DataError(
                    f"{path}: {split!r} has the arrays {shapes} (sizes without the sequences), but "
                    f"{first[0].name} has {first[1]}; only equal shards can be read as one dataset"
                )

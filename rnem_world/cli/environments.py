"""What commands take about environments of any kind: which one, how its frames are made, and who plays."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from rnem_world.config import parse_settings
from rnem_world.distributed import from_torchrun
from rnem_world.errors import ConfigError, DataError

Command = TypeVar("Command", bound=Callable[..., Any])

FRAME_OPTIONS = (
    click.option(
        "--env-option",
        "env_options",
        multiple=True,
        help="NAME=VALUE for the environment; may be repeated.",
    ),
    click.option("--obs-key", help="The entry of a dictionary of observations that is the picture."),
    click.option(
        "--pictures",
        type=click.Choice(["observation", "render"]),
        help="Whether frames are what is observed, or what is drawn. [observations if they are pictures]",
    ),
    click.option(
        "--layout", type=click.Choice(["HWC", "CHW"]), help="The axes of pictures. [by their sizes]"
    ),
    click.option(
        "--crop", help="Rows and columns of a picture that are kept, as in 34:194,0:160 or 34:194,:"
    ),
    click.option(
        "--size",
        help="Pixels of a frame: 48, or height and width as in 36x64. [as they are up to 64; else 64, drawn 48]",
    ),
    click.option("--grayscale", is_flag=True, default=None, help="Turn colours into greys."),
    click.option(
        "--binarise",
        type=click.Choice(["threshold", "background"]),
        help="Make frames black and white: by a threshold, or where they differ from the background.",
    ),
    click.option("--threshold", type=int, help="The grey above which a pixel is white, 0 to 254. [127]"),
    click.option("--frame-skip", type=int, help="Steps for which an action is held. [1]"),
    click.option(
        "--max-episode-steps", type=int, help="Cut episodes off after so many. [the environment's own]"
    ),
    click.option("--steps-of-data", type=int, help="Frames to collect, of all splits together. [50000]"),
)


def frame_options(command: Command) -> Command:
    """Decorates a command with what it takes about the frames of environments of any kind."""
    for option in reversed(FRAME_OPTIONS):
        command = option(command)
    return command


FRAME_NAMES = (
    "env_options",
    "obs_key",
    "pictures",
    "layout",
    "crop",
    "size",
    "grayscale",
    "binarise",
    "threshold",
    "frame_skip",
    "max_episode_steps",
    "steps_of_data",
)
"""What these options are called."""


def given_options(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of a command's parameters that were given, the environment's options as names and values."""
    given = {name: value for name, value in parameters.items() if value not in (None, ())}
    if "env_options" in given:
        given["env_options"] = parse_settings(given["env_options"], "--env-option")
    return given


def collected(environment: str, options: Mapping[str, Any], report: Callable[[str], None]) -> Path:
    """Finds the data of an environment, which is collected if it isn't there.

    Args:
        environment: As for `rnem_world.agents.any_collection.any_collection`.
        options: Likewise.
        report: Is told what happens.

    Raises:
        DataError: If there is data of that name which was made in another way.
        RnemWorldError: If there is no such environment, or an option makes no sense.
    """
    from rnem_world.agents.any_collection import any_collection
    from rnem_world.agents.collecting import DATA_FOLDER, collect
    from rnem_world.data.dataset import Dataset, without_versions

    collection = any_collection(environment, options)
    path = DATA_FOLDER / f"{collection.name}.h5"
    if not path.exists():
        sizes = collection.sizes()
        if from_torchrun().world_size > 1:
            raise DataError(
                f"there is no dataset {path}, and several processes don't collect: do it first, with `rnem-world "
                f"collect --env {environment}`, and the same options"
            )
        frames = sum(sizes.sequences.values()) * sizes.number_of_frames
        report(f"no data at hand: collecting {frames:,} frames of {environment} into {path}")
        return collect(collection, path, workers=os.cpu_count() or 1)
    with Dataset.open(path) as dataset:
        stored = dataset.attributes
        infos = {split: dataset.info(split) for split in dataset.splits}
    there = {split: info.number_of_sequences for split, info in infos.items()}
    wanted = collection.source().attributes
    differ = [
        name
        for name in ("recipe", "policy")
        if without_versions(stored.settings.get(name)) != without_versions(wanted.settings.get(name))
    ]
    if "steps_of_data" in options and there != {
        split: number for split, number in collection.sizes().sequences.items() if number
    }:
        differ.append("number of frames")
    if differ:
        raise DataError(
            f"{path} is there and was made with another {' and another '.join(differ)}: train on it with "
            f"--data {path}, or collect elsewhere first, with `rnem-world collect --env ... --out`"
        )
    if from_torchrun().is_first:
        # What is compared doesn't tell whether the environment's own program is still the same.
        frames = sum(info.number_of_sequences * info.number_of_frames for info in infos.values())
        made = datetime.fromtimestamp(path.stat().st_mtime)
        report(
            f"data at hand: {frames:,} frames of {environment} in {path}, made on {made:%Y-%m-%d at %H:%M}; should the "
            "environment have changed since, delete that file, and they are collected anew"
        )
    return path


def check_unused(environment: str, given: Mapping[str, Any], known: tuple[str, ...], owner: str) -> None:
    """Refuses options that the chosen environment doesn't know.

    Raises:
        ConfigError: Naming the first of them.
    """
    for name in known:
        if name in given:
            raise ConfigError(
                f"--{name.replace('_', '-')} is for {owner}, not for --env {environment}: leave it out"
            )


def flag_of(name: str) -> str:
    """Returns the flag that sets an option."""
    return "--env-option" if name == "env_options" else f"--{name.replace('_', '-')}"

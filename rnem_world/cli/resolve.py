"""What the arguments of several commands mean: datasets by path or by a preset's name, devices and threads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnem_world.errors import ConfigError, DataError, OutputError, suggest
from rnem_world.processes import ALONE, Processes, from_torchrun

TEST_SEQUENCES = 1000
VIDEO_FRAMES, EPISODE_FRAMES = 51, 101

if TYPE_CHECKING:
    import torch


def resolve_data(data: str, **options: int) -> Path:
    """Finds a dataset by path, or by the name of a preset, which is collected if it isn't there.

    Args:
        data: A path or a preset's name.
        **options: What to collect, see :func:`rnem_world.cli.collect.collect_balls`.

    Raises:
        DataError: If there is neither.
    """
    from rnem_world.physics.presets import PRESETS

    path = Path(data)
    if path.exists():
        return path
    if data not in PRESETS:
        raise DataError(f"there is no dataset {data} and no preset of that name: {suggest(data, PRESETS)}")
    from rnem_world.cli.collect import DATA_FOLDER, default_dataset

    if from_torchrun().world_size > 1 and not (DATA_FOLDER / f"{data}.h5").exists():
        raise DataError(
            f"there is no dataset {DATA_FOLDER / data}.h5, and several processes don't collect: do it first, with "
            f"`rnem-world collect --preset {data}` on every machine"
        )
    if not (DATA_FOLDER / f"{data}.h5").exists():
        click.echo(
            f"no data at hand: collecting {DATA_FOLDER / data}.h5, which takes a few minutes (`rnem-world collect` "
            "makes smaller or larger sets)"
        )
    return default_dataset(data, DATA_FOLDER, workers=os.cpu_count() or 1, **options)


def resolve_test_data(data: str, split: str) -> Path:
    """Finds a dataset to look at; of a preset that isn't there, the first test sequences alone are collected.

    They begin as the first of those that :func:`resolve_data` would collect; where there is a player they last for a
    whole episode.

    Raises:
        DataError: If there is no such dataset and no preset of that name.
    """
    from rnem_world.cli.collect import DATA_FOLDER, collect_balls
    from rnem_world.physics.presets import PRESETS

    is_there = Path(data).exists() or (DATA_FOLDER / f"{data}.h5").exists()
    if is_there or data not in PRESETS or split != "test":
        return resolve_data(data)
    path = DATA_FOLDER / f"{data}-test.h5"
    if not path.exists():
        click.echo(f"no data at hand: collecting {TEST_SEQUENCES} test sequences into {path}")
        frames = EPISODE_FRAMES if PRESETS[data].player else VIDEO_FRAMES
        collect_balls(data, path, 0, 0, TEST_SEQUENCES, frames, workers=os.cpu_count() or 1)
    return path


def resolve_device(device: str, threads: int | None, processes: Processes = ALONE) -> torch.device:
    """Finds the device and sets the number of CPU threads; several processes share the cores of their machine.

    Raises:
        ConfigError: If there is no such device, or no thread is left.
    """
    import torch

    from rnem_world.training.setup import choose_device

    if threads is not None:
        if threads < 1:
            raise ConfigError(f"--threads is {threads}, it must be at least 1")
        torch.set_num_threads(threads)
    elif processes.per_machine > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes.per_machine))
    return choose_device(device, processes)


FIGURES = (".png", ".pdf", ".svg")
VIDEOS = (".mp4", ".gif", ".webp", ".png")


def check_output(path: Path | None, suffixes: tuple[str, ...] = ()) -> None:
    """Checks that a file can be written, before there is work that would be lost.

    Raises:
        ConfigError: If its suffix isn't among ``suffixes``.
        OutputError: If it is a folder, or its folder can't be made or written to.
    """
    if path is None:
        return
    if suffixes and path.suffix.lower() not in suffixes:
        raise ConfigError(
            f"can't write {path}: its suffix is {path.suffix!r}, give one of {', '.join(suffixes)}"
        )
    if path.is_dir():
        raise OutputError(f"can't write {path}: it is a folder, give the name of a file")
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise OutputError(f"can't write {path}: {folder} is no folder that you may write to, choose another")

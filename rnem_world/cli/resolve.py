"""What the arguments of several commands mean: datasets by path or by a preset's name, devices and threads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnem_world.distributed import ALONE, Processes, from_torchrun
from rnem_world.errors import ConfigError, DataError, OutputError, suggest

TEST_SEQUENCES = 1000
VIDEO_FRAMES, EPISODE_FRAMES = 51, 101

if TYPE_CHECKING:
    import torch


def resolve_data(data: str, **options: int) -> Path:
    """Finds a dataset by path, or by the name of a preset or an Atari game, which is collected if it isn't there.

    Args:
        data: A path, a preset's name, or a game's.
        **options: What to collect, see :func:`rnem_world.cli.collect.collect_balls`; not for games.

    Raises:
        DataError: If there is none of these.
    """
    from rnem_world.envs.atari_console import PRESETS as GAMES
    from rnem_world.physics.presets import PRESETS

    path = Path(data)
    if path.exists():
        return path
    if data in GAMES:
        return resolve_game(data)
    if data not in PRESETS:
        known = suggest(data, [*PRESETS, *GAMES])
        raise DataError(f"there is no dataset {data} and no preset of that name: {known}")
    from rnem_world.cli.collect import DATA_FOLDER, default_dataset

    if not (DATA_FOLDER / f"{data}.h5").exists():
        _announce(DATA_FOLDER / f"{data}.h5", f"--preset {data}")
    return default_dataset(data, DATA_FOLDER, workers=os.cpu_count() or 1, **options)


def resolve_game(game: str) -> Path:
    """Finds the dataset of an Atari game, which is collected if it isn't there.

    Raises:
        ConfigError: If there is no such game.
        DataError: If there is no dataset and several processes run.
        DependencyError: If there is no dataset and ale-py is not installed.
    """
    from rnem_world.cli.collect import DATA_FOLDER
    from rnem_world.cli.collect_atari import atari_dataset, collect_atari

    path = DATA_FOLDER / f"{game}.h5"
    if not path.exists():  # a game may be named in other ways, which only ale-py knows
        path = atari_dataset(game, DATA_FOLDER)
    if not path.exists():
        _announce(path, f"--env atari --game {game}")
        collect_atari(game, path, workers=os.cpu_count() or 1)
    return path


def _announce(path: Path, flags: str) -> None:
    """Says that a dataset will be collected, which several processes at once can't do."""
    if from_torchrun().world_size > 1:
        raise DataError(
            f"there is no dataset {path}, and several processes don't collect: do it first, with "
            f"`rnem-world collect {flags}` on every machine"
        )
    click.echo(
        f"no data at hand: collecting {path}, which takes a few minutes (`rnem-world collect` makes smaller or larger "
        "sets)"
    )


def resolve_test_data(data: str, split: str) -> Path:
    """Finds a dataset to look at; of a preset or game that isn't there, the first test sequences alone are collected.

    They begin as the first of those that :func:`resolve_data` would collect; where there is a player they last for a
    whole episode (of Atari games, for 51 frames).

    Raises:
        DataError: If there is no such dataset and no preset or game of that name.
    """
    from rnem_world.cli.collect import DATA_FOLDER, collect_balls
    from rnem_world.cli.collect_atari import ATARI_SIZES, collect_atari
    from rnem_world.envs.atari_console import PRESETS as GAMES
    from rnem_world.physics.presets import PRESETS

    is_there = Path(data).exists() or (DATA_FOLDER / f"{data}.h5").exists()
    if is_there or data not in (*PRESETS, *GAMES) or split != "test":
        return resolve_data(data)
    path = DATA_FOLDER / f"{data}-test.h5"
    if path.exists():
        return path
    sequences = ATARI_SIZES["num_test"] if data in GAMES else TEST_SEQUENCES
    click.echo(f"no data at hand: collecting {sequences} test sequences into {path}")
    workers = os.cpu_count() or 1
    if data in GAMES:
        return collect_atari(data, path, 0, 0, sequences, workers=workers)
    frames = EPISODE_FRAMES if PRESETS[data].player else VIDEO_FRAMES
    return collect_balls(data, path, 0, 0, sequences, frames, workers=workers)


def resolve_device(device: str, threads: int | None, processes: Processes = ALONE) -> torch.device:
    """Finds the device and sets the number of CPU threads; several processes share the cores of their machine.

    Raises:
        ConfigError: If there is no such device, or no thread is left.
    """
    import torch

    from rnem_world.device import choose_device

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

"""What the arguments of several commands mean: datasets by path or by a preset's name, devices and threads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnem_world.distributed import ALONE, Processes, from_torchrun
from rnem_world.errors import ConfigError, DataError, OutputError, suggest

TEST_SEQUENCES = 1000
VIDEO_FRAMES, EPISODE_FRAMES = 51, 101

if TYPE_CHECKING:
    import torch


def resolve_data(data: str, **options: Any) -> Path:
    """Finds a dataset by path, or by the name of a preset or an Atari game, which is collected if it isn't there.

    Args:
        data: A path, a preset's name, or a game's.
        **options: What to collect, see :class:`rnem_world.agents.collecting.BallsCollection`; not for games.

    Raises:
        DataError: If there is none of these.
    """
    from rnem_world.envs.atari_console import PRESETS as GAMES
    from rnem_world.physics.rules import PRESETS

    path = Path(data)
    if path.exists():
        return path
    if data in GAMES:
        return resolve_game(data)
    if data not in PRESETS:
        known = suggest(data, [*PRESETS, *GAMES])
        raise DataError(f"there is no dataset {data} and no preset of that name: {known}")
    from rnem_world.agents import collecting

    path = collecting.DATA_FOLDER / f"{data}.h5"
    if not path.exists():
        _announce(path, f"--preset {data}")
        collecting.collect("balls", path, workers=os.cpu_count() or 1, preset=data, **options)
    return path


def resolve_game(game: str) -> Path:
    """Finds the dataset of an Atari game, which is collected if it isn't there.

    Raises:
        ConfigError: If there is no such game.
        DataError: If there is no dataset and several processes run.
        DependencyError: If there is no dataset and ale-py is not installed.
    """
    from rnem_world.agents import collecting

    path = collecting.DATA_FOLDER / f"{game}.h5"
    if not path.exists():  # a game may be named in other ways, which only ale-py knows
        path = collecting.DATA_FOLDER / f"{collecting.AtariCollection(game=game).name}.h5"
    if not path.exists():
        _announce(path, f"--env atari --game {game}")
        collecting.collect("atari", path, workers=os.cpu_count() or 1, game=game)
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
    from rnem_world.agents import collecting
    from rnem_world.envs.atari_console import PRESETS as GAMES
    from rnem_world.physics.rules import PRESETS

    folder = collecting.DATA_FOLDER
    is_there = Path(data).exists() or (folder / f"{data}.h5").exists()
    if is_there or data not in (*PRESETS, *GAMES) or split != "test":
        return resolve_data(data)
    path = folder / f"{data}-test.h5"
    if path.exists():
        return path
    options: dict[str, Any] = {"num_train": 0, "num_valid": 0}
    if data in GAMES:
        environment, sequences = "atari", collecting.AtariCollection.num_test
        options |= {"game": data}
    else:
        environment, sequences = "balls", TEST_SEQUENCES
        options |= {"preset": data, "frames": EPISODE_FRAMES if PRESETS[data].player else VIDEO_FRAMES}
    click.echo(f"no data at hand: collecting {sequences} test sequences into {path}")
    return collecting.collect(environment, path, workers=os.cpu_count() or 1, num_test=sequences, **options)


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

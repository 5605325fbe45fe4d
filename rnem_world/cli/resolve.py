"""What the arguments of several commands mean: datasets by path or by a preset's name, devices and threads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnem_world.errors import ConfigError, DataError, suggest

if TYPE_CHECKING:
    import torch


def resolve_data(data: str) -> Path:
    """Finds a dataset by path, or by the name of a preset, which is collected if it isn't there.

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

    if not (DATA_FOLDER / f"{data}.h5").exists():
        click.echo(f"no data at hand: collecting {DATA_FOLDER / data}.h5")
    return default_dataset(data, workers=os.cpu_count() or 1)


def resolve_device(device: str, threads: int | None) -> torch.device:
    """Finds the device and sets the number of CPU threads.

    Raises:
        ConfigError: If there is no such device, or no thread is left.
    """
    import torch

    from rnem_world.training.setup import choose_device

    if threads is not None:
        if threads < 1:
            raise ConfigError(f"--threads is {threads}, it must be at least 1")
        torch.set_num_threads(threads)
    return choose_device(device)

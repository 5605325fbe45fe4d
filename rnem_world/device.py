"""The device a program runs on, from the name its user gave."""

from __future__ import annotations

import torch

from rnem_world.distributed import ALONE, Processes
from rnem_world.errors import ConfigError


def choose_device(name: str, processes: Processes = ALONE) -> torch.device:
    """Turns a device's name into a device; ``auto`` takes CUDA where there is any.

    Of several processes on a machine each gets a CUDA device of its own.

    Raises:
        ConfigError: If there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if processes.world_size > 1 and name == "cuda":
        name = f"cuda:{processes.local_rank}"
    elif processes.world_size > 1 and name.startswith("cuda"):
        raise ConfigError(
            f"{name!r} is one device, and there are {processes.world_size} processes that need one each: use --device "
            "cuda, which gives each its own"
        )
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"there is no device {name!r} here ({str(error).splitlines()[0]}): use --device cpu"
        ) from error
    return device

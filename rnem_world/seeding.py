"""Random generators from one seed and a path of keys, so that parts never share or disturb a stream."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from rnem_world.errors import ConfigError

if TYPE_CHECKING:
    import torch


def _sequence(seed: int, keys: tuple[int | str, ...]) -> np.random.SeedSequence:
    check_seed(seed)
    numbers = [zlib.crc32(key.encode()) if isinstance(key, str) else key for key in keys]
    return np.random.SeedSequence(entropy=seed, spawn_key=tuple(numbers))


def check_seed(seed: Any, name: str = "seed") -> None:
    """Checks that a seed is one that generators take.

    Args:
        seed: What was given.
        name: What it is called where it was given.

    Raises:
        ConfigError: If it isn't an integer of at least 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ConfigError(f"{name} is {seed!r}, it must be a whole number of at least 0")


def derive_seed(seed: int, *keys: int | str) -> int:
    """Derives a seed of 63 bits that depends on every key.

    Args:
        seed: The user's seed, at least 0.
        *keys: What the derived seed is for, for example ``("training", 17)``.

    Returns:
        An integer in [0, 2**63).

    Raises:
        ConfigError: If the user's seed is none.
    """
    return int(_sequence(seed, keys).generate_state(1, np.uint64)[0] >> 1)


def numpy_generator(seed: int, *keys: int | str) -> np.random.Generator:
    """Makes a NumPy generator for the given purpose; see :func:`derive_seed` for the arguments."""
    return np.random.Generator(np.random.PCG64(_sequence(seed, keys)))


def torch_generator(seed: int, *keys: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Makes a torch generator on ``device``; see :func:`derive_seed` for the other arguments."""
    import torch

    generator = torch.Generator(device=device)
    generator.manual_seed(derive_seed(seed, *keys))
    return generator

"""Random generators from one seed and a path of keys, so that parts never share or disturb a stream."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def _sequence(seed: int, keys: tuple[int | str, ...]) -> np.random.SeedSequence:
    numbers = [zlib.crc32(key.encode()) if isinstance(key, str) else key for key in keys]
    return np.random.SeedSequence(entropy=seed, spawn_key=tuple(numbers))


def derive_seed(seed: int, *keys: int | str) -> int:
    """Derives a seed of 63 bits that depends on every key.

    Args:
        seed: The user's seed, at least 0.
        *keys: What the derived seed is for, for example ``("training", 17)``.

    Returns:
        An integer in [0, 2**63).
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

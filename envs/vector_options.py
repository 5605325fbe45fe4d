"""What the vector environments take alike: numbers, limits, autoreset modes, seeds and reset masks, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from jaxtyping import Bool

from rnem_world.errors import ConfigError


def check_number(num_envs: int) -> None:
    """Refuses fewer than one environment.

    Raises:
        ConfigError: If there are fewer.
    """
    if num_envs < 1:
        raise ConfigError(f"num_envs is {num_envs}, expected at least 1")


def check_limit(max_episode_steps: int | None) -> None:
    """Refuses episodes of fewer than one step.

    Raises:
        ConfigError: If they are shorter.
    """
    if max_episode_steps is not None and max_episode_steps < 1:
        raise ConfigError(f"max_episode_steps is {max_episode_steps}, expected at least 1, or None")


def check_autoreset_mode(autoreset_mode: AutoresetMode | str) -> AutoresetMode:
    """Returns the mode.

    Raises:
        ConfigError: If there is none of that name.
    """
    try:
        return AutoresetMode(autoreset_mode)
    except ValueError as error:
        modes = ", ".join(mode.value for mode in AutoresetMode)
        raise ConfigError(
            f"autoreset_mode is {autoreset_mode!r}, expected an AutoresetMode or one of {modes}"
        ) from error


def check_seeds(seed: int | Sequence[int | None] | None, number: int) -> Sequence[int | None]:
    """Returns one seed for each environment: the given ones, or ``seed + i``, or None.

    Raises:
        ConfigError: If there are too few or too many.
    """
    if seed is None:
        return [None] * number
    if isinstance(seed, int | np.integer):
        return [int(seed) + index for index in range(number)]
    if len(seed) != number:
        raise ConfigError(f"{len(seed)} seeds are given, expected {number}, one for each world")
    return seed


def check_reset_mask(options: dict[str, Any] | None, number: int) -> Bool[np.ndarray, " n"]:
    """Returns ``options["reset_mask"]``: which environments to reset, all if it isn't there.

    Raises:
        ConfigError: If it is something else.
    """
    if not options or "reset_mask" not in options:
        return np.ones(number, dtype=np.bool_)
    mask = np.asarray(options["reset_mask"])
    if mask.shape != (number,) or mask.dtype != np.bool_ or not mask.any():
        raise ConfigError(
            f"options['reset_mask'] is {options['reset_mask']!r}, expected {number} booleans of "
            "which at least one is True"
        )
    return mask

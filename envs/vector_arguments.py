"""What the vector environments take alike: seeds, reset masks, autoreset modes, actions, and which ones are meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from jaxtyping import Bool, Int64, Integer
from numpy.typing import NDArray

from rnem_world.errors import ConfigError


def check_sizes(num_envs: int, max_episode_steps: int | None) -> None:
    """Checks two numbers.

    Raises:
        ConfigError: If one is below 1.
    """
    if num_envs < 1:
        raise ConfigError(f"num_envs is {num_envs}, expected at least 1")
    if max_episode_steps is not None and max_episode_steps < 1:
        raise ConfigError(f"max_episode_steps is {max_episode_steps}, expected at least 1, or None")


def autoreset_mode_of(mode: AutoresetMode | str) -> AutoresetMode:
    """Returns the mode.

    Raises:
        ConfigError: If there is none of that name.
    """
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        modes = ", ".join(known.value for known in AutoresetMode)
        raise ConfigError(
            f"autoreset_mode is {mode!r}, expected an AutoresetMode or one of {modes}"
        ) from error


def seeds_of(seed: int | Sequence[int | None] | None, num_envs: int) -> Sequence[int | None]:
    """Returns a seed for each sub-environment: ``seed + i`` as Gymnasium does, or those that were given.

    Raises:
        ConfigError: If the number of seeds is another.
    """
    if seed is None:
        return [None] * num_envs
    if isinstance(seed, int | np.integer):
        return [int(seed) + index for index in range(num_envs)]
    if len(seed) != num_envs:
        raise ConfigError(f"{len(seed)} seeds are given, expected {num_envs}, one for each world")
    return seed


def reset_mask_of(options: dict[str, Any] | None, num_envs: int) -> Bool[np.ndarray, " n"]:
    """Returns ``options["reset_mask"]``: the sub-environments to reset, all without it.

    Raises:
        ConfigError: If it isn't ``num_envs`` booleans of which one is True.
    """
    if not options or "reset_mask" not in options:
        return np.ones(num_envs, dtype=np.bool_)
    mask = np.asarray(options["reset_mask"])
    if mask.shape != (num_envs,) or mask.dtype != np.bool_ or not mask.any():
        raise ConfigError(
            f"options['reset_mask'] is {options['reset_mask']!r}, expected {num_envs} booleans of which at least "
            "one is True"
        )
    return mask


def check_actions(actions: Any, number: int, number_of_actions: int) -> Integer[np.ndarray, " n"]:
    """Returns the actions as an array.

    Args:
        actions: What a user gives.
        number: N.
        number_of_actions: How many there are to choose from.

    Raises:
        ConfigError: If they aren't N integers, or one is out of range.
    """
    given = np.asarray(actions)
    if given.shape != (number,) or given.dtype.kind not in "iu":
        raise ConfigError(
            f"actions have the shape {given.shape} and dtype {given.dtype}, expected ({number},) integers"
        )
    if given.min() < 0 or given.max() >= number_of_actions:
        raise ConfigError(
            f"actions lie between {given.min()} and {given.max()}, expected 0 to {number_of_actions - 1}"
        )
    return given


def rows_of(rows: Sequence[int] | NDArray[Any] | None, num_envs: int) -> Int64[np.ndarray, " m"]:
    """Returns the indices of the sub-environments that a user names; None names all.

    Raises:
        ConfigError: If one is out of range or named twice.
    """
    if rows is None:
        return np.arange(num_envs)
    chosen = np.atleast_1d(np.asarray(rows))
    is_index = chosen.ndim == 1 and chosen.size > 0 and chosen.dtype.kind in "iu"
    if not is_index or chosen.min() < 0 or chosen.max() >= num_envs:
        raise ConfigError(f"sub-environments {rows!r} were named, expected numbers from 0 to {num_envs - 1}")
    if len(np.unique(chosen)) != len(chosen):
        raise ConfigError(f"sub-environments {rows!r} were named, expected each at most once")
    return chosen.astype(np.int64)

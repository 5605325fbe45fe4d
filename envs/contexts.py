"""A user's own start: frames and actions, checked and turned into what the model watches."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

from rnem_world.envs.learned_world import LearnedWorld
from rnem_world.envs.starts import FEWEST_FRAMES
from rnem_world.errors import ConfigError


def black_and_white(frames: NDArray[Any], what: str = "frames") -> Bool[np.ndarray, "..."]:
    """Turns real frames into black and white ones.

    Args:
        frames: uint8 0..255, bool, or floats in [0, 1]; white above one half.
        what: What they are, for messages.

    Raises:
        ConfigError: If they are something else, or hold NaN.
    """
    if frames.dtype == np.bool_:
        return frames
    if frames.dtype == np.uint8:
        if frames.size and frames.max() == 1:
            raise ConfigError(
                f"{what} are uint8 of 0 and 1, expected 0 to 255: multiply them by 255, or give booleans"
            )
        white: Bool[np.ndarray, "..."] = frames > 127
        return white
    if frames.dtype.kind == "f":
        if not np.isfinite(frames).all():
            raise ConfigError(f"{what} hold NaN or infinity, expected numbers in [0, 1]")
        if frames.size and (frames.min() < 0.0 or frames.max() > 1.0):
            raise ConfigError(
                f"{what} lie between {frames.min():g} and {frames.max():g}, expected [0, 1], or uint8 0 to 255"
            )
        bright: Bool[np.ndarray, "..."] = frames > 0.5
        return bright
    raise ConfigError(
        f"{what} have the dtype {frames.dtype}, expected uint8 0 to 255, bool, or floats in [0, 1]"
    )


def check_context(
    world: LearnedWorld, options: dict[str, Any], number: int, rows: NDArray[np.int64]
) -> tuple[Bool[np.ndarray, "m t h w c"], Int64[np.ndarray, "m s"]]:
    """Checks ``options["frames"]`` and ``options["actions"]``.

    Args:
        world: The world to start in.
        options: The options of a reset.
        number: Number of environments.
        rows: Those that are reset.

    Returns:
        The frames and actions of the environments that are reset.

    Raises:
        ConfigError: If they don't fit the world or one another.
    """
    if options.get("frames") is None:
        raise ConfigError("options has actions and no frames: give the frames that they led through")
    frames = black_and_white(np.asarray(options["frames"]), "options['frames']")
    each = frames.ndim == 5
    expected = f"(T, {', '.join(map(str, world.frame_shape))})"
    fits = frames.ndim in (4, 5) and frames.shape[-3:] == world.frame_shape
    if not fits or (each and len(frames) != number):
        raise ConfigError(
            f"options['frames'] have the shape {frames.shape}, expected {expected}, or {number} times that"
        )
    steps = frames.shape[-4] - 1
    if steps + 1 < FEWEST_FRAMES:
        raise ConfigError(
            f"options['frames'] holds {steps + 1} frames, expected at least {FEWEST_FRAMES} (16 are usual)"
        )
    actions = options.get("actions")
    if actions is None:
        if world.number_of_actions > 1:
            raise ConfigError(
                f"options has frames and no actions: give the {steps} actions between the frames"
            )
        actions = np.zeros(steps, dtype=np.int64)
    actions = np.asarray(actions)
    if actions.dtype.kind not in "iu" or actions.shape not in ((steps,), (number, steps)):
        raise ConfigError(
            f"options['actions'] have the shape {actions.shape} and dtype {actions.dtype}, expected ({steps},) "
            f"integers, one between each two of the frames, or {number} times that"
        )
    if actions.min() < 0 or actions.max() >= world.number_of_actions:
        raise ConfigError(
            f"options['actions'] lie between {actions.min()} and {actions.max()}, expected 0 to "
            f"{world.number_of_actions - 1}"
        )
    frames = frames[rows] if each else np.broadcast_to(frames, (len(rows), *frames.shape))
    actions = actions[rows] if actions.ndim == 2 else np.broadcast_to(actions, (len(rows), steps))
    return frames, actions.astype(np.int64)

"""Frames of balls: hard discs, the player's a ring, a curtain on top."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, UInt8

from rnem_world.physics.balls import BallsState
from rnem_world.physics.rules import BallsConfig

RING_HOLE = 0.5
"""Inner over outer radius of the player's ring: a hole 3 pixels across for a ball of radius 1 at 32 x 32."""


def rasterise(state: BallsState, config: BallsConfig) -> UInt8[np.ndarray, "n h w"]:
    """Draws which ball every pixel belongs to.

    A pixel belongs to a ball if its centre is no further than the radius from the ball's centre. Where balls
    share a pixel it is the later ball's. What the curtain hides belongs to no ball.

    Args:
        state: The worlds.
        config: Their rules.

    Returns:
        0 for the background, 1..b for the balls in their order.
    """
    n, b = state.radii.shape
    size, pixel = config.image_size, config.box_size / config.image_size
    # Only a window around each ball is looked at: for a typical ball 1/20 of the frame.
    window = np.arange(math.floor(2.0 * config.largest_radius / pixel) + 1)
    start = np.ceil((state.positions - state.radii[..., None]) / pixel - 0.5).astype(np.int64)
    index = start[..., None] + window
    offset = (index + 0.5) * pixel - state.positions[..., None]
    squared = np.where((index >= 0) & (index < size), offset**2, np.inf)
    distance = squared[:, :, 1, :, None] + squared[:, :, 0, None, :]
    radius = np.where(state.present, state.radii**2, -1.0)[..., None, None]
    inside = distance <= radius
    if config.player:
        inside[:, 0] &= distance[:, 0] >= RING_HOLE**2 * radius[:, 0]
    row = index[:, :, 1] + size * np.arange(n)[:, None, None]
    flat = row[..., None] * size + index[:, :, 0, None, :]
    number = np.broadcast_to(np.arange(1, b + 1, dtype=np.uint8)[:, None, None], inside.shape)
    groups = np.zeros(n * size * size, dtype=np.uint8)
    # Of several values for one pixel NumPy keeps the last, and a world's balls come in their order.
    groups[flat[inside]] = number[inside]
    groups = groups.reshape(n, size, size)
    if config.curtain_size:
        groups[under_curtain(state, config)] = 0
    return groups


def under_curtain(state: BallsState, config: BallsConfig) -> Bool[np.ndarray, "n h w"]:
    """Marks the pixels that the curtain hides."""
    index = np.arange(config.image_size)
    corner = state.curtain[..., None]
    hidden = (index >= corner) & (index < corner + config.curtain_size)
    return hidden[:, 0, :, None] & hidden[:, 1, None, :]


def collision_mask(
    groups: UInt8[np.ndarray, "n h w"], touching: Bool[np.ndarray, "n b"]
) -> UInt8[np.ndarray, "n h w"]:
    """Marks the visible pixels of the balls that touch another ball.

    Args:
        groups: From `rasterise`, for the frame before the step.
        touching: From `rnem_world.physics.balls.step`.

    Returns:
        1 at these pixels, 0 elsewhere.
    """
    mask = np.zeros(groups.shape, dtype=np.uint8)
    worlds = np.flatnonzero(touching.any(axis=1))  # few worlds in most frames
    if len(worlds):
        table = np.zeros((len(worlds), touching.shape[1] + 1), dtype=np.uint8)
        table[:, 1:] = touching[worlds]
        mask[worlds] = table[np.arange(len(worlds))[:, None, None], groups[worlds]]
    return mask

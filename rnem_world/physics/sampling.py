"""Random starts: balls dropped into the box without overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from rnem_world.errors import ConfigError
from rnem_world.physics.balls import PLAYER_MASS, BallsConfig, BallsState

CANDIDATES = 32
"""Places tried for each ball before the whole world is drawn again."""

MOST_DRAWS = 1000
"""Draws after which a world counts as too crowded."""


def sample_state(config: BallsConfig, generators: Sequence[np.random.Generator]) -> BallsState:
    """Draws one world from each generator, so that a world depends on its own generator alone.

    Args:
        config: The rules of the worlds.
        generators: One for each world.

    Returns:
        As many worlds, the player's balls at rest.

    Raises:
        ConfigError: If the balls don't fit into the box.
    """
    n, b = len(generators), config.most_balls
    # Every generator is asked for the same block of numbers in the same order; all that follows is batched.
    uniform = np.stack([generator.random(1 + b + 2) for generator in generators])
    normal = np.stack([generator.standard_normal((b, 2)) for generator in generators])

    counts = np.asarray(config.numbers_of_balls)[_choice(uniform[:, 0], len(config.numbers_of_balls))]
    present = np.arange(b) < counts[:, None]
    radii, masses = np.moveaxis(
        np.asarray(config.kinds)[_choice(uniform[:, 1 : b + 1], len(config.kinds))], 2, 0
    )
    radii, masses = np.where(present, radii, 0.0), np.where(present, masses, 1.0)
    if config.player:
        radii[:, 0], masses[:, 0] = config.player_radius, PLAYER_MASS

    normal *= present[..., None]
    length = np.sqrt((normal**2).sum(axis=(1, 2), keepdims=True))
    velocities = config.initial_speed * normal / length
    if config.player:
        velocities[:, 0] = 0.0

    if config.curtain_size:
        curtain = _choice(uniform[:, b + 1 :], config.image_size - config.curtain_size + 1)
    else:
        curtain = np.zeros((n, 2), dtype=np.int64)

    positions = np.zeros((n, b, 2))
    missing = np.arange(n)
    for _ in range(MOST_DRAWS):
        numbers = np.stack([generators[world].random((b, CANDIDATES, 2)) for world in missing.tolist()])
        placed, complete = _drop(numbers, radii[missing], present[missing], config)
        positions[missing[complete]] = placed[complete]
        missing = missing[~complete]
        if not len(missing):
            break
    else:
        raise ConfigError(
            f"{b} balls don't fit into a box of side {config.box_size} with start_region "
            f"{config.start_region}; use fewer or smaller balls"
        )
    return BallsState(positions, velocities, radii, masses, present, curtain)


def _choice(uniform: NDArray[np.float64], number: int) -> NDArray[np.int64]:
    """Turns uniform numbers in [0, 1) into integers in [0, number)."""
    return (uniform * number).astype(np.int64)


def _drop(
    uniform: Float[np.ndarray, "n b candidates 2"],
    radii: Float[np.ndarray, "n b"],
    present: Bool[np.ndarray, "n b"],
    config: BallsConfig,
) -> tuple[Float[np.ndarray, "n b 2"], Bool[np.ndarray, " n"]]:
    """Puts ball after ball on the first of its candidate places that is free.

    Returns:
        The places, and whether all balls of a world found one.
    """
    n, b = radii.shape
    margin = np.maximum(radii, 0.5 * config.box_size * (1.0 - config.start_region))[..., None, None]
    candidates = margin + uniform * (config.box_size - 2.0 * margin)
    positions = np.zeros((n, b, 2))
    complete = np.ones(n, dtype=np.bool_)
    for ball in range(b):  # a ball's place depends on those of the balls before it
        distance = np.sqrt(((candidates[:, ball, :, None] - positions[:, None, :ball]) ** 2).sum(axis=3))
        reach = radii[:, None, ball : ball + 1] + radii[:, None, :ball]
        free = (distance > reach).all(axis=2)
        choice = free.argmax(axis=1)
        positions[:, ball] = candidates[np.arange(n), ball, choice] * present[:, ball, None]
        complete &= free.any(axis=1) | ~present[:, ball]
    return positions, complete

"""Balls in a box: the state of many worlds at once, how it is drawn, and one step of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from rnem_world.errors import ConfigError
from rnem_world.physics.collisions import advance, first_events
from rnem_world.physics.rules import PLAYER_MASS, BallsConfig

CANDIDATES = 32
"""Places tried for each ball before the whole world is drawn again."""

MOST_DRAWS = 1000
"""Draws after which a world counts as too crowded."""


@dataclass
class BallsState:
    """N worlds of up to B balls. A ball that isn't there has position, velocity and radius 0.

    Attributes:
        positions: Centres (x to the right, y downwards), in units of the box.
        velocities: Units a frame.
        radii: Radii.
        masses: Masses; that of the player's ball is `PLAYER_MASS`.
        present: Which balls are there.
        curtain: (row, column) of the curtain's upper left pixel; zeros where there is no curtain.
    """

    positions: Float[np.ndarray, "n b 2"]
    velocities: Float[np.ndarray, "n b 2"]
    radii: Float[np.ndarray, "n b"]
    masses: Float[np.ndarray, "n b"]
    present: Bool[np.ndarray, "n b"]
    curtain: Int[np.ndarray, "n 2"]

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, worlds: NDArray[Any]) -> BallsState:
        """Returns a copy of the given worlds (a mask or numbers)."""
        return BallsState(
            self.positions[worlds],
            self.velocities[worlds],
            self.radii[worlds],
            self.masses[worlds],
            self.present[worlds],
            self.curtain[worlds],
        )

    def put(self, worlds: NDArray[Any], other: BallsState) -> None:
        """Overwrites the given worlds (a mask or numbers) in place by those of ``other``."""
        self.positions[worlds] = other.positions
        self.velocities[worlds] = other.velocities
        self.radii[worlds] = other.radii
        self.masses[worlds] = other.masses
        self.present[worlds] = other.present
        self.curtain[worlds] = other.curtain

    def copy(self) -> BallsState:
        """Returns a copy that shares no memory."""
        return self.take(np.arange(len(self)))


def step(
    state: BallsState, config: BallsConfig, player_velocity: Float[np.ndarray, "n 2"] | None = None
) -> tuple[BallsState, Bool[np.ndarray, "n b"]]:
    """Moves all worlds on by one frame.

    Args:
        state: The worlds; left as they are.
        config: Their rules.
        player_velocity: Velocity that the player's balls set out with, in units a frame; without it they keep
            the one they have.

    Returns:
        The worlds one frame later, and which balls met another ball meanwhile.

    Raises:
        ConfigError: If a velocity is given but no ball is the player's.
    """
    if player_velocity is not None and not config.player:
        raise ConfigError("player_velocity is given, expected None: no ball of this world is the player's")
    positions, velocities = state.positions.copy(), state.velocities.copy()
    if player_velocity is not None:
        velocities[:, 0] = player_velocity
    touching = np.zeros(state.radii.shape, dtype=np.bool_)
    # Most worlds have no event during most frames; those move in one go.
    first, _ = first_events(positions, velocities, state.radii, state.present, config.box_size, config.player)
    quiet = first >= 1.0
    positions[quiet] += velocities[quiet]
    busy = np.flatnonzero(~quiet)
    if len(busy):
        where, speed = positions[busy], velocities[busy]
        met = np.zeros((len(busy), config.most_balls), dtype=np.bool_)
        for _ in range(config.sub_steps):
            met |= advance(
                where,
                speed,
                state.radii[busy],
                state.masses[busy],
                state.present[busy],
                config.box_size,
                1.0 / config.sub_steps,
                config.player,
            )
        positions[busy], velocities[busy], touching[busy] = where, speed, met
    return replace(state, positions=positions, velocities=velocities), touching


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

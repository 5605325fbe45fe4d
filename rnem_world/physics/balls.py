"""Balls in a box: what may be set, the state of many worlds at once, and one step of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from rnem_world.errors import ConfigError
from rnem_world.physics.collisions import advance, first_events

MOST_BALLS = 16
"""More balls than this are refused."""

PLAYER_MASS = 10_000.0
"""The mass that the player's ball is said to have: so much that nothing moves it."""


@dataclass(frozen=True)
class BallsConfig:
    """The rules of a world of balls. Lengths are in units of the box, times in frames.

    Attributes:
        numbers_of_balls: How many balls a world may have, the player's included; drawn evenly.
        kinds: (radius, mass) of the kinds of balls; each ball's kind is drawn evenly.
        initial_speed: sqrt(sum over balls of |v|^2) at the start. The player's ball takes its share of it and
            is then stopped, as in STOVE.
        start_region: Side of the central square in which the centres lie at the start, in sides of the box.
        box_size: Side of the box.
        image_size: Side of a frame in pixels.
        sub_steps: Spans that a frame is divided into, each of which handles any number of collisions exactly.
        curtain_size: Side in pixels of the invisible square that hides what is under it; 0 for none.
        player: Whether ball 0 is the player's, drawn as a ring.
        player_speed: Speed that an action gives to the player's ball.
        player_radius: Radius of the player's ball.

    Raises:
        ConfigError: If a value makes no sense.
    """

    numbers_of_balls: tuple[int, ...] = (4,)
    kinds: tuple[tuple[float, float], ...] = ((0.8, 1.0), (1.0, 6.0))
    initial_speed: float = 1.0 / 3.0
    start_region: float = 1.0
    box_size: float = 10.0
    image_size: int = 64
    sub_steps: int = 10
    curtain_size: int = 0
    player: bool = False
    player_speed: float = 0.6
    player_radius: float = 1.0

    def __post_init__(self) -> None:
        counts = self.numbers_of_balls
        if not counts or min(counts) < 1 or max(counts) > MOST_BALLS:
            raise ConfigError(f"numbers_of_balls is {counts}, expected numbers from 1 to {MOST_BALLS}")
        if not self.kinds or any(
            len(kind) != 2 or not all(math.isfinite(x) and x > 0 for x in kind) for kind in self.kinds
        ):
            raise ConfigError(f"kinds is {self.kinds}, expected pairs (radius, mass), all above 0")
        for name in ("box_size", "player_speed", "player_radius"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}, expected a number above 0")
        if not (math.isfinite(self.initial_speed) and self.initial_speed >= 0):
            raise ConfigError(f"initial_speed is {self.initial_speed}, expected at least 0")
        if not 0 < self.start_region <= 1:
            raise ConfigError(f"start_region is {self.start_region}, expected above 0 and at most 1")
        if self.image_size < 8:
            raise ConfigError(f"image_size is {self.image_size}, expected at least 8 pixels")
        if self.sub_steps < 10:
            raise ConfigError(f"sub_steps is {self.sub_steps}, expected at least 10")
        if not 0 <= self.curtain_size <= self.image_size:
            raise ConfigError(
                f"curtain_size is {self.curtain_size}, expected 0 (none) to the image_size, {self.image_size}"
            )
        # Discs dropped at random one after another fill about 54 % of the plane; well below that, dropping
        # them soon succeeds.
        covered = math.pi * self.largest_radius**2 * max(counts) / self.box_size**2
        if 2 * self.largest_radius >= self.box_size or covered > 0.4:
            raise ConfigError(
                f"{max(counts)} balls of radius {self.largest_radius} cover {covered:.0%} of a box of side "
                f"{self.box_size}, expected at most 40%; use fewer or smaller balls or a larger box_size"
            )

    @property
    def most_balls(self) -> int:
        """The size of the ball axis of every array."""
        return max(self.numbers_of_balls)

    @property
    def largest_radius(self) -> float:
        """The radius of the largest ball there can be."""
        radii = [radius for radius, _ in self.kinds]
        return max([*radii, self.player_radius] if self.player else radii)


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

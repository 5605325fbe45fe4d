"""Elastic collisions of discs with one another and with the walls, world by world from event to event.

Within a span of time every ball moves straight until the first event of its world: two discs meet, or a
disc meets a wall. The world is moved exactly to that moment, the velocities change, and the rest of the span
goes on with the new ones. Discs therefore never overlap, however fast they are, and no position has to be
mended.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

EVENTS_PER_SPAN = 64
"""More events than this in one span don't happen; a guard against a loop without end, see `advance`."""

PLAYER_CLEARANCE = 0.05
"""How far from another ball the player's ball halts, in units of the box (a sixth of a pixel at 32 x 32). A ball
driven against a wall keeps that much room; without it the bounces between the wall and the player have no end."""

APPROACH_TOLERANCE = 1e-10
"""Approach (distance times relative speed) below which two discs count as gliding past each other: rounding
can turn an approach of zero into one of 1e-17, which would be reflected for ever."""


@lru_cache(maxsize=32)
def pairs_of(number_of_balls: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns the first and the second ball of every unordered pair."""
    first, second = np.triu_indices(number_of_balls, 1)
    return first, second


def meeting_times(
    positions: Float[np.ndarray, "n b 2"],
    velocities: Float[np.ndarray, "n b 2"],
    radii: Float[np.ndarray, "n b"],
    present: Bool[np.ndarray, "n b"],
    player: bool,
) -> Float[np.ndarray, "n p"]:
    """Computes when the discs of every pair meet if nothing else happens, the smaller root of a quadratic.

    Args:
        positions: Centres.
        velocities: Velocities in units a frame.
        radii: Radii.
        present: Which balls are there.
        player: Whether ball 0 is the player's; a ball that it moves towards is met `PLAYER_CLEARANCE` early.

    Returns:
        Frames until contact, in the order of `pairs_of`: 0 for discs that touch and approach, infinity for
        discs that will not meet.
    """
    first, second = pairs_of(positions.shape[1])
    between = positions[:, second] - positions[:, first]
    relative = velocities[:, second] - velocities[:, first]
    approach = between[..., 0] * relative[..., 0] + between[..., 1] * relative[..., 1]
    speed = relative[..., 0] ** 2 + relative[..., 1] ** 2
    reach = radii[:, first] + radii[:, second]
    if player:
        others = positions.shape[1] - 1  # the first pairs are those of ball 0
        towards = (between[:, :others] * velocities[:, :1]).sum(axis=2) > APPROACH_TOLERANCE
        reach[:, :others] += PLAYER_CLEARANCE * towards
    gap = between[..., 0] ** 2 + between[..., 1] ** 2 - reach**2
    discriminant = approach**2 - speed * gap
    meet = (approach < -APPROACH_TOLERANCE) & ((discriminant >= 0.0) | (gap <= 0.0))
    meet &= present[:, first] & present[:, second]
    # This form of the root has no cancellation, so that a gap of 1e-16 gives a time of that size.
    denominator = np.where(meet, np.sqrt(np.maximum(discriminant, 0.0)) - approach, 1.0)
    return np.where(meet, np.maximum(gap, 0.0) / denominator, np.inf)


def wall_times(
    positions: Float[np.ndarray, "n b 2"],
    velocities: Float[np.ndarray, "n b 2"],
    radii: Float[np.ndarray, "n b"],
    box_size: float,
) -> Float[np.ndarray, "n b 2"]:
    """Computes when every disc meets a wall along every axis: frames, infinity for a disc at rest."""
    lower, upper = radii[..., None], box_size - radii[..., None]
    distance = np.where(velocities > 0.0, upper - positions, positions - lower)
    speed = np.abs(velocities)
    moving = speed > 0.0
    return np.where(moving, np.maximum(distance, 0.0) / np.where(moving, speed, 1.0), np.inf)


def first_events(
    positions: Float[np.ndarray, "n b 2"],
    velocities: Float[np.ndarray, "n b 2"],
    radii: Float[np.ndarray, "n b"],
    present: Bool[np.ndarray, "n b"],
    box_size: float,
    player: bool,
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Finds the next event of every world.

    Returns:
        The frames until it, and its number: the pair (see `pairs_of`), or the number of pairs plus 2 * ball +
        axis for a wall.
    """
    meetings = meeting_times(positions, velocities, radii, present, player)
    walls = wall_times(positions, velocities, radii, box_size)
    times = np.concatenate([meetings, walls.reshape(len(walls), -1)], axis=1)
    event = times.argmin(axis=1)
    return times[np.arange(len(times)), event], event


def bounce(
    positions: Float[np.ndarray, "n b 2"],
    velocities: Float[np.ndarray, "n b 2"],
    masses: Float[np.ndarray, "n b"],
    worlds: Int[np.ndarray, " m"],
    first: Int[np.ndarray, " m"],
    second: Int[np.ndarray, " m"],
    player: bool,
) -> None:
    """Lets one touching pair in each of the given worlds bounce, changing ``velocities`` in place.

    The impulse is along the normal and only where the pair approaches: J = 2 v_n / (1/m_1 + 1/m_2).

    Args:
        positions: Centres.
        velocities: Velocities before; afterwards those after the bounce.
        masses: Masses.
        worlds: The worlds in which a pair touches, each at most once.
        first: The pair's first ball.
        second: The pair's second ball.
        player: Whether ball 0 is the player's. It halts at the other ball and the other bounces off it as
            off a wall at rest (its mass counts as infinite), so that pushing never makes a ball faster. This
            is the rule of STOVE (Kossen et al., 2020).
    """
    of_player = (first == 0) & player
    velocities[worlds[of_player], 0] = 0.0
    normal = positions[worlds, second] - positions[worlds, first]
    normal /= np.sqrt((normal**2).sum(axis=1, keepdims=True))
    speed = ((velocities[worlds, second] - velocities[worlds, first]) * normal).sum(axis=1)
    inverse_first = np.where(of_player, 0.0, 1.0 / masses[worlds, first])
    inverse_second = 1.0 / masses[worlds, second]
    impulse = (np.maximum(-2.0 * speed, 0.0) / (inverse_first + inverse_second))[:, None] * normal
    velocities[worlds, first] -= impulse * inverse_first[:, None]
    velocities[worlds, second] += impulse * inverse_second[:, None]


def reflect(
    positions: Float[np.ndarray, "n b 2"],
    velocities: Float[np.ndarray, "n b 2"],
    radii: Float[np.ndarray, "n b"],
    worlds: Int[np.ndarray, " m"],
    ball: Int[np.ndarray, " m"],
    axis: Int[np.ndarray, " m"],
    box_size: float,
    player: bool,
) -> None:
    """Lets one ball in each of the given worlds bounce off a wall in place; the player's ball stops there."""
    radius = radii[worlds, ball]
    positions[worlds, ball, axis] = np.clip(positions[worlds, ball, axis], radius, box_size - radius)
    stops = (ball == 0) & player
    velocities[worlds, ball, axis] *= np.where(stops, 0.0, -1.0)


def advance(
    positions: Float[np.ndarray, "n b 2"],
    velocities: Float[np.ndarray, "n b 2"],
    radii: Float[np.ndarray, "n b"],
    masses: Float[np.ndarray, "n b"],
    present: Bool[np.ndarray, "n b"],
    box_size: float,
    span: float,
    player: bool,
) -> Bool[np.ndarray, "n b"]:
    """Moves all worlds on by one span of time, changing ``positions`` and ``velocities`` in place.

    The clock of a world with more than `EVENTS_PER_SPAN` events would stop until the span is over.

    Args:
        positions: Centres.
        velocities: Velocities in units a frame.
        radii: Radii.
        masses: Masses.
        present: Which balls are there.
        box_size: Side of the box.
        span: Frames to move on.
        player: Whether ball 0 is the player's; see `bounce`.

    Returns:
        Which balls met another ball.
    """
    touching = np.zeros(radii.shape, dtype=np.bool_)
    first_of, second_of = pairs_of(positions.shape[1])
    number_of_pairs = len(first_of)
    remaining = np.full(len(positions), span)
    active = np.arange(len(positions))
    for _ in range(EVENTS_PER_SPAN):
        time, event = first_events(
            positions[active], velocities[active], radii[active], present[active], box_size, player
        )
        met = time < remaining[active]
        time = np.where(met, time, remaining[active])
        positions[active] += velocities[active] * time[:, None, None]
        remaining[active] -= time
        active, event = active[met], event[met]
        if not len(active):
            break
        pair = event < number_of_pairs
        worlds, first, second = active[pair], first_of[event[pair]], second_of[event[pair]]
        bounce(positions, velocities, masses, worlds, first, second, player)
        touching[worlds, first] = True
        touching[worlds, second] = True
        ball, axis = np.divmod(event[~pair] - number_of_pairs, 2)
        reflect(positions, velocities, radii, active[~pair], ball, axis, box_size, player)
    return touching

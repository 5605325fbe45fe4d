"""Scripted players of a few known environments, for data in which more happens than under random play.

Each is a function of what the environment itself shows, and ``--policy rnem_world.agents.players:balance`` names it.
They play well enough to get further than chance, and err often enough that a world learnt from them knows what errors
lead to.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float


def balance(observation: Float[np.ndarray, " 4"], generator: np.random.Generator) -> int:
    """Keeps the pole of ``CartPole-v1`` upright in the middle, with two in five actions left to chance."""
    if generator.random() < 0.4:
        return int(generator.integers(2))
    return _lean(observation, 0.0, 0.12)


def wander(observation: Float[np.ndarray, " 4"], generator: np.random.Generator) -> int:
    """Keeps the pole of ``CartPole-v1`` upright and drives from side to side, with one in five actions left to chance.

    So the cart is seen at many places, and no place of the picture is always covered.
    """
    if generator.random() < 0.2:
        return int(generator.integers(2))
    return _lean(observation, math.copysign(1.0, observation[1]), 0.06)


def _lean(observation: Float[np.ndarray, " 4"], target: float, damping: float) -> int:
    """Pushes to where the pole leans, and a little so that the cart comes to a target."""
    place, speed, angle, turning = (float(value) for value in observation)
    return int(angle + 0.6 * turning + 0.04 * (place - target) + damping * speed > 0.0)


def swing_up(observation: Float[np.ndarray, " 3"], generator: np.random.Generator) -> Any:
    """Swings the arm of ``Pendulum-v1`` up and holds it there, with noise on the torque."""
    upright, sideways, turning = (float(value) for value in observation)
    angle = math.atan2(sideways, upright)
    if upright > 0.85 and abs(turning) < 3.5:
        torque = -12.0 * angle - 3.0 * turning
    else:
        # The energy of an arm that stands still upright is 15 (g = 10, length and mass 1, over two).
        energy = turning**2 / 6.0 + 5.0 * (upright - 1.0)
        torque = -2.0 * np.sign(energy) * np.sign(turning or 1.0)
    torque += generator.normal(scale=0.8)
    return np.array([np.clip(torque, -2.0, 2.0)], np.float32)


def follow_ball(observation: Bool[np.ndarray, "10 10 4"], generator: np.random.Generator) -> int:
    """Brings the paddle of ``MinAtar/Breakout-v1`` to where the ball will land; one action in ten is chance."""
    return _follow_ball(observation, generator, 0.1)


def follow_ball_carelessly(observation: Bool[np.ndarray, "10 10 4"], generator: np.random.Generator) -> int:
    """Plays as `follow_ball`, with every second action left to chance."""
    return _follow_ball(observation, generator, 0.5)


def _follow_ball(
    observation: Bool[np.ndarray, "10 10 4"], generator: np.random.Generator, chance: float
) -> int:
    if generator.random() < chance:
        return int(generator.integers(3))
    paddle = int(observation[9, :, 0].argmax())
    (row, column), (row_before, column_before) = (
        divmod(int(observation[..., channel].argmax()), 10) for channel in (1, 2)
    )
    # Down to the paddle, or up to the bricks and down again.
    steps = 9 - row if row > row_before else max(row - 3, 0) + 6
    landing = abs(column + (column > column_before) * steps - (column < column_before) * steps)
    landing = abs(18 - landing) if landing > 9 else landing
    return int(landing < paddle) + 2 * int(landing > paddle)


def cross(observation: Bool[np.ndarray, "10 10 7"], generator: np.random.Generator) -> int:
    """Goes up in ``MinAtar/Freeway-v1`` whatever comes, with one in four actions left to chance."""
    return int(generator.integers(3)) if generator.random() < 0.25 else 1


def follow_ball_of_pong(observation: Any, generator: np.random.Generator) -> int:
    """Moves the right paddle of ``ALE/Pong-v5`` to the ball's height, with one in four actions left to chance."""
    if generator.random() < 0.25:
        return int(generator.integers(6))
    field = np.asarray(observation)[34:194]
    ball = np.argwhere((field[:, 20:138] == 236).all(axis=-1))
    paddle = np.argwhere((field[:, 140:144] == (92, 186, 92)).all(axis=-1))
    if not len(ball) or not len(paddle):
        return 0
    difference = ball[:, 0].mean() - paddle[:, 0].mean()
    if abs(difference) < 3.0:
        return 0
    return 2 if difference < 0.0 else 3

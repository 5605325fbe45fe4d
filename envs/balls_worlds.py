"""N worlds of balls with actions, rewards and frames: what the single and the vector environment share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from jaxtyping import Bool, Float64, Integer, UInt8
from numpy.typing import NDArray

from rnem_world.envs.vector_arguments import check_actions
from rnem_world.errors import ConfigError
from rnem_world.physics import (
    BallsConfig,
    BallsState,
    collision_mask,
    number_of_actions,
    player_velocity,
    preset,
    rasterise,
    sample_state,
    step,
)

PALETTE = np.array(
    [
        (18, 20, 28),
        (245, 245, 245),
        (239, 108, 88),
        (86, 180, 233),
        (240, 196, 80),
        (102, 194, 132),
        (190, 130, 220),
        (150, 160, 175),
        (230, 150, 190),
    ],
    dtype=np.uint8,
)
"""RGB of the background and the balls for `BallsWorlds.render`."""

RENDERED_SIZE = 256
"""Least side of a rendered frame in pixels."""


def rules_of(rules: str | BallsConfig) -> BallsConfig:
    """Returns the rules themselves, or those of the preset of that name.

    Raises:
        ConfigError: If there is no such preset, or it is something else.
    """
    if isinstance(rules, BallsConfig):
        return rules
    if not isinstance(rules, str):
        raise ConfigError(f"preset is {rules!r}, expected the name of a preset or a BallsConfig")
    return preset(rules)


@dataclass(frozen=True)
class WorldsSnapshot:
    """A copy of N worlds from which they go on exactly as they did.

    Attributes:
        balls: The balls.
        touching: Which balls met another ball during the last step.
        collisions: The collision mask of the last step.
    """

    balls: BallsState
    touching: Bool[np.ndarray, "n b"]
    collisions: UInt8[np.ndarray, "n h w 1"]


class BallsWorlds:
    """N worlds of balls, stepped at once.

    Args:
        rules: Their rules.
        number_of_worlds: N.
    """

    def __init__(self, rules: BallsConfig, number_of_worlds: int) -> None:
        self.rules = rules
        self.number_of_worlds = number_of_worlds
        self.number_of_actions = number_of_actions(rules)
        n, b, size = number_of_worlds, rules.most_balls, rules.image_size
        self._balls = BallsState(
            positions=np.zeros((n, b, 2)),
            velocities=np.zeros((n, b, 2)),
            radii=np.zeros((n, b)),
            masses=np.ones((n, b)),
            present=np.zeros((n, b), dtype=np.bool_),
            curtain=np.zeros((n, 2), dtype=np.int64),
        )
        self._started = np.zeros(n, dtype=np.bool_)
        self._touching = np.zeros((n, b), dtype=np.bool_)
        self._groups = np.zeros((n, size, size), dtype=np.uint8)
        self._collisions = np.zeros((n, size, size), dtype=np.uint8)

    def reset(self, worlds: Integer[np.ndarray, " m"], generators: Sequence[np.random.Generator]) -> None:
        """Draws the given worlds anew, each from its generator."""
        balls = sample_state(self.rules, generators)
        self._balls.put(worlds, balls)
        self._groups[worlds] = rasterise(balls, self.rules)
        self._touching[worlds] = False
        self._collisions[worlds] = 0
        self._started[worlds] = True

    def step(self, actions: NDArray[Any]) -> Float64[np.ndarray, " n"]:
        """Moves all worlds on by one frame.

        Args:
            actions: N integers below ``number_of_actions``.

        Returns:
            The rewards: -1 where the player's ball met another, else 0.

        Raises:
            ConfigError: If the actions are of another kind.
            gymnasium.error.ResetNeeded: If a world hasn't been reset yet.
        """
        self._check_started()
        actions = check_actions(actions, self.number_of_worlds, self.number_of_actions)
        velocity = player_velocity(self.rules, actions)
        self._balls, self._touching = step(self._balls, self.rules, velocity)
        self._collisions = collision_mask(self._groups, self._touching)
        self._groups = rasterise(self._balls, self.rules)
        return np.where(self._touching[:, 0] & self.rules.player, -1.0, 0.0)

    def frames(self) -> UInt8[np.ndarray, "n h w 1"]:
        """Returns the frames, 0 or 255, as a new array."""
        return ((self._groups > 0) * np.uint8(255))[..., None]

    def ground_truth(self) -> dict[str, NDArray[Any]]:
        """Returns what a frame doesn't show, as new arrays.

        Returns:
            ``groups`` (n, h, w, 1) uint8; ``collisions`` (n, h, w, 1) uint8, for the transition just made the
            pixels, in the frame before it, of the balls that met another; ``positions`` and ``velocities``
            (n, b, 2) float64, zeros for a ball that isn't there.
        """
        return {
            "groups": self._groups[..., None].copy(),
            "collisions": self._collisions[..., None].copy(),
            "positions": self._balls.positions.copy(),
            "velocities": self._balls.velocities.copy(),
        }

    def render(self) -> UInt8[np.ndarray, "n height width 3"]:
        """Returns coloured pictures, magnified to at least 256 pixels a side."""
        numbers = self._groups.astype(np.int64)
        colours = np.where(numbers > 0, (numbers - 1) % (len(PALETTE) - 1) + 1, 0)
        factor = -(-RENDERED_SIZE // self.rules.image_size)
        return PALETTE[colours.repeat(factor, axis=1).repeat(factor, axis=2)]

    def get_state(self) -> WorldsSnapshot:
        """Returns a copy of the worlds.

        Raises:
            gymnasium.error.ResetNeeded: If a world hasn't been reset yet.
        """
        self._check_started()
        return WorldsSnapshot(self._balls.copy(), self._touching.copy(), self._collisions[..., None].copy())

    def set_state(self, snapshot: WorldsSnapshot) -> None:
        """Goes back to a copy of the worlds.

        Raises:
            ConfigError: If the copy is of other worlds.
        """
        given = (snapshot.balls.positions.shape, snapshot.collisions.shape[:3])
        expected = (self._balls.positions.shape, self._groups.shape)
        if given != expected:
            raise ConfigError(f"the state is of worlds and frames of the shapes {given}, expected {expected}")
        self._balls = snapshot.balls.copy()
        self._touching = snapshot.touching.copy()
        self._collisions = snapshot.collisions[..., 0].copy()
        self._groups = rasterise(self._balls, self.rules)
        self._started[:] = True

    def _check_started(self) -> None:
        if not self._started.all():
            raise ResetNeeded("reset the environment before anything else")

"""``RNEM-BallsReal-v0``: worlds of balls, simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from jaxtyping import Bool, Int64, Integer, UInt8
from numpy.typing import NDArray

from rnem_world.envs.episodes import Array, Infos, Transition, check_count
from rnem_world.envs.vector import BatchedVectorEnv, SingleEnv
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
"""RGB of the background and the balls in rendered pictures."""

RENDERED_SIZE = 256
"""Least side of a rendered frame in pixels."""


@dataclass(frozen=True)
class BallsSnapshot:
    """A copy of some worlds from which they go on exactly as they did.

    Attributes:
        balls: The balls.
        collisions: Uint8 (m, h, w), the collision mask of the last step.
    """

    balls: BallsState
    collisions: UInt8[np.ndarray, "m h w"]

    def __len__(self) -> int:
        return len(self.balls)

    def pick(self, rows: Int64[np.ndarray, " m"]) -> BallsSnapshot:
        """Copies some of the worlds, in the given order, repeated or not."""
        return BallsSnapshot(self.balls.take(rows), self.collisions[rows])


class BouncingBallsVectorEnv(BatchedVectorEnv):
    """N times `BouncingBallsEnv` in one; see there for observations, actions and rewards.

    Args:
        num_envs: N.
        preset: The name of the rules (`rnem_world.physics.PRESETS`), or the rules.
        max_episode_steps: Steps after which an episode is truncated; None for never.
        autoreset_mode: When a finished episode is reset: with the next step, with the same, or not by itself.
        ground_truth: Whether ``info`` has ``groups``, ``collisions``, ``positions`` and ``velocities``, see
            `ground_truth`.
        render_mode: ``"rgb_array"`` or None.

    Raises:
        ConfigError: If an argument makes no sense.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array"],
        "render_fps": 20,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        preset: str | BallsConfig = "avoid",
        max_episode_steps: int | None = 100,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        ground_truth: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.rules = rules_of(preset)
        check_count("num_envs", num_envs)
        n, b, size = num_envs, self.rules.most_balls, self.rules.image_size
        frame = spaces.Box(0, 255, (size, size, 1), np.uint8)
        actions = spaces.Discrete(number_of_actions(self.rules))
        super().__init__(num_envs, frame, actions, max_episode_steps, autoreset_mode, render_mode)
        self._shows_truth = ground_truth
        self._balls = BallsState(
            positions=np.zeros((n, b, 2)),
            velocities=np.zeros((n, b, 2)),
            radii=np.zeros((n, b)),
            masses=np.ones((n, b)),
            present=np.zeros((n, b), dtype=np.bool_),
            curtain=np.zeros((n, 2), dtype=np.int64),
        )
        self._groups = np.zeros((n, size, size), dtype=np.uint8)
        self._collisions = np.zeros((n, size, size), dtype=np.uint8)

    def begin(
        self, rows: Int64[np.ndarray, " m"], seeds: Sequence[int | None], options: dict[str, Any]
    ) -> None:
        """Draws worlds anew, each from its generator."""
        balls = sample_state(self.rules, [self.episodes.generator(row) for row in rows.tolist()])
        self._balls.put(rows, balls)
        self._groups[rows] = rasterise(balls, self.rules)
        self._collisions[rows] = 0

    def advance(self, actions: Integer[np.ndarray, " n"], waiting: Bool[np.ndarray, " n"]) -> Transition:
        """Moves all worlds on by one frame."""
        velocity = player_velocity(self.rules, actions)
        self._balls, touching = step(self._balls, self.rules, velocity)
        self._collisions = collision_mask(self._groups, touching)
        self._groups = rasterise(self._balls, self.rules)
        frames, infos = self.observe()
        touched = touching[:, 0] & self.rules.player
        rewards = np.where(touched, -1.0, 0.0)
        never = np.zeros(self.num_envs, dtype=np.bool_)
        return Transition(frames, rewards, touched & self.rules.ends_at_touch, never, infos)

    def observe(self, rows: Int64[np.ndarray, " m"] | None = None) -> tuple[Array, Infos]:
        """Returns the frames, (m, H, W, 1), 0 or 255, and what they don't show if that is asked for."""
        groups = self._groups if rows is None else self._groups[rows]
        frames = ((groups > 0) * np.uint8(255))[..., None]
        return frames, self.ground_truth(rows) if self._shows_truth else {}

    def ground_truth(self, rows: Int64[np.ndarray, " m"] | None = None) -> dict[str, NDArray[Any]]:
        """Returns what a frame doesn't show, as new arrays.

        Args:
            rows: Of which worlds; None for all.

        Returns:
            ``groups`` (m, h, w, 1) uint8; ``collisions`` (m, h, w, 1) uint8, for the transition just made the
            pixels, in the frame before it, of the balls that met another; ``positions`` and ``velocities``
            (m, b, 2) float64, zeros for a ball that isn't there.
        """
        chosen = np.arange(self.num_envs) if rows is None else rows
        return {
            "groups": self._groups[chosen, ..., None],
            "collisions": self._collisions[chosen, ..., None],
            "positions": self._balls.positions[chosen],
            "velocities": self._balls.velocities[chosen],
        }

    def pictures(self) -> UInt8[np.ndarray, "n height width 3"]:
        """Draws the worlds in colour, magnified to at least 256 pixels a side."""
        numbers = self._groups.astype(np.int64)
        colours = np.where(numbers > 0, (numbers - 1) % (len(PALETTE) - 1) + 1, 0)
        factor = -(-RENDERED_SIZE // self.rules.image_size)
        return PALETTE[colours.repeat(factor, axis=1).repeat(factor, axis=2)]

    def copy_state(self, rows: Int64[np.ndarray, " m"]) -> BallsSnapshot:
        """Copies some worlds."""
        return BallsSnapshot(self._balls.take(rows), self._collisions[rows])

    def put_state(self, rows: Int64[np.ndarray, " m"], state: Any) -> None:
        """Makes some worlds go on as the copied ones did.

        Raises:
            ConfigError: If the copy is of worlds with other rules.
        """
        if not isinstance(state, BallsSnapshot):
            raise ConfigError(f"the state is of a {type(state).__name__}, expected that of balls")
        given = (state.balls.positions.shape[1:], state.collisions.shape[1:])
        expected = (self._balls.positions.shape[1:], self._collisions.shape[1:])
        if given != expected:
            raise ConfigError(f"the state is of worlds and frames of the shapes {given}, expected {expected}")
        self._balls.put(rows, state.balls)
        self._collisions[rows] = state.collisions
        self._groups[rows] = rasterise(state.balls, self.rules)


class BouncingBallsEnv(SingleEnv):
    """Balls in a box; where the rules have a player, an action moves the ball drawn as a ring.

    Observations are frames, (H, W, 1) uint8 of 0 and 255. Actions are Discrete(9): stay, then the eight
    directions from up clockwise; Discrete(1) in a world without a player. The reward is -1 for a step in
    which the player's ball meets another, else 0. That ends the episode if the rules say so (preset ``survive``); else
    it never terminates, and `gymnasium.make` truncates it.

    Args:
        preset: The name of the rules (`rnem_world.physics.PRESETS`), or the rules.
        ground_truth: Whether ``info`` has ``groups``, ``collisions``, ``positions`` and ``velocities``, see
            `BouncingBallsVectorEnv.ground_truth`.
        render_mode: ``"rgb_array"``, ``"human"`` or None.

    Raises:
        ConfigError: If an argument makes no sense.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array", "human"],
        "render_fps": 20,
    }

    def __init__(
        self, preset: str | BallsConfig = "avoid", ground_truth: bool = False, render_mode: str | None = None
    ) -> None:
        super().__init__(
            BouncingBallsVectorEnv(1, preset, None, AutoresetMode.DISABLED, ground_truth=ground_truth),
            render_mode,
        )


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

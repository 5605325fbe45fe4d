"""The rules of worlds of balls: what may be set, the worlds that have a name, and what a player's actions do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Integer

from rnem_world.config import check_types
from rnem_world.errors import ConfigError, suggest

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
        ends_at_touch: Whether an episode ends when the player's ball touches another.

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
    ends_at_touch: bool = False

    def __post_init__(self) -> None:
        check_types(self)
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
        if self.ends_at_touch and not self.player:
            raise ConfigError("ends_at_touch is set, and there is no player whose touch could end an episode")
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


PRESETS: Mapping[str, BallsConfig] = MappingProxyType(
    {
        # The three datasets of the paper.
        "balls4mass64": BallsConfig(),
        "balls678mass64": BallsConfig(numbers_of_balls=(6, 7, 8)),
        "balls3curtain64": BallsConfig(
            numbers_of_balls=(3,), kinds=((1.2, 1.0),), initial_speed=0.5, curtain_size=28
        ),
        # The same in small frames, quick on a CPU.
        "balls4mass32": BallsConfig(image_size=32),
        "balls678mass32": BallsConfig(numbers_of_balls=(6, 7, 8), image_size=32),
        "balls3curtain32": BallsConfig(
            numbers_of_balls=(3,), kinds=((1.2, 1.0),), initial_speed=0.5, image_size=32, curtain_size=14
        ),
        # As fast, each ball, and fewer of them: models that learn from these bind four, see docs/binding.md.
        "balls1mass32": BallsConfig(image_size=32, numbers_of_balls=(1,), initial_speed=0.167),
        "balls2mass32": BallsConfig(image_size=32, numbers_of_balls=(2,), initial_speed=0.236),
        "balls2curtain32": BallsConfig(
            numbers_of_balls=(2,), kinds=((1.2, 1.0),), initial_speed=0.408, image_size=32, curtain_size=14
        ),
        "balls1mass64": BallsConfig(numbers_of_balls=(1,), initial_speed=0.167),
        "balls2mass64": BallsConfig(numbers_of_balls=(2,), initial_speed=0.236),
        "balls2curtain64": BallsConfig(
            numbers_of_balls=(2,), kinds=((1.2, 1.0),), initial_speed=0.408, curtain_size=28
        ),
        "balls3small32": BallsConfig(
            numbers_of_balls=(3,), kinds=((1.3, 1.0),), initial_speed=0.5, image_size=32
        ),
        # Worlds with a player.
        "control": BallsConfig(player=True, initial_speed=0.5),
        # Standing still costs about 10 in 100 steps, and a planner on the true physics hardly anything.
        "avoid": BallsConfig(
            kinds=((1.1, 1.0),), initial_speed=1.1, image_size=32, player=True, player_radius=1.1
        ),
        # The first touch ends it: for worlds that have ends.
        "survive": BallsConfig(
            kinds=((1.1, 1.0),),
            initial_speed=1.1,
            image_size=32,
            player=True,
            player_radius=1.1,
            ends_at_touch=True,
        ),
        # The same as avoid with more balls, as fast each: for worlds that were learned with four.
        "avoid6": BallsConfig(
            numbers_of_balls=(6,),
            kinds=((1.1, 1.0),),
            initial_speed=1.42,
            image_size=32,
            player=True,
            player_radius=1.1,
        ),
        "stove": BallsConfig(
            numbers_of_balls=(3,),
            kinds=((1.0, 1.0),),
            initial_speed=0.5,
            start_region=0.5,
            image_size=32,
            player=True,
        ),
    }
)
"""Read-only; each value can be changed with `dataclasses.replace`."""


def preset(name: str) -> BallsConfig:
    """Returns the rules of a world by its name.

    Raises:
        ConfigError: If there is none of that name; the message names the nearest.
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}: {suggest(name, PRESETS)}")
    return PRESETS[name]


_DIAGONAL = math.sqrt(0.5)

DIRECTIONS = np.array(
    [
        (0.0, 0.0),
        (0.0, -1.0),
        (_DIAGONAL, -_DIAGONAL),
        (1.0, 0.0),
        (_DIAGONAL, _DIAGONAL),
        (0.0, 1.0),
        (-_DIAGONAL, _DIAGONAL),
        (-1.0, 0.0),
        (-_DIAGONAL, -_DIAGONAL),
    ]
)
"""(x, y) of every action: stay, then up and on clockwise; y points downwards, as the rows of a frame do."""

DIRECTIONS.setflags(write=False)


def number_of_actions(config: BallsConfig) -> int:
    """Returns 9, or 1 (nothing to do) where there is no player."""
    return len(DIRECTIONS) if config.player else 1


def player_velocity(
    config: BallsConfig, actions: Integer[np.ndarray, " n"]
) -> Float[np.ndarray, "n 2"] | None:
    """Turns actions into velocities for `rnem_world.physics.balls.step`.

    Args:
        config: The rules of the worlds.
        actions: Numbers below `number_of_actions`.

    Returns:
        Velocities in units a frame, or None where there is no player.
    """
    return config.player_speed * DIRECTIONS[actions] if config.player else None

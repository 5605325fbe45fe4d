"""The worlds that have a name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from rnem_world.errors import ConfigError, suggest
from rnem_world.physics.balls import BallsConfig

PRESETS: Mapping[str, BallsConfig] = MappingProxyType(
    {
        # The three datasets of the paper.
        "balls4mass64": BallsConfig(),
        "balls678mass64": BallsConfig(numbers_of_balls=(6, 7, 8)),
        "balls3curtain64": BallsConfig(
            numbers_of_balls=(3,), kinds=((1.2, 1.0),), initial_speed=0.5, curtain_size=28
        ),
        # Small frames, quick on a CPU.
        "balls4mass32": BallsConfig(image_size=32),
        "balls3small32": BallsConfig(
            numbers_of_balls=(3,), kinds=((1.3, 1.0),), initial_speed=0.5, image_size=32
        ),
        # Worlds with a player.
        "control": BallsConfig(player=True, initial_speed=0.5),
        # Standing still costs about 10 in 100 steps, and a planner on the true physics hardly anything.
        "avoid": BallsConfig(
            kinds=((1.1, 1.0),), initial_speed=1.1, image_size=32, player=True, player_radius=1.1
        ),
        # The same with more balls, as fast each: for worlds that were learned with four.
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

"""What a page has to know of a world: its frames, actions and their names, slots and their colours."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces

from rnem_world.envs.real import BALLS_ENVIRONMENT, is_game, real_environment
from rnem_world.envs.world import World
from rnem_world.errors import RnemWorldError
from rnem_world.evaluation.pictures import slot_colours
from rnem_world.play.imagining import Imagining
from rnem_world.play.messages import FRAME_RATES, MOST_KEPT

DIRECTIONS = ("stay", "up", "up right", "right", "down right", "down", "down left", "left", "up left")
"""The actions of the player's ball, in the order of `rnem_world.physics.rules.DIRECTIONS`."""

GAME_FRAMES_PER_SECOND, FRAMES_PER_SECOND = 15, 30
"""A game's own speed, four of the console's 60 frames a step; and that of worlds that have none."""


def action_facts(world: World) -> dict[str, Any]:
    """Says what can be done in a world.

    Returns:
        ``kind`` (discrete, multi_discrete, multi_binary or box), and by kind ``names``, ``sizes``, or ``low`` and
        ``high``.
    """
    space: spaces.Space[Any] = world.action_space
    if isinstance(space, spaces.Discrete):
        return {"kind": "discrete", "names": _names(world, int(space.n))}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "multi_discrete", "sizes": space.nvec.ravel().tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "multi_binary", "sizes": [2] * int(space.shape[0])}
    if isinstance(space, spaces.Box):
        return {"kind": "box", "low": space.low.ravel().tolist(), "high": space.high.ravel().tolist()}
    raise TypeError(f"{space} is no action space of a world")


def _names(world: World, number: int) -> list[str]:
    """Names actions as their environment does; by their numbers where it doesn't, or isn't there to be asked."""
    if world.config.environment == BALLS_ENVIRONMENT and number == len(DIRECTIONS):
        return list(DIRECTIONS)
    if is_game(world):
        try:
            names = getattr(real_environment(world), "action_names", ())
        except RnemWorldError:  # the dream can be played without the game
            names = ()
        if len(names) == number:
            return [str(name).lower() for name in names]
    return ["nothing"] if number == 1 else [f"action {index}" for index in range(number)]


def facts_of(imagining: Imagining, fps: int | None = None) -> dict[str, Any]:
    """Lists what a page has to know.

    Args:
        imagining: Dreams of the world.
        fps: Frames a second; None takes the world's own.
    """
    world = imagining.world
    colours = [[round(255 * part) for part in colour] for colour in slot_colours(imagining.slots).tolist()]
    own = GAME_FRAMES_PER_SECOND if is_game(world) else FRAMES_PER_SECOND
    return {
        "world": world.folder.name,
        "weights": world.fingerprint,
        "frame": list(world.frame_shape),
        "binary": world.model.likelihood.is_binary,
        "slots": imagining.slots,
        "colours": colours,
        "actions": action_facts(world),
        "fps": own if fps is None else fps,
        "rates": list(FRAME_RATES),
        "way": imagining.way,
        "uncertainty": imagining.uncertainty,
        "kept": MOST_KEPT,
    }

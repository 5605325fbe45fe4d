"""What a page has to know of a world: its frames, actions and their names, slots and their colours."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from rnem_world.envs.any import AnyVectorEnv
from rnem_world.envs.real import BALLS_ENVIRONMENT, is_game, real_environment
from rnem_world.envs.world import World
from rnem_world.errors import RnemWorldError
from rnem_world.evaluation.pictures import slot_colours
from rnem_world.play.imagining import Imagining
from rnem_world.play.messages import FRAME_RATES, MOST_KEPT

DIRECTIONS = ("stay", "up", "up right", "right", "down right", "down", "down left", "left", "up left")
"""The actions of the player's ball, in the order of `rnem_world.physics.rules.DIRECTIONS`."""

FAR = 1.0
"""How far the slider of a real number without bounds goes."""

GAME_FRAMES_PER_SECOND, FRAMES_PER_SECOND = 15, 30
"""A game's own speed, four of the console's 60 frames a step; and that of worlds that have none."""


def action_facts(world: World) -> dict[str, Any]:
    """Says what can be done in a world, and how it is sent: as it is stored.

    Returns:
        ``kind`` (discrete, multi_discrete, multi_binary or box), and by kind ``names``, ``sizes``, or ``low`` and
        ``high``.
    """
    known = world.actions
    if known.is_discrete:
        return {"kind": known.kind, "names": _names(world, known.sizes[0])}
    if known.kind != "box":
        return {"kind": known.kind, "sizes": list(known.sizes)}
    # What has no bound gets a slider all the same.
    low = [-FAR if value is None else value for value in known.low]
    return {"kind": "box", "low": low, "high": [FAR if value is None else value for value in known.high]}


def _names(world: World, number: int) -> list[str]:
    """Names actions as their environment does; by their numbers where it doesn't, or isn't there to be asked."""
    if world.config.environment == BALLS_ENVIRONMENT and number == len(DIRECTIONS):
        return list(DIRECTIONS)
    names: Sequence[str] = ()
    if number > 1:
        with contextlib.suppress(RnemWorldError):  # the dream can be played without its environment
            names = _names_there(world)
    if len(names) == number:
        return [str(name).lower() for name in names]
    return ["nothing"] if number == 1 else [f"action {index}" for index in range(number)]


def _names_there(world: World) -> Sequence[str]:
    """Asks the real environment: a game of ours, or one that tells what its actions mean, as those of ale-py do."""
    env = real_environment(world)
    try:
        if isinstance(env, AnyVectorEnv):
            tells = getattr(env.envs[0].env.unwrapped, "get_action_meanings", None)
            return list(tells()) if callable(tells) else ()
        return list(getattr(env, "action_names", ()))
    finally:
        env.close()


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
        "world": world.name,
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

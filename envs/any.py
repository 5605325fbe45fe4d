"""Environments of any kind by their Gymnasium id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from rnem_world.envs import register_environments
from rnem_world.envs.atari_worlds import chosen_world
from rnem_world.errors import ConfigError, RnemWorldError, suggest


def make_environment(name: str, num_envs: int, options: Mapping[str, Any]) -> VectorEnv[Any, Any, Any]:
    """Makes N environments that honour ``options["reset_mask"]``: one batch of ours, single ones of others.

    Args:
        name: A Gymnasium id.
        num_envs: N.
        options: Keyword arguments of the environment, ``max_episode_steps`` among them.

    Raises:
        ConfigError: If there is no such environment, or it doesn't take these options.
        RnemWorldError: If the environment itself refuses them.
    """
    register_environments()
    try:
        spec = gymnasium.spec(name)
    except gymnasium.error.Error as error:
        known_ids = [known for known in gymnasium.registry if known.startswith("RNEM-")]
        raise ConfigError(
            f"no environment {name!r} ({_first_line(error)}): {suggest(name, known_ids)}"
        ) from error
    ours = str(spec.vector_entry_point).startswith("rnem_world.")
    mode = "vector_entry_point" if ours else "sync"
    try:
        return gymnasium.make_vec(name, num_envs, vectorization_mode=mode, **options)
    except RnemWorldError:
        raise
    except (TypeError, ValueError, gymnasium.error.Error) as error:
        raise ConfigError(
            f"can't make {name} with the options {dict(options)}: {_first_line(error)}"
        ) from error


def world_of(name: str, options: Mapping[str, Any]) -> str:
    """Says which learned world an environment dreams in.

    Args:
        name: A Gymnasium id.
        options: The keyword arguments that it was made with.

    Raises:
        ConfigError: If no world is shipped for its game.
        DependencyError: If no world is shipped for its game, and ale-py isn't there to say whether it is one at all.
    """
    register_environments()
    spec = gymnasium.registry.get(name)
    arguments = {**(spec.kwargs if spec else {}), **options}
    return str(chosen_world(arguments.get("checkpoint"), arguments.get("game")))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

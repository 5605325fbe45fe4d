"""Learned worlds of Atari games: which is shipped for a game, and which game a world is of."""

from __future__ import annotations

from pathlib import Path

from rnem_world.envs.atari_emulator import Emulator
from rnem_world.envs.atari_games import game_named, games

from rnem_world.data.dataset import Dataset
from rnem_world.envs.atari_starts import game_starts
from rnem_world.envs.learned_world import ATARI_ENVIRONMENT, LearnedWorld
from rnem_world.envs.starts import STARTS_FILE, Starts
from rnem_world.errors import ConfigError, DependencyError
from rnem_world.training.checkpoint import read_config
from rnem_world.training.run_folder import find_checkpoint, pretrained_names

BALLS = "balls"


def chosen_world(checkpoint: str | Path | None, game: str | None) -> str | Path:
    """Says which world an environment is to load.

    Args:
        checkpoint: What the user names; it wins.
        game: An Atari game, for which the shipped world is taken.

    Raises:
        ConfigError: If there is no such game, or no world of it is shipped.
        DependencyError: If no world of it is shipped, and ale-py isn't there to say whether it is a game at all.
    """
    if checkpoint is not None:
        return checkpoint
    return BALLS if game is None else shipped_world(game)


def shipped_world(game: str) -> str:
    """Finds the shipped world of a game: that of ``SpaceInvaders`` is ``space_invaders``.

    Raises:
        ConfigError: If there is no such game, or no world of it is shipped.
        DependencyError: If no world of it is shipped, and ale-py isn't there to say whether it is a game at all.
    """
    shipped = {
        _plain(name): name
        for name in pretrained_names()
        if read_config(find_checkpoint(name)).environment == ATARI_ENVIRONMENT
    }
    if _plain(game) in shipped:
        return shipped[_plain(game)]
    name = game_named(game)
    raise ConfigError(
        f"no world of {name} is shipped (shipped: {', '.join(shipped.values()) or 'none'}): train one with "
        f"`rnem-world train --env atari --game {name} --world-model` and give checkpoint='runs/world-{name}'"
    )


def is_game(world: LearnedWorld) -> bool:
    """Whether a world was learned from an Atari game."""
    return world.config.environment == ATARI_ENVIRONMENT


def game_of(world: LearnedWorld, named: str | None = None) -> str:
    """Says which game a world was learned from, by its data, the data's name, or its folder's.

    Args:
        world: The world.
        named: The game, if the user knows.

    Raises:
        ConfigError: If it is of no game, or of another than the user says, or nobody knows of which, or there is no
            game of the name that is given.
        DependencyError: If ale-py is not installed.
    """
    if not is_game(world):
        raise ConfigError(
            f"{world.folder.name} was learned from {world.config.environment or 'unknown data'}, which is no game"
        )
    own, wanted = _recorded_game(world), None if named is None else game_named(named)
    if own is not None and wanted not in (None, own):
        raise ConfigError(
            f"{world.folder} was learned from {own}, and its dreams can't begin in {wanted}: give starts='real'"
        )
    game = own or wanted
    if game is None:
        raise ConfigError(
            f"{world.folder} doesn't say which game it was learned from (its data is {world.config.data!r}): give "
            "starts='real:GAME', for example starts='real:SpaceInvaders', or a dataset"
        )
    return game


def _recorded_game(world: LearnedWorld) -> str | None:
    data = Path(world.config.data)
    if world.config.data and data.exists():
        with Dataset.open(data) as dataset:
            game = dataset.attributes.settings.get("game")
        if isinstance(game, str):
            return game_named(game)
    known = {_plain(name): name for name in games()}
    words = [_plain(word) for word in (data.stem, world.folder.name)]
    return next((known[word] for word in words if word in known), None)


def played_starts(world: LearnedWorld, named: str | None = None) -> Starts:
    """Returns starts out of the real game that a world was learned from.

    Args:
        world: The world.
        named: The game, if the user knows.

    Raises:
        ConfigError: If nobody knows the game, or it isn't the world's.
        DependencyError: If ale-py is not installed.
    """
    try:
        game = game_of(world, named)
        number = len(Emulator(game).action_names)
    except DependencyError as error:
        raise DependencyError(
            f"dreams of {world.folder.name} begin in the real game. {error}; or give starts=DATASET"
        ) from error
    if number != world.number_of_actions:
        raise ConfigError(
            f"{game} has {number} actions, and the world {world.folder.name} knows {world.number_of_actions}: "
            "give the game that it was learned from, as starts='real:GAME'"
        )
    return game_starts(game)


def own_starts(world: LearnedWorld) -> Starts:
    """Finds where dreams begin if the user doesn't say: a game's in its own file or the real game, others' as they say.

    Raises:
        DataError: If there are no starts.
        RnemWorldError: If the game can't be played.
    """
    if is_game(world) and not (world.folder / STARTS_FILE).is_file():
        return played_starts(world)
    return world.default_starts()


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())

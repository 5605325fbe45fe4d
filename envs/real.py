"""The real environment that a learned world stands for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from gymnasium.vector import AutoresetMode

from rnem_world.config import build
from rnem_world.data.dataset import Dataset
from rnem_world.envs.any import AnyVectorEnv
from rnem_world.envs.atari import AtariVectorEnv
from rnem_world.envs.atari_console import Emulator, game_named, games
from rnem_world.envs.balls import BouncingBallsVectorEnv
from rnem_world.envs.ids import environment_spec
from rnem_world.envs.recipe import EnvironmentRecipe
from rnem_world.envs.vector import BatchedVectorEnv, SingleEnv
from rnem_world.envs.world import World
from rnem_world.errors import ConfigError, DependencyError, suggest
from rnem_world.physics import PRESETS, BallsConfig, preset
from rnem_world.training.checkpoint import find_checkpoint, pretrained_names, read_config

BALLS_ENVIRONMENT = "RNEM-BallsReal-v0"
ATARI_ENVIRONMENT = "RNEM-AtariReal-v0"
ATARI_DREAM, ATARI_GAME = "RNEM-Atari-v0", "SpaceInvaders"
"""The environment that dreams the shipped world of a game, and its game if none is named."""
REAL_ENVIRONMENT = "RNEM-Real-v0"
"""What the world of any checkpoint was learned from."""
ANY_DREAM = "RNEM-World-v0"
"""The environment that dreams the world of any checkpoint."""


def chosen_world(checkpoint: str | Path | None, game: str | None) -> str | Path:
    """Says which world an environment is to load: the one that is named, or the shipped one of a game.

    Args:
        checkpoint: What the user names.
        game: An Atari game, for which the shipped world is taken.

    Raises:
        ConfigError: If both are named, there is no such game, or no world of it is shipped.
        DependencyError: If no world of it is shipped, and ale-py isn't there to say whether it is a game at all.
    """
    if checkpoint is not None and game is not None:
        raise ConfigError(
            f"checkpoint={str(checkpoint)!r} and game={game!r} are both given: leave one out, since a checkpoint knows "
            "its game"
        )
    if checkpoint is not None:
        return checkpoint
    return "balls" if game is None else shipped_world(game)


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


def is_game(world: World) -> bool:
    """Whether a world was learned from an Atari game."""
    return world.config.environment == ATARI_ENVIRONMENT


def has_recipe(checkpoint: str | Path) -> bool:
    """Whether the world of a checkpoint knows how to make its environment, one of any kind.

    Raises:
        CheckpointError: If there is no such checkpoint.
    """
    return read_config(find_checkpoint(checkpoint)).recipe is not None


def game_of(world: World, named: str | None = None) -> str:
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
            f"{world.name} was learned from {world.config.environment or 'unknown data'}, which is no game"
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


def _recorded_game(world: World) -> str | None:
    data = world.config.data_path
    if data is not None and data.exists():
        with Dataset.open(data) as dataset:
            game = dataset.attributes.settings.get("game")
        if isinstance(game, str):
            return game_named(game)
    known = {_plain(name): name for name in games()}
    words = [_plain(word) for word in (Path(world.config.data).stem, world.name)]
    return next((known[word] for word in words if word in known), None)


def real_game(world: World, named: str | None = None) -> str:
    """Says which game to play for a world, as `game_of`, and makes sure that it has the world's actions.

    Raises:
        ConfigError: As `game_of`; or if the game has another number of actions.
        DependencyError: If ale-py is not installed.
    """
    try:
        game = game_of(world, named)
        number = len(Emulator(game).action_names)
    except DependencyError as error:
        raise DependencyError(
            f"dreams of {world.name} begin in the real game. {error}; or give starts=DATASET"
        ) from error
    if number != world.number_of_actions:
        raise ConfigError(
            f"{game} has {number} actions, and the world {world.name} knows {world.number_of_actions}: "
            "give the game that it was learned from, as starts='real:GAME'"
        )
    return game


def real_rules(world: World, named: str | None = None) -> BallsConfig:
    """Finds the rules of the real balls that a world was learned from.

    Args:
        world: The world.
        named: A preset's name, instead of what the checkpoint says.

    Raises:
        ConfigError: If the world wasn't learned from balls, nobody knows which, or their frames are of another size.
    """
    config = world.config
    if config.environment != BALLS_ENVIRONMENT:
        raise ConfigError(
            f"{world.name} was learned from {config.environment or 'unknown data'}, and nobody knows how to "
            "make that environment: its data has no recipe of it (`rnem-world collect --env ID` stores one)"
        )
    if named is not None:
        rules = preset(named)
    elif config.data in PRESETS:
        rules = preset(config.data)
    elif config.data_path is not None and config.data_path.exists():
        with Dataset.open(config.data_path) as dataset:
            rules = build(BallsConfig, dataset.attributes.settings.get("rules", {}), "rules")
    else:
        raise ConfigError(
            f"{world.name} doesn't say which balls it was learned from: give starts='real:PRESET', "
            f"{suggest(config.data, PRESETS)}"
        )
    if rules.image_size != world.frame_shape[0]:
        raise ConfigError(
            f"the balls {named or config.data!r} have frames of {rules.image_size} pixels a side, and the world "
            f"{world.name} knows frames {world.frame_shape}: choose a preset of that size"
        )
    return rules


def real_environment(world: World, num_envs: int = 1, **options: Any) -> BatchedVectorEnv:
    """Makes N copies of the real environment that a world was learned from, which shows the same frames.

    Args:
        world: The world.
        num_envs: N.
        **options: Keyword arguments of `AnyVectorEnv`, or of `BouncingBallsVectorEnv` or `AtariVectorEnv` for worlds of
            theirs: ``max_episode_steps``, ``autoreset_mode`` and ``render_mode`` are known to all.

    Raises:
        ConfigError: If nobody knows which environment it was, or an option makes no sense.
        DependencyError: If a package that it needs is not installed.
    """
    if world.config.recipe is not None:
        return AnyVectorEnv(num_envs, EnvironmentRecipe.from_json(world.config.recipe), **options)
    if is_game(world):
        return AtariVectorEnv(num_envs, real_game(world), **options)
    return BouncingBallsVectorEnv(num_envs, real_rules(world), **options)


def real_vector_env(num_envs: int = 1, checkpoint: str | Path = "balls", **options: Any) -> BatchedVectorEnv:
    """Makes ``RNEM-Real-v0`` as a vector environment: what the world of a checkpoint was learned from.

    Args:
        num_envs: N.
        checkpoint: As for `World.load`.
        **options: As for `real_environment`.

    Raises:
        RnemWorldError: As `real_environment`; or if there is no such checkpoint.
    """
    return real_environment(World.load(checkpoint), num_envs, **options)


class RealEnv(SingleEnv):
    """``RNEM-Real-v0``: what the world of a checkpoint was learned from, which shows the same frames.

    Args:
        checkpoint: As for `World.load`.
        render_mode: ``"rgb_array"``, ``"human"`` or None.
        **options: As for `real_environment`.

    Raises:
        RnemWorldError: As `real_environment`; or if there is no such checkpoint.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array", "human"],
        "render_fps": 15,
    }

    def __init__(
        self, checkpoint: str | Path = "balls", render_mode: str | None = None, **options: Any
    ) -> None:
        options = {"max_episode_steps": None, **options, "autoreset_mode": AutoresetMode.DISABLED}
        super().__init__(real_environment(World.load(checkpoint), 1, **options), render_mode)

    def close(self) -> None:
        """Closes the environment, and the window if there is one."""
        super().close()
        self.batch.close()


def world_of(name: str, options: Mapping[str, Any]) -> str:
    """Says which learned world an environment dreams in.

    Args:
        name: A Gymnasium id, see `environment_spec`.
        options: The keyword arguments that it was made with.

    Raises:
        ConfigError: If there is no such environment, or no world is shipped for its game.
        DependencyError: If no world is shipped for its game, and ale-py isn't there to say whether it is one at all.
    """
    spec = environment_spec(name)
    arguments = {**spec.kwargs, **options}
    checkpoint, game = arguments.get("checkpoint"), arguments.get("game")
    if checkpoint is None and game is None and name == ANY_DREAM:
        raise ConfigError(f"{ANY_DREAM} is the world of a checkpoint, and none is named: give checkpoint=")
    if checkpoint is None and game is None and spec.id == ATARI_DREAM:
        game = ATARI_GAME
    return str(chosen_world(checkpoint, game))


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())

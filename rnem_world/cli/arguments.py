"""What commands take in common: flags made from dataclasses of options, flags that several share, what they mean."""

from __future__ import annotations

import dataclasses
import os
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import click

from rnem_world.config import as_path, described, set_path
from rnem_world.distributed import ALONE, Processes, from_torchrun
from rnem_world.errors import ConfigError, DataError, OutputError, suggest
from rnem_world.seeding import check_seed

if TYPE_CHECKING:
    import torch

TEST_SEQUENCES = 1000
VIDEO_FRAMES, EPISODE_FRAMES = 51, 101
FIGURES = (".png", ".pdf", ".svg")
VIDEOS = (".mp4", ".gif", ".webp", ".png")

Command = TypeVar("Command", bound=Callable[..., Any])


class Flag(NamedTuple):
    """A flag that sets one option.

    Attributes:
        name: The flag without its dashes.
        path: Dotted path of the option.
        kind: Type of the option.
        help: What it does, and its default.
    """

    name: str
    path: str
    kind: Any
    help: str

    @property
    def parameter(self) -> str:
        """The name under which click passes the value."""
        return self.name.replace("-", "_")


def flags_of(cls: type, paths: Iterable[str]) -> list[Flag]:
    """Makes flags for options of a dataclass.

    Args:
        cls: The dataclass; options may lie in dataclasses within it.
        paths: Dotted paths of options; a flag is called as the last part of its path, or as ``path=name`` says.
    """
    flags = []
    for entry in paths:
        path, _, name = entry.partition("=")
        *parents, last = path.split(".")
        owner = cls
        for parent in parents:
            owner = get_type_hints(owner)[parent]
        field = next(field for field in dataclasses.fields(owner) if field.name == last)
        default = _as_text(field.default)
        text = described(owner)[last] + (f" [{default}]" if default else "")
        flags.append(Flag(name or last.replace("_", "-"), path, get_type_hints(owner)[last], text))
    return flags


def _as_text(default: Any) -> str:
    if default is None:
        return ""
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def add_flags(flags: list[Flag]) -> Callable[[Command], Command]:
    """Decorates a command with flags that are None unless given."""

    def decorate(command: Command) -> Command:
        for flag in reversed(flags):
            name, settings = f"--{flag.name}", _settings(flag.kind)
            if not settings:  # a truth
                name += f"/--no-{flag.name}"
            command = click.option(name, flag.parameter, default=None, help=flag.help, **settings)(command)
        return command

    return decorate


def _settings(kind: Any) -> dict[str, Any]:
    """Says how click reads an option of a type; nothing for a truth."""
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    names = [name for each in kinds if get_origin(each) is Literal for name in get_args(each)]
    lists = [get_args(each)[0] for each in kinds if get_origin(each) is tuple]
    plain = [each for each in kinds if each in (int, float, str)]
    if lists:
        convert = comma_separated(lists[0])
        return {
            "type": lambda text: text if text in names else convert(text),
            "metavar": "|".join([*names, "LIST"]),
        }
    if names:
        return {"type": str, "metavar": "|".join(names)}
    return {"type": plain[0]} if plain else {}


def given_values(flags: list[Flag], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Collects the flags that were given into nested options."""
    values: dict[str, Any] = {}
    for flag in flags:
        if parameters[flag.parameter] is not None:
            set_path(values, flag.path, parameters[flag.parameter])
    return values


def comma_separated(kind: type) -> Callable[[str], list[Any]]:
    """Makes a converter for ``1,5,10``."""

    def convert(text: str) -> list[Any]:
        try:
            return [kind(part) for part in text.split(",") if part.strip()]
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is not a list such as 1,5,10") from error

    return convert


def seed_option(help_text: str) -> Callable[[Command], Command]:
    """Decorates a command with ``--seed``, which is refused below 0."""

    def check(context: click.Context, parameter: click.Parameter, seed: int) -> int:
        check_seed(seed, "--seed")
        return seed

    return click.option("--seed", default=0, show_default=True, callback=check, help=help_text)


def run_options(command: Command) -> Command:
    """Decorates a command that looks at a trained model with what all of those take beside their own options."""
    options = (
        click.option("--data", type=data, help="Dataset or preset. [what the run was trained on]"),
        click.option(
            "--split",
            type=click.Choice(["training", "validation", "test"]),
            default="test",
            show_default=True,
            help="Which part of the data.",
        ),
        click.option("--slots", type=int, help="Number of slots, K. [the model's own]"),
        click.option(
            "--checkpoint",
            type=click.Choice(["best", "last"]),
            default="best",
            show_default=True,
            help="Which of the run.",
        ),
        seed_option("Of noise and first responsibilities."),
        click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1 ..."),
        click.option("--threads", type=int, help="CPU threads. [all cores]"),
    )
    for option in reversed(options):
        command = option(command)
    return command


def world(given: str) -> str:
    """Takes a trained model's name or path as it is, and says which is meant where there are both; a type for click."""
    _mention(given, _shipped_worlds, "shipped world")
    return given


def data(given: str) -> str:
    """Takes a dataset's name or path as it is, and says which is meant where there are both; a type for click."""
    _mention(given, _collected_by_name, "preset or game")
    return given


def _mention(given: str, names: Callable[[], Iterable[str]], what: str) -> None:
    both = os.sep not in given and Path(given).exists() and as_path(given, names()) is None
    if both and from_torchrun().is_first:
        click.echo(
            f"note: {given} means the {what} of that name; what is called so in this folder is ./{given}",
            err=True,
        )


def _shipped_worlds() -> list[str]:
    from rnem_world.training.checkpoint import pretrained_names

    return pretrained_names()


def _collected_by_name() -> tuple[str, ...]:
    from rnem_world.envs.atari_console import PRESETS as GAMES
    from rnem_world.physics import PRESETS

    return (*PRESETS, *GAMES)


def resolve_data(data: str, **options: Any) -> Path:
    """Finds a dataset by path, or by the name of a preset or an Atari game, which is collected if it isn't there.

    Args:
        data: A path, a preset's name, or a game's; a preset's name means the preset whatever lies in the working
            directory, where ``./NAME`` is.
        **options: What to collect, see :class:`rnem_world.agents.collection.BallsCollection`; not for games.

    Raises:
        DataError: If there is none of these.
    """
    from rnem_world.envs.atari_console import PRESETS as GAMES

    names = _collected_by_name()
    if data in GAMES:
        return resolve_game(data)
    if data not in names:
        path = Path(data)
        if path.exists():
            return path
        known = suggest(path.name, names)
        raise DataError(
            f"there is no dataset {data} and no preset of that name: {known}; give another with --data"
        )
    from rnem_world.agents import collecting

    path = collecting.DATA_FOLDER / f"{data}.h5"
    if not path.exists():
        _announce(path, f"--preset {data}")
        collecting.collect("balls", path, workers=os.cpu_count() or 1, preset=data, **options)
    return path


def resolve_game(game: str) -> Path:
    """Finds the dataset of an Atari game, which is collected if it isn't there.

    Raises:
        ConfigError: If there is no such game.
        DataError: If there is no dataset and several processes run.
        DependencyError: If there is no dataset and ale-py is not installed.
    """
    from rnem_world.agents import collecting
    from rnem_world.agents.collection import AtariCollection

    path = collecting.DATA_FOLDER / f"{game}.h5"
    if not path.exists():  # a game may be named in other ways, which only ale-py knows
        path = collecting.DATA_FOLDER / f"{AtariCollection(game=game).name}.h5"
    if not path.exists():
        _announce(path, f"--env atari --game {game}")
        collecting.collect("atari", path, workers=os.cpu_count() or 1, game=game)
    return path


def _announce(path: Path, flags: str) -> None:
    """Says that a dataset will be collected, which several processes at once can't do."""
    if from_torchrun().world_size > 1:
        raise DataError(
            f"there is no dataset {path}, and several processes don't collect: do it first, with "
            f"`rnem-world collect {flags}` on every machine"
        )
    click.echo(
        f"no data at hand: collecting {path}, which takes a few minutes (`rnem-world collect` makes smaller or larger "
        "sets)"
    )


def resolve_test_data(data: str, split: str) -> Path:
    """Finds a dataset to look at; of a preset or game that isn't there, the first test sequences alone are collected.

    They begin as the first of those that :func:`resolve_data` would collect; where there is a player they last for a
    whole episode (of Atari games, for 51 frames).

    Raises:
        DataError: If there is no such dataset and no preset or game of that name.
    """
    from rnem_world.agents import collecting
    from rnem_world.agents.collection import AtariCollection
    from rnem_world.envs.atari_console import PRESETS as GAMES
    from rnem_world.physics.rules import PRESETS

    folder = collecting.DATA_FOLDER.absolute()
    if data not in (*PRESETS, *GAMES) or (folder / f"{data}.h5").exists() or split != "test":
        return resolve_data(data)
    path = folder / f"{data}-test.h5"
    if path.exists():
        return path
    options: dict[str, Any] = {"num_train": 0, "num_valid": 0}
    if data in GAMES:
        environment, sequences = "atari", AtariCollection.num_test
        options |= {"game": data}
    else:
        environment, sequences = "balls", TEST_SEQUENCES
        options |= {"preset": data, "frames": EPISODE_FRAMES if PRESETS[data].player else VIDEO_FRAMES}
    click.echo(
        f"no data at hand: collecting {sequences} test sequences into {collecting.DATA_FOLDER / path.name}"
    )
    return collecting.collect(environment, path, workers=os.cpu_count() or 1, num_test=sequences, **options)


def lasting(run: str) -> str:
    """Names a trained model so that it means the same from any working directory: a path becomes absolute."""
    from rnem_world.training.hub import HUB

    return run if run.startswith(HUB) else str(as_path(run, _shipped_worlds()) or run)


def place_of(run: str) -> Path:
    """Says where results about a trained model go unless the user says: into its folder, if a folder is meant."""
    name = lasting(run)
    return Path(run) if Path(name).is_absolute() and Path(name).is_dir() else Path()


def resolve_device(device: str, threads: int | None, processes: Processes = ALONE) -> torch.device:
    """Finds the device and sets the number of CPU threads; several processes share the cores of their machine.

    Raises:
        ConfigError: If there is no such device, or no thread is left.
    """
    import torch

    from rnem_world.device import choose_device

    if threads is not None:
        if threads < 1:
            raise ConfigError(f"--threads is {threads}, it must be at least 1")
        torch.set_num_threads(threads)
    elif processes.per_machine > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes.per_machine))
    return choose_device(device, processes)


def check_output(path: Path | None, suffixes: tuple[str, ...] = ()) -> None:
    """Checks that a file can be written, before there is work that would be lost.

    Raises:
        ConfigError: If its suffix isn't among ``suffixes``.
        OutputError: If it is a folder, or its folder can't be made or written to.
    """
    if path is None:
        return
    if path.is_dir():
        raise OutputError(f"can't write {path}: it is a folder, give the name of a file")
    if suffixes and path.suffix.lower() not in suffixes:
        raise ConfigError(
            f"can't write {path}: its suffix is {path.suffix!r}, give one of {', '.join(suffixes)}"
        )
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise OutputError(f"can't write {path}: {folder} is no folder that you may write to, choose another")

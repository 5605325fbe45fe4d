"""Flags that set entries of nested options, beside an options file; a flag wins over the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from rnem_world.errors import ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])


class Flag(NamedTuple):
    """A flag for one option.

    Attributes:
        name: The flag, with its dashes.
        path: Dotted path of the option that it sets.
        type: A click type, or a callable that converts the text; bool for a flag that has a --no- beside it.
        help: What it does.
    """

    name: str
    path: str
    type: Any
    help: str

    @property
    def parameter(self) -> str:
        """The name under which click passes the value."""
        return self.name.lstrip("-").replace("-", "_")


def add_flags(flags: list[Flag]) -> Callable[[Command], Command]:
    """Decorates a command with flags that are None unless given."""

    def decorate(command: Command) -> Command:
        for flag in reversed(flags):
            name = (
                flag.name if flag.type is not bool else f"{flag.name}/--no-{flag.parameter.replace('_', '-')}"
            )
            kind = {"type": flag.type} if flag.type is not bool else {}
            command = click.option(name, flag.parameter, default=None, help=flag.help, **kind)(command)
        return command

    return decorate


def run_options(command: Command) -> Command:
    """Decorates a command that looks at a trained model with what all of those take beside their own options."""
    options = (
        click.option("--data", help="Dataset or preset. [what the run was trained on]"),
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
        click.option(
            "--seed", type=int, default=0, show_default=True, help="Of noise and first responsibilities."
        ),
        click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1 ..."),
        click.option("--threads", type=int, help="CPU threads. [all cores]"),
    )
    for option in reversed(options):
        command = option(command)
    return command


def given_values(flags: list[Flag], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Collects the flags that were given into nested options."""
    values: dict[str, Any] = {}
    for flag in flags:
        if parameters[flag.parameter] is not None:
            set_path(values, flag.path, parameters[flag.parameter])
    return values


def set_path(values: dict[str, Any], path: str, value: Any) -> None:
    """Sets ``values["a"]["b"]`` for the path ``a.b``."""
    *parents, last = path.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[last] = value


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merges nested options; ``over`` wins."""
    result = dict(base)
    for name, value in over.items():
        old = result.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[name] = merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def read_options_file(path: Path) -> dict[str, Any]:
    """Reads options from a YAML or JSON file.

    Raises:
        ConfigError: If it can't be read or holds no mapping.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read the options file {path}: {error}") from error
    try:
        if path.suffix == ".json":
            values = json.loads(text)
        else:
            import yaml

            values = yaml.safe_load(text)
    except Exception as error:  # YAML and JSON raise errors of many kinds
        raise ConfigError(f"the options file {path} is no valid {path.suffix or 'YAML'}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"the options file {path} must hold a mapping such as {{training: {{epochs: 10}}}}")
    return {name: value for name, value in values.items() if name not in ("format", "version")}


def comma_separated(kind: type) -> Callable[[str], list[Any]]:
    """Makes a converter for ``1,5,10``."""

    def convert(text: str) -> list[Any]:
        try:
            return [kind(part) for part in text.split(",") if part.strip()]
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is not a list such as 1,5,10") from error

    convert.__name__ = "list"
    return convert

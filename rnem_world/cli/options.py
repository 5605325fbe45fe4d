"""Flags: made from dataclasses of options, which tell their names, defaults and help; and those that commands share."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import click

from rnem_world.config import described, set_path

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

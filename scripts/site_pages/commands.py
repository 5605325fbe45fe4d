"""The reference of all commands, from the click commands themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from rnem_world.cli.main import group

NAME = "rnem-world"


def commands() -> str:
    """Writes a section for every command that does something."""
    return "\n\n".join(section(name, command) for name, command in leaves(NAME, group))


def leaves(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Walks through a group in its own order."""
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command, info_name=name)
    for child in command.list_commands(context):
        found = command.get_command(context, child)
        assert found is not None, child
        yield from leaves(f"{name} {child}", found)


def section(name: str, command: click.Command) -> str:
    """Writes one command: what it does, how it is called, its options."""
    context = click.Context(command, info_name=name)
    usage = " ".join(piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]")
    shown = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    rows = [f"| {flags(option)} | {meaning(option, context)} |" for option in shown]
    return "\n".join([
        f"## {name}",
        "",
        in_code(inspect.cleandoc(command.help or "").replace("\b\n", "")),
        "",
        "```text",
        f"{name} {usage} [OPTIONS]".replace("  ", " "),
        "```",
        "",
        *(stacked(["| option | |", "|---|---|", *rows]) if rows else []),
    ])  # fmt: skip


def stacked(table: list[str]) -> list[str]:
    """Lets the cells of a table's rows stand below one another on narrow screens; see docs/style.css."""
    return ['<div class="stacked" markdown>', "", *table, "", "</div>"]


def flags(option: click.Option) -> str:
    """``-o, --out PATH`` of an option; ``--half / --no-half`` of a switch with two names."""
    names = " / ".join(", ".join(part) for part in (option.opts, option.secondary_opts) if part)
    kind = "" if option.is_flag or option.count else option.make_metavar(click.Context(click.Command(None)))
    return f"`{names} {kind}".strip() + "`"


def meaning(option: click.Option, context: click.Context) -> str:
    """The help of an option, with its default in code."""
    record = option.get_help_record(context)
    text = re.sub(r"\s+", " ", record[1] if record else "")
    default = re.search(r"\s*\[(?:default: )?([^\[\]]*)\]$", text)
    if default is None:
        return cell(in_code(text))
    return cell(f"{in_code(text[: default.start()])} *Default: {in_code(default[1])}.*")


def in_code(text: str) -> str:
    """Sets flags and names of files in code, where the text doesn't already."""
    return re.sub(r"(?<![`\w-])(--[a-z][\w-]*|[\w/]+\.(?:md|json|yaml|h5|npz))(?![`\w])", r"`\1`", text)


def cell(text: str) -> str:
    """Escapes what would end a cell of a table."""
    return text.replace("|", r"\|")

"""The options of a run, from the dataclasses that hold them."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from rnem_world.config import described
from rnem_world.training.config import RunConfig
from site_pages.commands import cell, stacked


def options() -> str:
    """Writes a table for every group of options."""
    return "\n\n".join(table(path, cls) for path, cls in groups("", RunConfig))


def groups(path: str, cls: type) -> Iterator[tuple[str, type]]:
    """Walks through a dataclass and those in it, with their dotted paths."""
    hints = typing.get_type_hints(cls)
    nested = [(field.name, dataclass_in(hints[field.name])) for field in dataclasses.fields(cls)]
    if any(inner is None for _, inner in nested):
        yield path, cls
    for name, inner in nested:
        if inner is not None:
            yield from groups(f"{path}.{name}".lstrip("."), inner)


def dataclass_in(hint: Any) -> type | None:
    """The dataclass that a field holds, also where it may be None."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    found = [kind for kind in kinds if dataclasses.is_dataclass(kind) and isinstance(kind, type)]
    return found[0] if found else None


def table(path: str, cls: type) -> str:
    """Writes the options of one dataclass that are no groups themselves."""
    hints = typing.get_type_hints(cls)
    meanings = {name: cell(re.sub(r":\w+:(?=`)", "", text)) for name, text in described(cls).items()}
    rows = [
        f"| `{field.name}` | {default_of(field)} | {meanings[field.name]} |"
        for field in dataclasses.fields(cls)
        if dataclass_in(hints[field.name]) is None
    ]
    title = f"## `{path}`" if path else "## Outside of all groups"
    return "\n".join([title, "", *stacked(["| option | default | |", "|---|---|---|", *rows])])


def default_of(field: dataclasses.Field[Any]) -> str:
    """The default as YAML and JSON have it."""
    value = field.default
    if value is dataclasses.MISSING:
        if field.default_factory is dataclasses.MISSING:
            return "must be given"
        value = field.default_factory()
    if value == "":
        return ""
    if value is None or isinstance(value, bool):
        return f"`{ {None: 'null', True: 'true', False: 'false'}[value] }`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"

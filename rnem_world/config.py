"""Options: from the values of files and flags to frozen dataclasses, with errors that name the option."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rnem_world.errors import ConfigError, suggest

Options = TypeVar("Options")

_SCIENTIFIC = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def build(cls: type[Options], values: Any, where: str = "") -> Options:
    """Makes a dataclass of options from plain values, as JSON and YAML have them.

    Args:
        cls: A dataclass; its fields may be dataclasses themselves, given as mappings.
        values: A mapping of options by name; what is left out takes its default.
        where: Dotted path of these options, for messages.

    Raises:
        ConfigError: If a name is unknown, a value has the wrong type, or the dataclass refuses it.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{where or 'the options'}: {values!r} was given, a mapping of options was expected"
        )
    hints = get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    arguments = {}
    for name, value in values.items():
        path = f"{where}.{name}" if where else str(name)
        if name not in known:
            raise ConfigError(f"unknown option {path!r}: {suggest(str(name), known)}")
        arguments[name] = _convert(hints[name], value, path)
    return cls(**arguments)


def _convert(kind: Any, value: Any, path: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _convert_union(get_args(kind), value, path)
    if origin is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"{path} is {value!r}: {suggest(str(value), map(str, get_args(kind)))}")
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return value if isinstance(value, kind) else build(kind, value, path)
    if origin is tuple:
        if isinstance(value, (list, tuple)):
            element = get_args(kind)[0]
            return tuple(_convert(element, entry, f"{path}[{index}]") for index, entry in enumerate(value))
    elif kind is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str) and _SCIENTIFIC.fullmatch(value):  # YAML reads 1e-3 as text
            return float(value)
    elif kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif kind is Any or (isinstance(kind, type) and isinstance(value, kind)):
        return value
    expected = getattr(kind, "__name__", str(kind))
    raise ConfigError(f"{path} is {value!r}, a value of type {expected} was expected")


def _convert_union(kinds: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    problems = []
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return _convert(kind, value, path)
        except ConfigError as problem:
            problems.append(str(problem))
    raise ConfigError(" / ".join(problems))


def parse_settings(settings: Iterable[str], what: str) -> dict[str, Any]:
    """Reads ``name=value`` pairs; values are read as JSON or Python's truths, and as text where they are neither.

    Raises:
        ConfigError: If one has no name or no ``=``.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise ConfigError(f"{what} {setting!r} has no value, expected NAME=VALUE, for example horizon=10")
        try:
            values[name] = json.loads(text.lower() if text in ("True", "False") else text)
        except ValueError:
            values[name] = text
    return values


def check_at_least(options: object, least: float | int, *names: str) -> None:
    """Checks that numbers among options are finite and large enough; None passes.

    Raises:
        ConfigError: If one isn't.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value >= least):
            raise ConfigError(f"{name} is {value}, it must be at least {least:g}")


def check_between(options: object, low: float, high: float, *names: str) -> None:
    """Checks that numbers among options are in a range, its bounds included.

    Raises:
        ConfigError: If one isn't.
    """
    for name in names:
        if not low <= getattr(options, name) <= high:
            raise ConfigError(f"{name} is {getattr(options, name)}, it must be {low:g} to {high:g}")


def check_above_zero(options: object, *names: str) -> None:
    """Checks that numbers among options are finite and above 0; None passes.

    Raises:
        ConfigError: If one isn't.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} is {value}, it must be a number above 0")


def check_one_of(options: object, name: str, known: Iterable[str]) -> None:
    """Checks that an option is one of the known names.

    Raises:
        ConfigError: If it isn't.
    """
    value, known = getattr(options, name), list(known)
    if value not in known:
        raise ConfigError(f"unknown {name} {value!r}: {suggest(str(value), known)}")

"""Options: from the nested values of files and flags to frozen dataclasses, with errors that name the option."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
import numbers
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rnem_world.errors import ConfigError, suggest

Options = TypeVar("Options")
# Of products and convolutions; see rnem_world.training.config.ExecutionConfig.
Precision = Literal["float32", "tf32", "bf16"]

# What a run's config.json holds beside its options.
NO_OPTIONS = ("format", "version", "data_from_here")

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
    try:
        return cls(**arguments)
    except ConfigError as problem:
        if not where:
            raise
        raise ConfigError(f"{where}: {problem}") from problem


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
    if origin in (tuple, Sequence):
        if isinstance(value, (list, tuple)):
            element = get_args(kind)[0]
            return tuple(_convert(element, entry, f"{path}[{index}]") for index, entry in enumerate(value))
    elif origin is dict:
        if isinstance(value, Mapping):
            return dict(value)
    elif kind is float:
        if isinstance(value, numbers.Real) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str) and _SCIENTIFIC.fullmatch(value):  # YAML reads 1e-3 as text
            return float(value)
    elif kind is int:
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):
            return value
    elif kind is Any or (isinstance(kind, type) and isinstance(value, kind)):
        return value
    expected = str(kind) if origin is not None else getattr(kind, "__name__", str(kind))
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


def check_types(options: object) -> None:
    """Checks that options have the types that their dataclass declares; for a tuple a list will do.

    Raises:
        ConfigError: If one hasn't.
    """
    cls: Any = type(options)
    for name, kind in _types(cls).items():
        _convert(kind, getattr(options, name), name)


@functools.cache
def _types(cls: type) -> dict[str, Any]:
    """Gives the types of what is handed to a dataclass; what it finds by itself isn't there yet when it is checked."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def parse_settings(settings: Iterable[str], what: str) -> dict[str, Any]:
    """Reads ``name=value`` pairs; values are read as JSON or Python's truths, and as text where they are neither.

    Raises:
        ConfigError: If one has no name or no ``=``, or a name comes twice.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise ConfigError(f"{what} {setting!r} has no value, expected NAME=VALUE, for example horizon=10")
        if name in values:
            raise ConfigError(f"{what} {setting!r} was given, and {name} before it already: leave one out")
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
        value = _number(options, name)
        if value is not None and not (math.isfinite(value) and value >= least):
            raise ConfigError(f"{name} is {value}, it must be at least {least:g}")


def check_between(options: object, low: float | int, high: float | int, *names: str) -> None:
    """Checks that numbers among options are in a range, its bounds included; None passes.

    Raises:
        ConfigError: If one isn't.
    """
    for name in names:
        value = _number(options, name)
        if value is not None and not low <= value <= high:
            raise ConfigError(f"{name} is {value}, it must be {low:g} to {high:g}")


def check_above_zero(options: object, *names: str) -> None:
    """Checks that numbers among options are finite and above 0; None passes.

    Raises:
        ConfigError: If one isn't.
    """
    for name in names:
        value = _number(options, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} is {value}, it must be a number above 0")


def _number(options: object, name: str) -> Any:
    value = getattr(options, name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, numbers.Real)):
        raise ConfigError(f"{name} is {value!r}, a number was expected")
    return value


def check_one_of(options: object, name: str, known: Iterable[str]) -> None:
    """Checks that an option is one of the known names.

    Raises:
        ConfigError: If it isn't.
    """
    value, known = getattr(options, name), list(known)
    if value not in known:
        raise ConfigError(f"unknown {name} {value!r}: {suggest(str(value), known)}")


def as_path(given: str | Path, names: Iterable[str] = ()) -> Path | None:
    """Tells a path from a name by its form, so that nothing named depends on what lies in the working directory.

    A text that is one of the names means that. ``./balls`` and ``balls/`` are paths, as is whatever is no name; paths
    are made absolute, so that they mean the same after a change of the working directory.

    Args:
        given: What the user gave; a ``Path`` is always a path.
        names: The names that are known.

    Returns:
        The path, absolute; None for a name.
    """
    return None if isinstance(given, str) and given in names else Path(given).absolute()


def described(cls: type) -> dict[str, str]:
    """Reads what a dataclass's docstring says of each of its attributes, on one line."""
    found: dict[str, str] = {}
    name = ""
    for line in (inspect.getdoc(cls) or "").partition("Attributes:")[2].splitlines():
        if line and not line.startswith(" "):  # the next section
            break
        if match := re.fullmatch(r" {4}(\w+): (.*)", line):
            name, text = match.groups()
            found[name] = text
        elif line.strip() and name:
            found[name] += f" {line.strip()}"
    return {name: text.replace("``", "") for name, text in found.items()}


def set_path(values: dict[str, Any], path: str, value: Any) -> None:
    """Sets ``values["a"]["b"]`` for the path ``a.b``."""
    *parents, last = path.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[last] = value


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merges nested values; ``over`` wins."""
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
    return {name: value for name, value in values.items() if name not in NO_OPTIONS}

"""What a page and the server say to one another.

A page sends small JSON texts, one command each; whatever else arrives is refused, and the connection closed. The server
sends texts, ``{"type": "hello"}`` first and ``{"type": "refused"}`` where a command can't be followed, and pictures as
binary messages: the length of a JSON header (4 bytes, little-endian), the header, and the pixels of all lanes.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from rnem_world.actions import ActionSpace
from rnem_world.config import build
from rnem_world.errors import ConfigError, suggest

LARGEST_MESSAGE = 4096
"""Bytes; no command needs more."""

MOST_KEPT = 24
"""Moments that a visitor can keep."""

LaneName = Literal["dream", "branch"]
"""The lanes that visitors act in: the dream, and the one that branched from it."""

FRAME_RATES = (1, 2, 5, 10, 15, 20, 30, 60)
"""Frames a second that can be asked for: they divide 60, so that the dreams of many visitors are stepped at once."""


@dataclass(frozen=True)
class Act:
    """From now on, do this in a lane."""

    action: Any
    lane: LaneName = "dream"


@dataclass(frozen=True)
class Play:
    """Let time go on, or stop."""

    on: bool


@dataclass(frozen=True)
class Step:
    """Make one step, and stop."""


@dataclass(frozen=True)
class Seek:
    """Go to a moment of the past, or of a future that has been, and stop."""

    time: int


@dataclass(frozen=True)
class Speed:
    """Dream so many frames a second."""

    fps: int


@dataclass(frozen=True)
class Begin:
    """Begin a new dream, the one of a seed if one is given."""

    seed: int | None = None


@dataclass(frozen=True)
class Remove:
    """Take an object out."""

    slot: int
    lane: LaneName = "dream"


@dataclass(frozen=True)
class Place:
    """Put an object somewhere: itself, or a copy of it."""

    slot: int
    x: float
    y: float
    copy: bool = True
    lane: LaneName = "dream"


@dataclass(frozen=True)
class Exchange:
    """Let two objects change places."""

    first: int
    second: int
    lane: LaneName = "dream"


@dataclass(frozen=True)
class Undo:
    """Take the last change of objects back."""


@dataclass(frozen=True)
class Branch:
    """Let a second dream go another way from here, or end it; ``keep`` makes it the dream."""

    on: bool
    keep: bool = False


@dataclass(frozen=True)
class Real:
    """Show the real environment under the same actions, or don't."""

    on: bool


@dataclass(frozen=True)
class Keep:
    """Keep this moment under a number."""

    number: int


@dataclass(frozen=True)
class Return:
    """Go back to a moment that was kept."""

    number: int


@dataclass(frozen=True)
class Seen:
    """The page has shown pictures up to this one; it gets no others while too many are under way."""

    picture: int


Command: TypeAlias = (
    Act
    | Play
    | Step
    | Seek
    | Speed
    | Begin
    | Remove
    | Place
    | Exchange
    | Undo
    | Branch
    | Real
    | Keep
    | Return
    | Seen
)
_KINDS: dict[str, type[Command]] = {kind.__name__.lower(): kind for kind in get_args(Command)}


def read_command(text: str, slots: int, frame: tuple[int, int, int], actions: ActionSpace) -> Command:
    """Reads and checks what a page sent.

    Args:
        text: The message.
        slots: Slots of a dream.
        frame: (h, w, c) of a frame.
        actions: What can be done; actions are sent as they are stored.

    Raises:
        json.JSONDecodeError: If it is no JSON.
        ConfigError: If it is no command, or asks for what there isn't.
    """
    try:
        given = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ConfigError("the message is nested too deeply, expected one flat object") from error
    kind = _KINDS.get(given.pop("type", "")) if _is_flat(given) else None
    if kind is None:
        raise ConfigError(f"{text[:60]!r} is no command, expected {{'type': ...}}: {suggest('', _KINDS)}")
    needed = [each.name for each in fields(kind) if each.default is MISSING]
    if not given.keys() >= set(needed):
        raise ConfigError(f"{text[:60]!r} lacks something, expected {', '.join(needed)}")
    command = build(kind, given, kind.__name__.lower())
    _check_numbers(command, slots, frame)
    if isinstance(command, Act):
        return Act(read_action(command.action, actions), command.lane)
    return command


def _is_flat(given: Any) -> bool:
    return isinstance(given, dict) and isinstance(given.get("type"), str)


def _refuse_constant(name: str) -> Any:
    raise ConfigError(f"the message holds {name}, expected finite numbers")


def _check_numbers(command: Command, slots: int, frame: tuple[int, int, int]) -> None:
    for name in ("slot", "first", "second"):
        slot = getattr(command, name, 0)
        if not 0 <= slot < slots:
            raise ConfigError(f"{name} is {slot}, expected 0 to {slots - 1}")
    if isinstance(command, Place):
        height, width, _ = frame
        if not (0.0 <= command.x <= width and 0.0 <= command.y <= height):
            raise ConfigError(f"({command.x}, {command.y}) lies outside the frame of {width} x {height}")
    if isinstance(command, Speed) and command.fps not in FRAME_RATES:
        raise ConfigError(f"fps is {command.fps}, expected one of {FRAME_RATES}")
    if isinstance(command, Keep | Return) and not 0 <= command.number < MOST_KEPT:
        raise ConfigError(f"number is {command.number}, expected 0 to {MOST_KEPT - 1}")
    if isinstance(command, Begin) and command.seed is not None and not 0 <= command.seed < 2**63:
        raise ConfigError(f"seed is {command.seed}, expected 0 to {2**63 - 1}")


def read_action(given: Any, known: ActionSpace) -> NDArray[Any]:
    """Reads a stored action as JSON has it: a number, or a list of them.

    Args:
        given: What was sent.
        known: What can be done.

    Returns:
        One action, () or (d,), int64 or float32; real numbers are brought within their bounds.

    Raises:
        ConfigError: If it is none of these.
    """
    numbers = given if isinstance(given, list) else [given]
    is_box = known.kind == "box"
    kinds: tuple[type, ...] = (int, float) if is_box else (int,)
    if (
        isinstance(given, list) != bool(known.stored_shape)
        or len(numbers) != known.length
        or not all(type(number) in kinds and abs(number) < 2**31 for number in numbers)
        or not (is_box or all(0 <= number < size for number, size in zip(numbers, known.sizes, strict=True)))
    ):
        raise ConfigError(f"the action is {str(given)[:60]}, expected {known.described}")
    if is_box:
        numbers = [
            min(max(number, -math.inf if low is None else low), math.inf if high is None else high)
            for number, low, high in zip(numbers, known.low, known.high, strict=True)
        ]
    return np.array(numbers, dtype=known.stored_dtype).reshape(known.stored_shape)


def write_text(kind: str, **values: Any) -> str:
    """Writes a text message."""
    return json.dumps({"type": kind, **values}, separators=(",", ":"))


def write_picture(header: dict[str, Any], pixels: list[NDArray[np.uint8]]) -> bytes:
    """Writes a binary message.

    Args:
        header: What the pixels are.
        pixels: Arrays, one behind the other.
    """
    text = json.dumps(header, separators=(",", ":")).encode()
    return b"".join((struct.pack("<I", len(text)), text, *(array.tobytes() for array in pixels)))

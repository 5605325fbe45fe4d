"""Reading the variables in a checkpoint of TensorFlow, without TensorFlow.

Of the two formats the second, TensorFlow's own since 1.0, is a table ``NAME.index`` that says where in the files
``NAME.data-00000-of-00001``, ... each variable's bytes are; the first is one table ``NAME`` that holds them itself.
Every byte is checked against its checksum. Names of fields and their numbers are from TensorFlow's ``tensor_bundle``,
``saved_tensor_slice`` and ``tensor`` protocol buffers.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnem_world.errors import CheckpointError
from rnem_world.models.tensorflow_tables import (
    MalformedError,
    Message,
    is_table,
    masked_checksum,
    read_table,
    unpacked,
)

Arrays = dict[str, NDArray[Any]]

# TensorFlow's numbers of the types that NumPy has too, and where a TensorProto keeps their values.
_TYPES = {
    1: "f4",
    2: "f8",
    3: "i4",
    4: "u1",
    5: "i2",
    6: "i1",
    9: "i8",
    10: "?",
    17: "u2",
    19: "f2",
    22: "u4",
}
_REAL_NUMBERS = {1: (5, "<f4"), 2: (6, "<f8")}
_WHOLE_NUMBERS = {3: 7, 4: 7, 5: 7, 6: 7, 9: 10, 10: 11, 17: 7}
_CONTENT = 4
_INDEX = ".index"
_DATA = re.compile(r"\.data-\d{5}-of-\d{5}$")


def read_tensorflow_checkpoint(given: str | os.PathLike[str]) -> Arrays:
    """Reads all variables of numbers.

    Args:
        given: The checkpoint's name without a suffix, as TensorFlow has it; one of its files; or its folder, if there
            is one checkpoint in it, or one named ``best``.

    Returns:
        The arrays in TensorFlow's layout, by the variables' names.

    Raises:
        CheckpointError: If there is none, or it is damaged or of another kind.
        DependencyError: If google-crc32c isn't installed.
    """
    prefix = find_tensorflow_checkpoint(Path(given))
    index = prefix.with_name(prefix.name + _INDEX)
    path = index if index.exists() else prefix
    try:
        data = path.read_bytes()
        return _read_bundle(prefix, data) if path == index else _read_single_file(data)
    except MalformedError as error:
        raise CheckpointError(f"{path} can't be read as a checkpoint of TensorFlow: {error}") from error
    except OSError as error:
        raise CheckpointError(f"can't read {error.filename or path}: {error.strerror or error}") from error


def find_tensorflow_checkpoint(given: Path) -> Path:
    """Finds the name without a suffix of the checkpoint that a path means.

    Raises:
        CheckpointError: If there is none, or there are several.
    """
    if given.is_dir():
        names = sorted(path.name.removesuffix(_INDEX) for path in given.glob(f"*{_INDEX}"))
        if len(names) == 1 or "best" in names:
            return given / ("best" if "best" in names else names[0])
        if names:
            raise CheckpointError(f"{given} holds several checkpoints, name one: {', '.join(names)}")
        raise CheckpointError(f"{given} holds no checkpoint of TensorFlow (no file NAME{_INDEX})")
    prefix = given.with_name(_DATA.sub("", given.name.removesuffix(_INDEX).removesuffix(".meta")))
    if prefix.with_name(prefix.name + _INDEX).exists() or prefix.is_file():
        return prefix
    raise CheckpointError(
        f"there is no checkpoint of TensorFlow at {given} (no file {prefix.name}{_INDEX}): give its name without a "
        "suffix, or its folder"
    )


def _read_bundle(prefix: Path, index: bytes) -> Arrays:
    """Reads the second format: the entries of the index, then each one's bytes."""
    entries = dict(read_table(index))
    header = Message(entries.pop(b"", b""))
    shards, order = header.number(1), ">" if header.number(2) else "<"
    opened: dict[int, NDArray[np.uint8]] = {}
    arrays: Arrays = {}
    for key, value in entries.items():
        entry, name = Message(value), key.decode("utf-8", "replace")
        kind, shape = _TYPES.get(entry.number(1)), _shape(entry.message(2))
        if kind is None:  # text, such as TensorFlow 2 keeps the objects' graph in
            continue
        if 7 in entry:
            raise MalformedError(f"the variable {name!r} is partitioned, which the original's never are")
        shard, offset, size = entry.number(3), entry.number(4), entry.number(5)
        if size != math.prod(shape) * np.dtype(kind).itemsize:
            raise MalformedError(f"the variable {name!r} of shape {shape} has {size} bytes")
        if shard not in opened:
            path = prefix.with_name(f"{prefix.name}.data-{shard:05}-of-{shards:05}")
            opened[shard] = np.fromfile(path, np.uint8)
        content = opened[shard][offset : offset + size].tobytes() if offset >= 0 else b""
        if len(content) != size:
            raise MalformedError(
                f"the variable {name!r} lies beyond the end of the data: that file is cut short"
            )
        if masked_checksum(content) != entry.number(6):
            raise MalformedError(
                f"the variable {name!r} has another checksum: the data is damaged, or of another checkpoint"
            )
        arrays[name] = np.frombuffer(content, order + kind).astype(kind).reshape(shape)
    return arrays


def _read_single_file(data: bytes) -> Arrays:
    """Reads the first format: what is there, under the empty key, then the values."""
    if not is_table(data):
        raise MalformedError("it is neither of the two formats")
    shapes: dict[str, tuple[tuple[int, ...], int]] = {}
    arrays: Arrays = {}
    for key, value in read_table(data):
        saved = Message(value)
        if not key:
            for each in saved.message(1).messages(1):
                if len(each.messages(4)) > 1:
                    name = each.text(1).decode("utf-8", "replace")
                    raise MalformedError(
                        f"the variable {name!r} is partitioned, which the original's never are"
                    )
                shapes[each.text(1).decode("utf-8", "replace")] = _shape(each.message(2)), each.number(3)
            continue
        part = saved.message(2)
        name = part.text(1).decode("utf-8", "replace")
        if name not in shapes:
            raise MalformedError(f"the variable {name!r} isn't among those that are listed")
        shape, number = shapes[name]
        values = _values(part.message(3), number)
        if values is None:
            continue
        if len(values) != math.prod(shape):
            raise MalformedError(f"the variable {name!r} of shape {shape} has {len(values)} values")
        arrays[name] = values.astype(_TYPES[number]).reshape(shape)
    return arrays


def _shape(message: Message) -> tuple[int, ...]:
    shape = tuple(dimension.number(1) for dimension in message.messages(2))
    if any(size < 0 for size in shape):
        raise MalformedError(f"a variable has the shape {shape}")
    return shape


def _values(tensor: Message, number: int) -> NDArray[Any] | None:
    """Takes the values out of a TensorProto, which has several places for them; None if they are of another type."""
    if number in _TYPES and _CONTENT in tensor:
        return np.frombuffer(tensor.text(_CONTENT), np.dtype(_TYPES[number]).newbyteorder("<"))
    if number in _REAL_NUMBERS:
        field, packed = _REAL_NUMBERS[number]
        return np.frombuffer(b"".join(_as_bytes(value) for value in tensor.values(field)), packed)
    if number in _WHOLE_NUMBERS:
        found: list[int] = []
        for value in tensor.values(_WHOLE_NUMBERS[number]):
            found += unpacked(value) if isinstance(value, bytes) else [value]
        return np.array(found, np.uint64).astype(np.int64)
    return None


def _as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise MalformedError("a real number is stored as a whole one")
    return value

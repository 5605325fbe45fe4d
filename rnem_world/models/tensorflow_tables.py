"""The two layers below TensorFlow's checkpoints: LevelDB's sorted tables, and protocol buffers' wire format.

A table is blocks of sorted keys and values, each block with its checksum, then a footer of 48 bytes that says where the
block of all blocks is. TensorFlow writes its tables uncompressed since version 1.2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from rnem_world.errors import CheckpointError, DependencyError

FOOTER_SIZE = 48
_MAGIC = 0xDB4775248B80FB57
_TRAILER_SIZE = 5
_CHECKSUM_OFFSET = 0xA282EAD8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_UNCOMPRESSED = 0
_LONGEST_VARINT = 10


class MalformedError(CheckpointError):
    """Bytes aren't laid out as they should be; the reader of the file adds which file it is."""


def masked_checksum(*parts: bytes | memoryview) -> int:
    """Computes the CRC-32C of bytes as tables store it: rotated, and moved by a constant.

    Raises:
        DependencyError: If google-crc32c isn't installed.
    """
    try:
        import google_crc32c
    except ImportError as error:
        raise DependencyError(
            "the checksums in a checkpoint of TensorFlow need google-crc32c, which isn't installed: "
            'pip install "rnem-world[formats]"'
        ) from error
    checksum = 0
    for part in parts:
        checksum = google_crc32c.extend(checksum, bytes(part))
    return ((checksum >> 15 | checksum << 17) + _CHECKSUM_OFFSET) & 0xFFFFFFFF


def is_table(data: bytes) -> bool:
    """Whether bytes end as a table does."""
    return len(data) >= FOOTER_SIZE and struct.unpack("<Q", data[-8:])[0] == _MAGIC


def read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the keys and values of a table, in the order of the keys.

    Raises:
        CheckpointError: If it is no table, damaged, or compressed.
    """
    if not is_table(data):
        raise MalformedError("it doesn't end as a table does: it is cut short, or something else")
    footer = data[-FOOTER_SIZE:]
    _, position = _varint(footer, 0)  # where another block is, which nobody uses
    _, position = _varint(footer, position)
    for _, place in _entries(_block(data, footer[position:])):
        yield from _entries(_block(data, place))


def _block(data: bytes, place: bytes) -> bytes:
    """Cuts out the block at a place, an offset and a size, and checks it."""
    offset, position = _varint(place, 0)
    size, _ = _varint(place, position)
    end = offset + size
    if end + _TRAILER_SIZE > len(data):
        raise MalformedError(f"a block ends at byte {end + _TRAILER_SIZE}, and there are {len(data)}")
    kind, stored = struct.unpack("<BI", data[end : end + _TRAILER_SIZE])
    if masked_checksum(data[offset : end + 1]) != stored:
        raise MalformedError(f"the checksum of its bytes {offset} to {end} is another: it is damaged")
    if kind != _UNCOMPRESSED:
        raise MalformedError(
            "it is compressed, as TensorFlow before 1.2 did: restore it with a newer TensorFlow and save it again"
        )
    return data[offset:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields what a block holds; each key is stored as how much of the last one it shares, and what follows."""
    if len(block) < 4:
        raise MalformedError("a block is too short")
    end = len(block) - 4 * (1 + struct.unpack("<I", block[-4:])[0])
    key, position = b"", 0
    while position < end:
        shared, position = _varint(block, position)
        rest, position = _varint(block, position)
        size, position = _varint(block, position)
        if shared > len(key) or position + rest + size > end:
            raise MalformedError("an entry of a block is longer than the block")
        key = key[:shared] + block[position : position + rest]
        position += rest
        yield key, block[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Reads a whole number of seven bits a byte; returns it and where the next thing begins."""
    value = 0
    for index, byte in enumerate(data[position : position + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise MalformedError("a number has no end")


def unpacked(data: bytes) -> list[int]:
    """Reads whole numbers that follow one another; negative ones are stored as their complement to 2**64."""
    values, position = [], 0
    while position < len(data):
        value, position = _varint(data, position)
        values.append(value % 2**64)
    return values


class Message:
    """A protocol buffer without its schema: the values of its fields, by the numbers of the fields."""

    def __init__(self, data: bytes) -> None:
        self._fields: dict[int, list[int | bytes]] = {}
        position = 0
        while position < len(data):
            tag, position = _varint(data, position)
            number, kind = tag >> 3, tag & 7
            value: int | bytes
            if kind == _VARINT:
                value, position = _varint(data, position)
            else:
                if kind == _BYTES:
                    size, position = _varint(data, position)
                elif kind in (_FIXED32, _FIXED64):
                    size = 4 if kind == _FIXED32 else 8
                else:
                    raise MalformedError(f"a field has the unknown kind {kind}")
                if position + size > len(data):
                    raise MalformedError("a field is longer than its message")
                value = data[position : position + size]
                position += size
            self._fields.setdefault(number, []).append(value)

    def __contains__(self, number: int) -> bool:
        return number in self._fields

    def number(self, field: int, default: int = 0) -> int:
        """Gives a whole number; negative ones are stored as their complement to 2**64."""
        value = self._fields.get(field, [default])[-1]
        if isinstance(value, bytes):
            return int.from_bytes(value, "little")
        return value - 2**64 if value >= 2**63 else value

    def text(self, field: int) -> bytes:
        """Gives a string of bytes; empty where there is none."""
        value = self._fields.get(field, [b""])[-1]
        if not isinstance(value, bytes):
            raise MalformedError(f"the field {field} is a number, and bytes were expected")
        return value

    def message(self, field: int) -> Message:
        """Gives a message within this one; an empty one where there is none."""
        return Message(self.text(field))

    def messages(self, field: int) -> list[Message]:
        """Gives all messages of a field."""
        return [Message(value) for value in self._fields.get(field, []) if isinstance(value, bytes)]

    def values(self, field: int) -> Sequence[int | bytes]:
        """Gives all values of a field as they are stored: packed numbers are one string of bytes."""
        return self._fields.get(field, [])

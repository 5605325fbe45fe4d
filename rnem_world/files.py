"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rnem_world.errors import OutputError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals into one error that names the path."""
    try:
        yield
    except OSError as error:
        # Some libraries put a whole log into the message; a user needs the first line.
        reason = error.strerror or (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OutputError(
            f"can't write {path}: {reason}; free space or choose a folder that you may write to"
        ) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` to write to, which takes its place once the block has succeeded.

    Missing folders are created. When the block raises, the temporary file is removed and whatever stood at
    ``path`` stays as it was.

    Args:
        path: Where the file will be.

    Yields:
        The temporary path, with the same suffix, because writers choose the format by it.

    Raises:
        OutputError: The block, or the replacement after it, met an ``OSError``.
    """
    temporary = path.with_name(f".{path.stem}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    with writing(path):
        try:
            if path.parent.exists() and not path.parent.is_dir():
                raise OutputError(f"can't write {path}: {path.parent} is a file; give another folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON file at once or not at all.

    Raises:
        OutputError: If it can't be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


def synchronise(path: Path) -> None:
    """Forces a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The folder beside a dataset in which the shards of an unfinished collection are kept."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from rnem_world.errors import DataError, OutputError
from rnem_world.types import Split

SETTINGS_FILE = "settings.json"

SHARD_NAME = re.compile(r"(training|validation|test)-\d{5,}\.h5")


def shard_name(split: Split, number: int) -> str:
    """Returns the file name of a shard; sorted by name, the shards of a split are in their order."""
    return f"{split}-{number:05d}.h5"


def check_free(out: Path, overwrite: bool) -> None:
    """Checks that a dataset may be written.

    Args:
        out: The file or folder to write.
        overwrite: Whether it may replace an earlier dataset.

    Raises:
        OutputError: If it exists and may not be replaced.
    """
    if not out.exists():
        return
    if not overwrite:
        raise OutputError(f"{out} exists already; choose another name with --out, or give --overwrite")
    if out.is_dir():
        others = [entry.name for entry in out.iterdir() if not SHARD_NAME.fullmatch(entry.name)]
        if others:
            raise OutputError(f"{out} is a folder with {others[0]!r} in it, no shard; choose another name")


@contextmanager
def reserved(parts: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Holds a folder of parts for one collection alone, and sees to it that its parts are of that collection.

    What a killed process left half-written is removed. A folder without a finished part doesn't stay behind.

    Args:
        parts: The folder.
        settings: What the parts depend on, for JSON.

    Raises:
        DataError: If another collection is writing there, or left parts with other settings.
        OutputError: If the folder can't be written.
    """
    text = json.dumps(settings, sort_keys=True, indent=1).encode()
    path = parts / SETTINGS_FILE
    try:
        parts.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+", buffering=0)  # a buffer that can't be written fails again when it is closed
    except OSError as error:
        raise OutputError(f"{parts} can't be written: {error.strerror or error}") from error
    with file:
        if not _lock(file.fileno()):
            raise DataError(f"another collection is writing into {parts}; wait for it or choose another name")
        file.seek(0)
        found = file.read()
        if found and found != text and any(parts.glob("*.h5")):
            raise DataError(
                f"{parts} holds the parts of a collection with other settings; finish that one with its own "
                "settings, or delete the folder, or choose another name"
            )
        try:
            try:
                if found != text:
                    for leftover in parts.glob(
                        "*.h5"
                    ):  # without settings: of one that was killed cleaning up
                        leftover.unlink()
                    file.truncate(0)
                    _write_all(file, text)
                for orphan in parts.glob(".*.tmp"):
                    orphan.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"{parts} can't be written: {error.strerror or error}") from error
            yield
        finally:
            if not any(parts.glob("*.h5")):
                shutil.rmtree(parts, ignore_errors=True)


def _write_all(file: FileIO, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


def become_dataset(parts: Path, out: Path) -> None:
    """Turns a complete folder of parts into a dataset of shards, in the place of an earlier one.

    Raises:
        OutputError: If that can't be written; the parts are kept.
    """
    try:
        earlier = out.with_name(f".{out.name}.earlier")
        if out.exists():
            os.replace(out, earlier)
        (parts / SETTINGS_FILE).unlink()
        os.replace(parts, out)
        remove(earlier)
    except OSError as error:
        raise OutputError(f"{out} can't be written: {error.strerror or error}") from error


def remove(path: Path) -> None:
    """Removes a file or a folder of shards, if there is one.

    Raises:
        OutputError: If it can't be removed.
    """
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            with suppress(FileNotFoundError):
                path.unlink()
    except OSError as error:
        raise OutputError(f"{path} can't be removed: {error.strerror or error}") from error


def _lock(descriptor: int) -> bool:
    """Locks a file until it is closed, where the system can; False if another process has it."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

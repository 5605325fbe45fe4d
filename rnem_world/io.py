"""Files and folders that appear whole or not at all, and locks that end with their process."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rnem_world.errors import OutputError

DISPLACED = "old"
"""What a folder that is being replaced is called meanwhile, within a hidden folder beside its place."""

# What a file system says that knows no locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals into one error that names the path."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        # Some libraries put a whole log into the message; a user needs the first line.
        reason = error.strerror or (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OutputError(
            f"can't write {path}: {reason}; free space or choose a folder that you may write to"
        ) from error


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` to write to, which takes its place once the block has succeeded.

    Missing folders are created. When the block raises, the temporary file is removed and whatever stood at ``path``
    stays as it was. What a killed process left behind is removed by the next one that writes the same file on the
    same machine.

    Args:
        path: Where the file will be.

    Yields:
        The temporary path, with the same suffix, because writers choose the format by it.

    Raises:
        OutputError: The block, or the replacement after it, met an ``OSError``.
    """
    path = path.absolute()
    prefix = f".{path.stem}.{socket.gethostname()}-"
    temporary = path.with_name(f"{prefix}{os.getpid()}-{secrets.token_hex(4)}.tmp{path.suffix}")
    with writing(path):
        try:
            if path.is_dir():
                raise OutputError(f"can't write {path}: it is a folder; give the name of a file")
            if path.parent.exists() and not path.parent.is_dir():
                raise OutputError(f"can't write {path}: {path.parent} is a file; give another folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_orphans(path, prefix)
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            synchronise(path.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _remove_orphans(path: Path, prefix: str) -> None:
    """Removes the temporary files that killed processes of this machine left of ``path``."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)-[0-9a-f]+\.tmp" + re.escape(path.suffix))
    for entry in path.parent.iterdir():
        found = pattern.fullmatch(entry.name)
        if found and not _is_running(int(found[1])):
            with contextlib.suppress(OSError):
                entry.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON file at once or not at all.

    Raises:
        OutputError: If it can't be written.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Gives an empty temporary folder beside ``path``, which takes its place once the block has succeeded.

    Missing folders above it are created; the files in it are readable for everybody. When the block raises, the
    temporary folder is removed and what stood at ``path`` stays as it was. What a killed process leaves is hidden,
    and :func:`tidy_folders` clears it up.

    Args:
        path: Where the folder will be.

    Yields:
        The temporary folder.

    Raises:
        OutputError: The block, or the replacement after it, met an ``OSError``.
    """
    path = path.absolute()
    temporary = _beside(path)
    with writing(path):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for file in temporary.iterdir():
                file.chmod(0o644)  # safetensors makes files that only their owner may read
                synchronise(file)
            synchronise(temporary)
            put_in_place(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def put_in_place(new: Path, path: Path) -> None:
    """Renames a finished folder to ``path``; what stood there, a file or a folder, is removed afterwards.

    Should the process be killed in between, :func:`tidy_folders` puts the earlier one back.

    Raises:
        OutputError: If that can't be done; then all is as before.
    """
    with writing(path):
        if not path.exists():
            os.replace(new, path)
        else:
            aside = _beside(path)
            aside.mkdir()
            try:
                os.replace(path, aside / DISPLACED)
                try:
                    os.replace(new, path)
                except OSError:
                    os.replace(aside / DISPLACED, path)
                    raise
                shutil.rmtree(aside, ignore_errors=True)
            finally:
                with contextlib.suppress(OSError):  # only an empty one is left after a failure
                    aside.rmdir()
        synchronise(path.parent)


def remove_folder(path: Path) -> None:
    """Deletes a folder if it can be deleted; no half-deleted one ever bears its name."""
    doomed = _beside(path)
    with contextlib.suppress(OSError):
        os.replace(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def tidy_folders(parent: Path, name: str = "*") -> None:
    """Puts back the folders in ``parent`` whose replacement a killed process didn't finish, and removes its leftovers.

    Nobody else may be writing them meanwhile: hold the lock.

    Args:
        parent: Where :func:`atomic_folder` and :func:`put_in_place` put folders.
        name: Only those of this name; all by default.
    """
    put_back_folders(parent, name)
    for orphan in parent.glob(_hidden(name)):
        shutil.rmtree(orphan, ignore_errors=True)


def put_back_folders(parent: Path, name: str = "*") -> None:
    """Puts back the folders in ``parent`` whose replacement a killed process didn't finish."""
    for displaced in parent.glob(f"{_hidden(name)}/{DISPLACED}"):
        place = parent / displaced.parent.name[1:].rsplit(".", 2)[0]
        if not place.exists():
            with contextlib.suppress(OSError):
                os.replace(displaced, place)


def _hidden(name: str) -> str:
    return f".{name if name == '*' else glob.escape(name)}.*.tmp"


def _beside(path: Path) -> Path:
    """Names a hidden folder beside ``path``, on the same disk."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def synchronise(path: Path) -> None:
    """Forces a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Lock:
    """Keeps other processes out of something; the system opens it when the process ends, however it ends.

    It is advisory: it only keeps those out who ask for it. On a file system without locks it does nothing. The file
    that a killed process leaves behind locks nobody out.

    Args:
        path: The lock's file, in a folder that exists.
        doing: What is being done meanwhile, for the message, for example ``"runs/one is being trained"``.
    """

    def __init__(self, path: Path, doing: str) -> None:
        self.path, self._doing = path.absolute(), doing
        self._lock = FileLock(self.path, timeout=0, thread_local=False)

    def acquire(self) -> None:
        """Takes the lock; nothing happens if it is held already.

        Raises:
            OutputError: If another process has it, or the file can't be written.
        """
        while not self._lock.is_locked:
            try:
                self._lock.acquire()
            except Timeout as error:
                if not self.path.exists():  # its last holder has just removed it
                    continue
                with writing(self.path):
                    holder = self.path.read_text(errors="replace").strip()
                raise OutputError(
                    f"{self._doing} by {holder or 'another process'}: wait until that has ended, or choose another "
                    "place with --out"
                ) from error
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    return
                with writing(self.path):
                    raise
            with writing(self.path):  # if the disk is full, the lock goes with this object
                self.path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")

    def release(self) -> None:
        """Gives the lock back and removes its file; nothing happens if it isn't held."""
        if self._lock.is_locked:
            # Removed while it is still held, so that nobody holds a file that has just been removed by another.
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            self._lock.release()

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()

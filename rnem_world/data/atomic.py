"""A new HDF5 file that appears whole or not at all, whatever happens while it is written."""

from __future__ import annotations

import errno
import io
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py

from rnem_world.errors import OutputError
from rnem_world.io import synchronise


@contextmanager
def replacing(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Opens a new HDF5 file that takes the place of ``path`` when the block ends well.

    The file is written beside its place under a temporary name, flushed to the disk, then renamed. If
    anything goes wrong the temporary file is removed and ``path`` is as before. What a killed process left
    behind is removed by the next one that writes the same file on the same machine.

    Args:
        path: The file to write.

    Yields:
        The file, open for writing, and a function that raises the error if writing has failed; call it now
        and then, for HDF5 itself is not told.

    Raises:
        OutputError: If it can't be written.
    """
    temporary = path.with_name(
        f".{path.name}.{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}.tmp"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        _remove_orphans(path)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
    except OSError as error:
        raise OutputError(f"{path} can't be written: {_reason(error)}") from error
    guarded = _GuardedFile(descriptor)

    def check() -> None:
        if guarded.failure is not None:
            raise OutputError(f"{path} can't be written: {_reason(guarded.failure)}") from guarded.failure

    try:
        with h5py.File(guarded, "w") as file:
            yield file, check
        check()
        try:
            os.fsync(descriptor)
            os.replace(temporary, path)
            synchronise(path.parent)
        except OSError as error:
            guarded.failure = error
        check()
    finally:
        os.close(descriptor)
        with suppress(OSError):  # after os.replace there is nothing left to remove
            temporary.unlink()


class _GuardedFile(io.RawIOBase):
    """The file below HDF5: after a failed write it keeps the failure and goes on in memory.

    HDF5 2.0 crashes the interpreter (segmentation fault) when a write fails while a file or an array is
    closed, as on a full disk, so it never gets to see a failure.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.failure: OSError | None = None
        self._descriptor = descriptor
        self._position = 0
        self._remembered: dict[int, bytes] = {}

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._descriptor).st_size}
        self._position = base[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        content = self._remembered.get(self._position, b"")[: len(view)]
        if not content:
            content = os.pread(self._descriptor, len(view), self._position)
        view[: len(content)] = content
        self._position += len(content)
        return len(content)

    def write(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        try:
            done = 0
            while self.failure is None and done < len(view):
                done += os.pwrite(self._descriptor, view[done:], self._position + done)
        except OSError as error:
            self.failure = error
        if self.failure is not None:
            self._remembered[self._position] = bytes(view)
        self._position += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        if self.failure is None:
            try:
                os.ftruncate(self._descriptor, size)
            except OSError as error:
                self.failure = error
        return size

    def flush(self) -> None:
        """Nothing waits here; :func:`replacing` calls fsync at the end."""


def _remove_orphans(path: Path) -> None:
    pattern = re.compile(re.escape(f".{path.name}.{socket.gethostname()}-") + r"(\d+)-\d+\.tmp")
    for entry in path.parent.iterdir():
        found = pattern.fullmatch(entry.name)
        if found and not _is_running(int(found[1])):
            with suppress(OSError):
                entry.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _reason(error: OSError) -> str:
    plain: dict[int | None, str] = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EFBIG: "the file would be larger than is allowed here",
        errno.EACCES: "no permission",
        errno.EPERM: "no permission",
        errno.EROFS: "the disk is read-only",
        errno.EISDIR: "it is a folder; give the name of a file",
        errno.ENOTDIR: "a part of its path is a file, not a folder",
        errno.EEXIST: "a part of its path is a file, not a folder",
        errno.ENAMETOOLONG: "its name is too long",
    }
    return plain.get(error.errno, " ".join(str(error).split())[:200])

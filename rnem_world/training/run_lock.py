"""One training at a time in a run's folder."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from types import ModuleType

from rnem_world.errors import OutputError
from rnem_world.io import writing

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

LOCK_FILE = "training.lock"
# What a file system says that knows no locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class RunLock:
    """Keeps other trainings out of a run's folder; the system opens it when the process ends, however it ends.

    It is advisory: it only keeps those out who ask for it. On a system or file system without locks it does nothing.

    Args:
        run: The run's folder, which exists.
    """

    def __init__(self, run: Path) -> None:
        self._run, self._path = run, run / LOCK_FILE
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Takes the lock; nothing happens if it is held already.

        Raises:
            OutputError: If another training has it, or the folder can't be written to.
        """
        while self._descriptor is None and fcntl is not None:
            with writing(self._path):
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
                os.close(descriptor)
                raise OutputError(
                    f"{self._run} is being trained by {holder}: wait until that has ended, or choose another folder "
                    "with --out"
                ) from error
            except OSError as error:
                os.close(descriptor)
                if error.errno in _NO_LOCKS:
                    return
                raise
            if not self._is_in_place(descriptor):  # its last holder has just removed it
                os.close(descriptor)
                continue
            os.truncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            self._descriptor = descriptor

    def release(self) -> None:
        """Gives the lock back and removes its file; nothing happens if it isn't held."""
        if self._descriptor is None:
            return
        # Removed while it is still held, so that nobody holds a file that has just been removed by another.
        if self._is_in_place(self._descriptor):
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None

    def __del__(self) -> None:
        self.release()

    def _is_in_place(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False

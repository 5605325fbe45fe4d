"""HDF5 files held open for reading, by threads, and by processes that were forked or sent a pickled copy."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from rnem_world.data.inspection import open_hdf5


class OpenFiles:
    """Opens files and their arrays when they are first asked for.

    Args:
        paths: The files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._connect()

    def file(self, number: int) -> h5py.File:
        """Returns a file.

        Raises:
            DataError: If it can't be opened.
        """
        self._renew()
        with self._lock:
            if number not in self._files:
                self._files[number] = open_hdf5(self.paths[number])
            return self._files[number]

    def array(self, number: int, name: str) -> h5py.Dataset:
        """Returns the array ``name`` of a file."""
        self._renew()
        with self._lock:
            key = (number, name)
            if key not in self._arrays:
                self._arrays[key] = self.file(number)[name]
            return self._arrays[key]

    def read(self, number: int, name: str, where: tuple[slice, ...]) -> NDArray[Any]:
        """Reads a part of an array; HDF5 takes one reader at a time."""
        array = self.array(number, name)
        with self._lock:
            values: NDArray[Any] = array[where]
        return values

    def close(self) -> None:
        """Closes the files; they are opened again when they are asked for."""
        self._renew()
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()
            self._arrays.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.paths = state["paths"]
        self._connect()

    def _connect(self) -> None:
        self._lock = threading.RLock()
        self._files: dict[int, h5py.File] = {}
        self._arrays: dict[tuple[int, str], h5py.Dataset] = {}
        self._process = os.getpid()

    def _renew(self) -> None:
        if self._process != os.getpid():  # forked: HDF5 handles and locks of the parent are not ours to use
            self._connect()

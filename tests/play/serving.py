"""A server beside the tests."""

from __future__ import annotations

import threading

from rnem_world.play.server import PlayServer


class Running(PlayServer):
    """A server in a thread."""

    def __enter__(self) -> Running:
        ready = threading.Event()
        self._thread = threading.Thread(target=self.run, args=(ready.set,))
        self._thread.start()
        assert ready.wait(120)
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self._thread.join(120)
        assert not self._thread.is_alive()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

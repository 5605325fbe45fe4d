"""The world that the tests of this folder play in, and a server of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from pages import Page

from rnem_world.envs.world import World
from rnem_world.play.imagining import Imagining
from rnem_world.play.server import PlayOptions, PlayServer


@pytest.fixture(scope="session")
def imagining() -> Imagining:
    return Imagining(World.load("balls"))


class Running(PlayServer):
    """A server in a thread."""

    def __enter__(self) -> Running:
        ready = threading.Event()
        self._thread = threading.Thread(target=self.run, args=(ready.set,))
        self._thread.start()
        assert ready.wait(30)
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def server(imagining) -> Iterator[Running]:
    with Running(imagining, PlayOptions(most_visitors=24)) as running:
        yield running


@pytest.fixture
def open_page(server) -> Iterator[Callable[..., Page]]:
    pages: list[Page] = []

    def make(on: Running = server) -> Page:
        pages.append(Page(on.address))
        return pages[-1]

    yield make
    for page in pages:
        page.close()

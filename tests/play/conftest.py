"""The world that the tests of this folder play in, and a server of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pages import Page
from serving import Running

from rnem_world.envs.world import World
from rnem_world.play.imagining import Imagining
from rnem_world.play.server import PlayOptions


@pytest.fixture(scope="session")
def imagining() -> Imagining:
    return Imagining(World.load("balls"))


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

"""Chromium, where this machine has it, under playwright."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def chromium() -> str | None:
    """The path of a Chromium; None if there is none."""
    given = os.environ.get("CHROMIUM")
    return given or next((path for name in NAMES if (path := shutil.which(name))), None)


needs_chromium = pytest.mark.skipif(
    chromium() is None, reason="there is no Chromium: apt-get install chromium, or set CHROMIUM to its path"
)


class Window:
    """A page in the browser."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)

    def open(self, address: str) -> Window:
        self.page.goto(address)
        # A page asks for time to pass once it has its first picture: what waits for a standstill comes after that.
        self.wait("!!window.rnem?.picture?.playing && document.getElementById('veil').hidden", 120)
        return self

    def see(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def wait(self, expression: str, seconds: float = 60.0) -> Any:
        """Waits until something holds; the page forbids what playwright's own way of waiting needs."""
        return self.until(lambda: self.see(expression), expression, seconds)

    def until(self, holds: Callable[[], Any], what: str = "it", seconds: float = 60.0) -> Any:
        end = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < end, f"{what} didn't come; errors: {self.errors}"
            self.page.wait_for_timeout(20)
        return found

    def lane(self, name: str = "dream") -> dict[str, Any]:
        """A lane without its pixels."""
        return self.see(
            "((lane) => lane && { ...lane, frame: Array.from(lane.frame), owner: null, share: null })"
            f"(rnem.picture.lanes.find((lane) => lane.name === '{name}'))"
        )

    def pause(self) -> None:
        if self.see("rnem.picture.playing"):
            self.page.keyboard.press("p")
            self.wait("!rnem.picture.playing")

    def stand(self, seed: int = 0, steps: int = 8) -> None:
        """Begins the dream of a seed, makes some steps, and stands still: always the same moment."""
        self.pause()
        epoch = self.see("rnem.picture.epoch")
        self.see(f"rnem.send({{ type: 'begin', seed: {seed} }})")
        self.wait(f"rnem.picture.epoch > {epoch}")
        for step in range(steps):
            self.see("rnem.send({ type: 'step' })")
            self.wait(f"rnem.picture.time === {step + 1}")
        self.wait("document.querySelectorAll('.panel').length === 1")

    def place(self, x: float, y: float, lane: str = "dream") -> tuple[float, float]:
        """Where a place of the frame is on the screen."""
        box = self.page.locator(f".panel.{lane} .over").bounding_box()
        height, width = self.see(
            "[document.querySelector('.pixels').height, document.querySelector('.pixels').width]"
        )
        return box["x"] + x / width * box["width"], box["y"] + y / height * box["height"]


@contextmanager
def browsing() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without a sandbox, since tests run as root in containers.
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()

"""What ends a sitting of training early: a signal, or the clock."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stopped(Exception):  # noqa: N818
    """Training was to stop in the middle of something that can't be saved."""


class Stop:
    """Knows whether training has to stop, and why.

    Args:
        max_minutes: Minutes that a sitting may last; None for no limit.

    Attributes:
        reason: Why training has to stop, None while it may go on.
        signal: The number of the signal that came, None if none did.
    """

    def __init__(self, max_minutes: float | None) -> None:
        self.reason: str | None = None
        self.signal: int | None = None
        self._max_minutes = max_minutes
        self._start = time.monotonic()

    @property
    def minutes(self) -> float:
        """Minutes since the sitting began."""
        return (time.monotonic() - self._start) / 60.0

    def look_at_clock(self) -> None:
        """Stops if the sitting has lasted long enough."""
        if self._max_minutes is not None and self.minutes >= self._max_minutes:
            self.reason = f"{self._max_minutes:g} minutes are over; continue with --resume"

    def check(self) -> None:
        """Raises `Stopped` if training has to stop."""
        if self.reason is not None:
            raise Stopped

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Begins a sitting, in which Ctrl-C or SIGTERM stops training in order; a second signal ends it at once."""
        self._start = time.monotonic()

        def stop(number: int, frame: FrameType | None) -> None:
            if self.reason is not None:
                raise KeyboardInterrupt
            self.signal = number
            self.reason = f"{signal.Signals(number).name} received; continue with --resume"

        previous: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                previous[number] = signal.signal(number, stop)
            except ValueError:  # not in the main thread: signals are the caller's business
                break
        try:
            yield
        finally:
            for replaced, handler in previous.items():
                signal.signal(replaced, handler)

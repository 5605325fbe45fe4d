"""What ends a sitting of training early: a signal, or the clock."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rnem_world.distributed import ALONE, Processes


class Stopped(Exception):  # noqa: N818
    """Training was to stop in the middle of something that can't be saved."""


class Stop:
    """Knows whether training has to stop, and why.

    A signal reaches one process, or all of them at different moments. So each notes its own, and they stop together
    where they next :meth:`look`.

    Args:
        max_minutes: Minutes that a sitting may last; None for no limit.
        processes: Those that stop together.

    Attributes:
        reason: Why training has to stop, None while it may go on; the same in all processes.
        signal: The number of the signal that came, None if none did; the same in all processes.
    """

    def __init__(self, max_minutes: float | None, processes: Processes = ALONE) -> None:
        self.reason: str | None = None
        self.signal: int | None = None
        self._max_minutes = max_minutes
        self._processes = processes
        self._received = 0
        self._start = time.monotonic()

    @property
    def minutes(self) -> float:
        """Minutes since the sitting began."""
        return (time.monotonic() - self._start) / 60.0

    def look(self, at_clock: bool = True) -> None:
        """Finds out, together with the other processes, whether to stop.

        Args:
            at_clock: Whether to stop also because the time is over, and not only because a signal came.
        """
        if self.reason is not None:
            return
        is_over = at_clock and self._max_minutes is not None and self.minutes >= self._max_minutes
        received, over = self._processes.largest([self._received, int(is_over)])
        if received:
            self.signal = int(received)
            self.reason = f"{signal.Signals(self.signal).name} received; continue with --resume"
        elif over:
            self.reason = f"{self._max_minutes:g} minutes are over; continue with --resume"

    def check(self) -> None:
        """Raises `Stopped` if a signal came; every process has to ask."""
        self.look(at_clock=False)
        if self.reason is not None:
            raise Stopped

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Begins a sitting, in which Ctrl-C or SIGTERM stops training in order; a second signal ends it at once.

        Of several processes none is ended at once: ``torchrun`` passes on signals that they may have received
        already, and kills by itself what doesn't end in time.
        """
        self._start = time.monotonic()

        def stop(number: int, frame: FrameType | None) -> None:
            if self._received and self._processes.world_size == 1:
                raise KeyboardInterrupt
            self._received = number

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

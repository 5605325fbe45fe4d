"""How long training waits for data."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rnem_world.data.loader import Batch


class WaitingClock:
    """Measures how long training waits for data.

    Attributes:
        last: Seconds that it waited for the last batch.
    """

    def __init__(self) -> None:
        self.last = 0.0
        self._waited = self._worked = 0.0

    def waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Passes batches on and measures the time until each comes."""
        while True:
            started = time.monotonic()
            batch = next(batches, None)
            self.last = time.monotonic() - started
            if batch is None:
                return
            self._waited += self.last
            yield batch

    def share(self, worked: float) -> float:
        """Gives the share of time spent waiting so far.

        Args:
            worked: Seconds spent on the last batch.
        """
        self._worked += worked
        return self._waited / (self._waited + self._worked)

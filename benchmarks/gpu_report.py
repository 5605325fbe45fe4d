"""Figures of a device: how large things are, how long calls take, and rows that are kept as they are found."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rnem_world.benchmarks.planning import PLANNERS
from rnem_world.io import write_json

WARM_UP, FEWEST = 3, 3
"""Calls before anything is timed, and timed ones at least."""


@dataclass(frozen=True)
class Sizes:
    """How large things are.

    Attributes:
        architecture: Of the model that is trained.
        batches: Sequences in a batch.
        steps: Predictions in a sequence.
        dreams: Dreams side by side.
        chunks: Dreams that are stepped at once.
        planned: Environments that are planned for.
        planners: The planners.
        seconds: For which each thing is measured.
        valid: Sequences that the paper's model is evaluated on.
    """

    architecture: str = "conv64"
    batches: tuple[int, ...] = (16, 64)
    steps: int = 30
    dreams: tuple[int, ...] = (1, 256, 4096, 65_536)
    chunks: tuple[int, ...] = (1024, 4096, 16_384, 65_536)
    planned: tuple[int, ...] = (1, 16, 256)
    planners: tuple[str, ...] = (PLANNERS[0], PLANNERS[1], PLANNERS[3])
    seconds: float = 0.8
    valid: int = 200


TINY = Sizes(
    "conv32",
    (2,),
    2,
    (1, 4),
    (2, 4),
    (1,),
    ("mcts:simulations=9,horizon=2", "shooting:population=2,horizon=2"),
    0.01,
    4,
)


class Report:
    """Rows of figures, printed and kept in a file.

    Attributes:
        path: The file.
        device: The device.
        sizes: How large things are there.

    Args:
        path: The file.
        device: The device, whose memory is looked at.
        seconds: After which nothing new is begun.
    """

    def __init__(self, path: Path, device: torch.device, seconds: float) -> None:
        self.device = device
        self.sizes = TINY if device.type == "cpu" else Sizes()
        self.path, self._end = path, time.monotonic() + seconds
        self._rows: list[dict[str, Any]] = []
        self._save()

    @property
    def seconds_left(self) -> float:
        """Seconds until nothing new is begun."""
        return self._end - time.monotonic()

    def measure(self, names: dict[str, Any], figures: Callable[[], dict[str, Any]]) -> None:
        """Adds a row: its names, and the figures or why there are none. The other rows don't mind."""
        if self.seconds_left <= 0.0:
            found: dict[str, Any] = {"not measured": "no time was left"}
        else:
            self._clear_memory()
            try:
                found = figures() | self._memory()
            except Exception as error:  # whatever breaks on the card is what is asked for
                found = {"error": f"{type(error).__name__}: {str(error).strip()[:300]}"}
        self.add({**names, **found})

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row."""
        self._rows.append(row)
        print(json.dumps(row), flush=True)
        self._save()

    def _save(self) -> None:
        write_json(self.path, {"rows": self._rows})

    def _clear_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def _memory(self) -> dict[str, Any]:
        if self.device.type != "cuda":
            return {}
        return {"memory_gb": round(torch.cuda.max_memory_allocated(self.device) / 1e9, 3)}

    def wait(self) -> None:
        """Waits until the device has done its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def time(self, call: Callable[[], object], seconds: float | None = None) -> float:
        """Gives the median of a call's seconds, the device's work among them."""
        for _ in range(WARM_UP):
            call()
        self.wait()
        taken: list[float] = []
        end = time.perf_counter() + (self.sizes.seconds if seconds is None else seconds)
        while len(taken) < FEWEST or time.perf_counter() < end:
            begin = time.perf_counter()
            call()
            self.wait()
            taken.append(time.perf_counter() - begin)
        return statistics.median(taken)

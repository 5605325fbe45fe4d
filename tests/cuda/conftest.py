"""What only a graphics card can show. ``RNEM_TEST_DEVICE=cpu`` runs these tests on the processor, to test them."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

for folder in ("envs", "models", "training"):
    sys.path.append(str(Path(__file__).resolve().parents[1] / folder))


@pytest.fixture(scope="session")
def device() -> torch.device:
    # With a number, as tensors say it.
    name = os.environ.get("RNEM_TEST_DEVICE", "cuda")
    return torch.device("cuda", 0) if name == "cuda" else torch.device(name)


@pytest.fixture(scope="session")
def small_world(tmp_path_factory) -> Path:
    """A checkpoint that can imagine in both ways; not to be changed."""
    from dreamers import write_world

    return write_world(tmp_path_factory.mktemp("worlds") / "small")


@pytest.fixture
def never_waiting(device) -> Callable[[], Any]:
    """Within this it is an error that the host waits for the graphics card, as it does for every transfer."""

    @contextmanager
    def block() -> Iterator[None]:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")

    return block


@pytest.fixture
def counting_waits(device) -> Callable[[], Any]:
    """Counts how often the host waits for the graphics card; on the processor it never does."""

    @contextmanager
    def block() -> Iterator[list[str]]:
        seen: list[str] = []
        if device.type != "cuda":
            yield seen
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield seen
            finally:
                torch.cuda.set_sync_debug_mode("default")
        seen += [str(entry.message) for entry in caught if "synchronizing" in str(entry.message)]

    return block

"""Lets the tests of agents use the small random worlds of those of environments."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "envs"))


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory) -> Path:
    """A checkpoint that can imagine latently; not to be changed."""
    from dreamers import write_world

    return write_world(tmp_path_factory.mktemp("worlds") / "tiny")

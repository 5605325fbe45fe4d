"""A background cache that tests share, so that none of them plays for long or writes into the user's folder."""

from __future__ import annotations

import numpy as np

from rnem_world.envs import atari_frames


def short_run(monkeypatch, folder) -> None:
    """Lets backgrounds come from 150 steps, and be kept in a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setattr(atari_frames, "GAMES", 1)
    monkeypatch.setattr(atari_frames, "STEPS", 150)
    atari_frames._background_of.cache_clear()


def black() -> np.ndarray:
    """A background for tests that need none in particular."""
    return np.zeros((84, 84), np.uint8)

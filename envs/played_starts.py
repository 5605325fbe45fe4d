"""Starts that are played: short contexts of the real environment that a world was learned from, for any environment.

They are kept in the user's cache folder, so that an environment plays them once.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib.util
import json
import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rnem_world.data.episodes import clipped_context, is_long
from rnem_world.envs.real import real_environment
from rnem_world.envs.starts import HELD_STEPS, SPACING, Starts, kept_starts
from rnem_world.envs.world import World
from rnem_world.errors import DataError
from rnem_world.seeding import derive_seed, numpy_generator

NUMBER_OF_PLAYED_STARTS = 256
SIDE_BY_SIDE = 8
LOOKED_AHEAD = 288
"""Steps of the first episodes, which tell whether episodes are short, and how many frames a start has."""
MOST_ROUNDS = 64


def played_starts(world: World) -> Starts:
    """Returns starts of the real environment of a world, from the cache or by playing; its recipe says what that is.

    Actions are drawn evenly and held for 4 steps. Where episodes are short a start is an episode's first frames, so
    that dreams begin as real episodes do; else it is any piece of an episode, 32 steps from the next. No start goes on
    beyond the end of an episode.

    Args:
        world: The world; its ``config.recipe`` isn't None.

    Raises:
        RnemWorldError: If the environment can't be made, or fails.
    """
    recipe = zlib.crc32(json.dumps(world.config.recipe, sort_keys=True).encode())
    return _kept(world, zlib.crc32(_source(str(world.config.environment)), recipe))


def _source(environment: str) -> bytes:
    """Reads the file of the module that an environment names: starts of one that was changed since are of no use."""
    module = environment.rpartition(":")[0]
    try:
        spec = importlib.util.find_spec(module) if module else None
        return Path(spec.origin).read_bytes() if spec and spec.origin else b""
    except (ImportError, ValueError, OSError):  # whoever makes the environment says what is wrong
        return b""


@functools.lru_cache(maxsize=4)
def _kept(world: World, recipe: int) -> Starts:
    rule = (
        f"{NUMBER_OF_PLAYED_STARTS} {SIDE_BY_SIDE} {LOOKED_AHEAD} {SPACING} {HELD_STEPS} {world.frame_shape}"
    )
    path = _place(f"{recipe:08x}-{zlib.crc32(rule.encode()):08x}.npz")
    return kept_starts(path, lambda: _played(world))


def _place(name: str) -> Path | None:
    """Names a file in the user's cache folder; None for users without a home."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return folder / "rnem-world" / "starts" / name


class _Piece(NamedTuple):
    """What was played of some environments side by side.

    Attributes:
        frames: (t + 1, n, h, w, c), as the world knows them.
        actions: (t, n) or (t, n, d), as its model is given them.
        lengths: Int64 (n,), frames up to the end of the episode, or all.
    """

    frames: NDArray[Any]
    actions: NDArray[Any]
    lengths: NDArray[np.int64]


class _Player:
    """Plays a world's real environment by chance."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.env = real_environment(world, SIDE_BY_SIDE, autoreset_mode="Disabled", max_episode_steps=None)
        self._space = copy.deepcopy(self.env.action_space)
        self._seed: int | None = derive_seed(0, "starts") % 2**31
        self._space.seed(self._seed)
        self._generator = numpy_generator(0, "starts")

    def play(self, steps: int, anew: bool) -> _Piece:
        """Goes on for so many steps, from where the episodes are or, where all are over before, for fewer.

        Args:
            steps: How many.
            anew: Whether all episodes begin anew first.
        """
        episodes = self.env.episodes
        if anew:
            observations, _ = self.env.reset(seed=self._seed)
            self._seed = None
        else:
            observations, _ = self.env.observe()
        frames: list[NDArray[Any]] = [observations]
        actions: list[NDArray[Any]] = []
        lengths = np.full(SIDE_BY_SIDE, steps + 1)
        for step in range(steps):
            held = actions[-1] if step % HELD_STEPS else self._drawn()
            actions.append(held)
            frames.append(self.env.move(held).observations)
            over = episodes.finished
            lengths = np.where(over & (lengths > steps), step + 2, lengths)
            if over.any():  # what is played on there is of another episode, and isn't looked at
                self.env.reset(options={"reset_mask": over})
            if (lengths <= steps).all():
                break
        shown = self._world.known_frames(np.stack(frames))
        done = np.stack([self._world.actions.encode(each) for each in actions])
        return _Piece(shown, done, lengths)

    def _drawn(self) -> NDArray[Any]:
        actions = self._world.actions
        if None in (*actions.low, *actions.high):
            # Gymnasium draws such numbers from all that floats can hold.
            return actions.decode(actions.drawn(SIDE_BY_SIDE, self._generator))
        return np.asarray(self._space.sample())


def _played(world: World) -> Starts:
    player = _Player(world)
    with contextlib.closing(player.env):
        piece = player.play(LOOKED_AHEAD, anew=True)
        anywhere = is_long(float(piece.lengths.mean()))
        context = clipped_context(int(np.median(piece.lengths)))
        frames, actions = [], []
        with tqdm(total=NUMBER_OF_PLAYED_STARTS, desc="playing starts", unit="start", disable=None) as bar:
            for _ in range(MOST_ROUNDS):
                for begin in range(0, LOOKED_AHEAD - SPACING, SPACING) if anywhere else (0,):
                    rows = np.flatnonzero(piece.lengths > begin + context)
                    frames += list(piece.frames[begin : begin + context, rows].swapaxes(0, 1))
                    actions += list(piece.actions[begin : begin + context - 1, rows].swapaxes(0, 1))
                bar.update(min(len(frames), NUMBER_OF_PLAYED_STARTS) - bar.n)
                if len(frames) >= NUMBER_OF_PLAYED_STARTS:
                    break
                piece = player.play(LOOKED_AHEAD if anywhere else context, anew=not anywhere)
    if not frames:
        raise DataError(
            f"episodes of {world.config.environment} are over within {context} frames, and no dream can begin there: "
            "give starts=DATASET"
        )
    chosen = slice(NUMBER_OF_PLAYED_STARTS)
    return Starts.pack(np.stack(frames[chosen]), np.stack(actions[chosen]))

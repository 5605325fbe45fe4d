"""Starts of dreamt games: short contexts out of real games, played when first asked for.

None are shipped, since they are pictures of the game: a random policy plays it, always in the same way, and they are
kept in the user's cache folder beside the game's background.
"""

from __future__ import annotations

import contextlib
import zlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from rnem_world.envs.atari_background import background_of, cache_path
from rnem_world.envs.atari_emulator import Emulator
from rnem_world.envs.atari_games import game_named
from tqdm import tqdm

from rnem_world.envs.starts import CONTEXT_FRAMES, Starts, read_starts, write_starts
from rnem_world.errors import DataError, OutputError
from rnem_world.seeding import derive_seed, numpy_generator

NUMBER_OF_STARTS = 512
SPACING = 32
"""Steps from the beginning of one start to that of the next, so that starts are spread over many whole games."""


def game_starts(game: str) -> Starts:
    """Returns the starts of a game, from the cache or by playing (some ten seconds).

    The cache is that of `background_of`; if it can't be written, every process plays by itself.

    Raises:
        ConfigError: If there is no such game.
        DependencyError: If ale-py is not installed.
    """
    return _game_starts(game_named(game))


@lru_cache(maxsize=4)
def _game_starts(game: str) -> Starts:
    rule = f"{NUMBER_OF_STARTS} of {CONTEXT_FRAMES} frames every {SPACING} steps of a random policy"
    path = cache_path(game, f"starts-{zlib.crc32(rule.encode()):08x}", ".npz")
    with contextlib.suppress(DataError):
        return read_starts(path)
    starts = _play(game)
    with contextlib.suppress(OutputError):
        write_starts(path, starts)
    return starts


def _play(game: str) -> Starts:
    """Cuts starts out of games that a random policy plays; none goes on beyond the end of a game."""
    background = background_of(game)
    emulator = Emulator(game)
    emulator.seed(derive_seed(0, "starts", game))
    generator = numpy_generator(0, "starts", game)
    number_of_actions = len(emulator.action_names)
    frames: list[NDArray[np.bool_]] = []
    actions: list[NDArray[np.int64]] = []
    with tqdm(total=NUMBER_OF_STARTS, desc=f"starts of {game}", unit="start", disable=None) as bar:
        while len(frames) < NUMBER_OF_STARTS:
            emulator.reset()
            over = False
            # Each game begins elsewhere, so that starts aren't always of the same moments.
            for _ in range(int(generator.integers(SPACING))):
                over = over or emulator.step(int(generator.integers(number_of_actions)))[1]
            while not over and len(frames) < NUMBER_OF_STARTS:
                done = generator.integers(number_of_actions, size=SPACING)
                seen = [emulator.frame() != background]
                for action in done.tolist():
                    _, over, _ = emulator.step(action)
                    if over:
                        break
                    if len(seen) < CONTEXT_FRAMES:
                        seen.append(emulator.frame() != background)
                if len(seen) == CONTEXT_FRAMES:
                    frames.append(np.stack(seen))
                    actions.append(done[: CONTEXT_FRAMES - 1])
                    bar.update()
    return Starts.pack(np.stack(frames)[..., None], np.stack(actions))

"""Where dreams begin: short contexts of real frames and actions, as a file, from a dataset, simulated, or played.

Starts of games are not shipped, since they are pictures of the game: a random policy plays it, always in the same way,
and they are kept in the user's cache folder beside the game's background.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Num, UInt8
from numpy.typing import NDArray
from tqdm import tqdm

from rnem_world.data.dataset import Dataset, SplitInfo
from rnem_world.data.episodes import (
    Windows,
    begins_anywhere,
    find_windows,
    marks_episodes,
    usual_context,
)
from rnem_world.data.schema import Split
from rnem_world.envs.atari_console import Emulator, game_named
from rnem_world.envs.atari_frames import background_of, cache_path
from rnem_world.envs.balls import BouncingBallsVectorEnv
from rnem_world.errors import DataError, OutputError
from rnem_world.io import atomic_file
from rnem_world.physics import BallsConfig, number_of_actions
from rnem_world.seeding import derive_seed, numpy_generator

STARTS_FILE = "starts.npz"
CONTEXT_FRAMES = 16
NUMBER_OF_STARTS = 2048
FEWEST_FRAMES = 2
HELD_STEPS = 4
"""Steps for which a simulated start's player holds an action."""
NUMBER_OF_GAME_STARTS = 512
SPACING = 32
"""Steps of a game from the beginning of one start to that of the next, so that starts are spread over whole games."""

_LOOKED_AT: tuple[Split, ...] = ("test", "validation", "training")


@dataclass(frozen=True, eq=False)
class Starts:
    """Contexts of one length, black and white frames with one bit a pixel, others with one byte a channel.

    Attributes:
        packed: uint8 (n, t, m), the frames in a row: m is h * w * c, or an eighth of it as `numpy.packbits` has them.
        actions: What was done between them, zeros where nothing was: (n, t - 1) whole numbers from 0 on, (n, t - 1, d)
            where an action is several, float32 (n, t - 1, d) where it is real ones.
        shape: (h, w, c).
        is_binary: Whether they are black and white.
    """

    packed: NDArray[np.uint8]
    actions: Num[np.ndarray, "n s ..."]
    shape: tuple[int, int, int]
    is_binary: bool = True

    def __len__(self) -> int:
        return len(self.packed)

    @classmethod
    def pack(
        cls,
        frames: Bool[np.ndarray, "n t h w c"] | UInt8[np.ndarray, "n t h w c"],
        actions: Num[np.ndarray, "n s ..."],
    ) -> Starts:
        """Packs frames: booleans are black and white, bytes are greys or colours."""
        is_binary = frames.dtype == np.bool_
        rows = frames.reshape(*frames.shape[:2], -1)
        packed = np.packbits(rows, axis=2) if is_binary else np.ascontiguousarray(rows)
        height, width, channels = frames.shape[2:]
        return cls(packed, _stored(actions), (height, width, channels), is_binary)

    def frames(
        self, rows: Sequence[int] | NDArray[Any] | slice
    ) -> Bool[np.ndarray, "m t h w c"] | UInt8[np.ndarray, "m t h w c"]:
        """Unpacks the frames of some starts: booleans, or bytes of greys or colours."""
        packed = self.packed[rows]
        shape = (*packed.shape[:2], *self.shape)
        if not self.is_binary:
            return packed.reshape(shape)
        pixels = np.unpackbits(packed, axis=2, count=int(np.prod(self.shape)))
        return pixels.reshape(shape).astype(np.bool_)

    @functools.cached_property
    def digest(self) -> str:
        """Tells starts apart by what they hold."""
        found = hashlib.sha256(repr((self.packed.shape, self.shape)).encode())
        for array in (self.packed, self.actions):
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()[:16]


def _stored(actions: NDArray[Any]) -> NDArray[Any]:
    return actions.astype(np.float32 if actions.dtype.kind == "f" else np.int64)


def write_starts(path: Path, starts: Starts) -> None:
    """Writes starts as a compressed NumPy file, whole or not at all.

    Raises:
        OutputError: If it can't be written.
    """
    actions = starts.actions
    if actions.dtype.kind != "f":
        actions = actions.astype(np.min_scalar_type(int(actions.max(initial=0))))
    with atomic_file(path) as temporary:
        np.savez_compressed(
            temporary,
            frames=starts.packed,
            actions=actions,
            shape=np.array(starts.shape, dtype=np.int64),
            is_binary=np.array(starts.is_binary),
        )


def read_starts(path: Path) -> Starts:
    """Reads a file of starts.

    Raises:
        DataError: If it is missing, broken, or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            packed, actions, shape = (file[name] for name in ("frames", "actions", "shape"))
            # Files of before have no other.
            is_binary = bool(file["is_binary"]) if "is_binary" in file else True
    except FileNotFoundError as error:
        raise DataError(f"there is no file of starts at {path}") from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is no whole file of starts ({error}): make one with `rnem-world export RUN --starts DATASET`"
        ) from error
    fits = packed.dtype == np.uint8 and packed.ndim == 3 and shape.shape == (3,) and actions.ndim in (2, 3)
    if fits:
        size = int(np.prod(shape))
        fits = packed.shape[2] == (-(-size // 8) if is_binary else size) and actions.shape[:2] == (
            len(packed),
            packed.shape[1] - 1,
        )
    if not fits or len(packed) < 1 or packed.shape[1] < FEWEST_FRAMES or actions.dtype.kind not in "iuf":
        raise DataError(
            f"{path} holds arrays that are no starts: frames {packed.shape}, actions {actions.shape}, shape {shape}"
        )
    height, width, channels = (int(size) for size in shape)
    return Starts(packed, _stored(actions), (height, width, channels), is_binary)


def starts_from_dataset(
    path: str | Path, number: int = NUMBER_OF_STARTS, context_frames: int | None = None
) -> Starts:
    """Takes starts from a dataset.

    Where it says where episodes begin, they are the first frames of episodes, so that a dream begins as a real episode
    does, or where episodes are long any pieces of them; of its test split first, then of validation and training. Else
    they are pieces of the sequences of the first
    of these splits that it has, one after the other where there are too few sequences. No start goes on beyond the end
    of an episode.

    Args:
        path: The dataset.
        number: How many starts at most.
        context_frames: Frames of a start; None takes 16, or a quarter of a typical episode if that is shorter.

    Raises:
        DataError: If there is no dataset, or its sequences or episodes are too short.
    """
    with Dataset.open(path) as dataset:
        splits = [split for split in _LOOKED_AT if split in dataset.splits]
        splits = [split for split in splits if dataset.info(split).number_of_sequences]
        if not splits:
            raise DataError(f"{path} has no sequences to start from")
        if context_frames is None:
            context_frames = usual_context(dataset) or CONTEXT_FRAMES
        frames = dataset.info(splits[0]).number_of_frames
        if not FEWEST_FRAMES <= context_frames <= frames or number < 1:
            raise DataError(
                f"{number} starts of {context_frames} frames were asked for, and the sequences of {path} have "
                f"{frames}: ask for at least 1 of {FEWEST_FRAMES} to {frames} frames"
            )
        if not marks_episodes(dataset, splits[0]):
            windows = _pieces(dataset.info(splits[0]), number, context_frames)
            return _read(dataset, [(splits[0], windows)], context_frames)
        for at_first in (False,) if begins_anywhere(dataset, splits[-1]) else (True, False):
            found: list[tuple[Split, Windows]] = []
            for split in splits:
                left = number - sum(len(windows.begins) for _, windows in found)
                windows = find_windows(dataset, split, context_frames, context_frames, left, at_first)
                found.append((split, windows))
            if any(len(windows.begins) for _, windows in found):
                return _read(dataset, found, context_frames)
    raise DataError(f"no episode of {path} has {context_frames} frames and goes on: ask for shorter starts")


def _pieces(info: SplitInfo, number: int, context_frames: int) -> Windows:
    """Cuts sequences into pieces, of all sequences the first before the second of any."""
    n = min(number, info.number_of_frames // context_frames * info.number_of_sequences)
    order = np.arange(n)
    begins = order // info.number_of_sequences * context_frames
    return Windows(order % info.number_of_sequences, begins)


def _read(dataset: Dataset, windows: Sequence[tuple[Split, Windows]], context_frames: int) -> Starts:
    """Reads starts, without those in which an episode ends."""
    parts: list[Starts] = []
    is_binary = dataset.attributes.maximum_value == 1
    for split, (sequences, begins) in windows:
        if not len(sequences):
            continue
        there = dataset.info(split).arrays
        names = [name for name in ("features", "actions", "terminations") if name in there]
        read = dataset.read(split, sequences, names, begins, context_frames)
        features, n = read["features"].swapaxes(0, 1), len(sequences)
        actions = read.get("actions", np.zeros((context_frames, n), dtype=np.int64))[:-1].swapaxes(0, 1)
        ended = read.get("terminations", np.zeros((context_frames, n), dtype=np.bool_))[:-1].any(axis=0)
        chosen = features[~ended]
        if len(chosen):
            parts.append(Starts.pack(chosen > 0 if is_binary else chosen, actions[~ended]))
    if not parts:
        raise DataError(
            f"every episode of {dataset.path} ends within {context_frames} frames: ask for shorter starts"
        )
    packed, actions = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("packed", "actions")
    )
    return Starts(packed, actions, parts[0].shape, is_binary)


def simulated_starts(
    rules: BallsConfig, seeds: NDArray[np.uint64], context_frames: int = CONTEXT_FRAMES
) -> Starts:
    """Simulates new starts, each from its own seed, with actions drawn evenly and held for 4 steps.

    Args:
        rules: The rules of the balls.
        seeds: One for each start.
        context_frames: Frames of a start.
    """
    generators = [np.random.default_rng(seed) for seed in seeds.tolist()]
    env = BouncingBallsVectorEnv(len(generators), rules)
    for row, generator in enumerate(generators):
        env.episodes.generators[row] = generator
    frames = [env.reset()[0]]
    drawn = -(-(context_frames - 1) // HELD_STEPS)
    count = number_of_actions(rules)
    held = np.stack([generator.integers(count, size=drawn) for generator in generators])
    actions = held.repeat(HELD_STEPS, axis=1)[:, : context_frames - 1]
    frames += [env.move(column).observations for column in actions.T]
    return Starts.pack(np.stack(frames, axis=1) > 0, actions)


def game_starts(game: str) -> Starts:
    """Returns the starts of a game, from the cache or by playing (some ten seconds).

    The cache is that of `background_of`; if it can't be written, every process plays by itself.

    Raises:
        ConfigError: If there is no such game.
        DependencyError: If ale-py is not installed.
    """
    return _game_starts(game_named(game))


@functools.lru_cache(maxsize=4)
def _game_starts(game: str) -> Starts:
    rule = f"{NUMBER_OF_GAME_STARTS} of {CONTEXT_FRAMES} frames every {SPACING} steps of a random policy"
    path = cache_path(game, f"starts-{zlib.crc32(rule.encode()):08x}", ".npz")
    return kept_starts(path, lambda: _play(game))


def kept_starts(path: Path | None, make: Callable[[], Starts]) -> Starts:
    """Reads starts from a cache, or makes them and tries to keep them there.

    Args:
        path: The file; None where there is no cache.
        make: Makes them where there are none.
    """
    if path is not None:
        with contextlib.suppress(DataError):
            return read_starts(path)
    starts = make()
    if path is not None:
        with contextlib.suppress(OutputError):
            write_starts(path, starts)
    return starts


def _play(game: str) -> Starts:
    """Cuts starts out of games that a random policy plays; none goes on beyond the end of a game."""
    background = background_of(game)
    emulator = Emulator(game)
    emulator.seed(derive_seed(0, "starts", game))
    generator = numpy_generator(0, "starts", game)
    number = len(emulator.action_names)
    frames: list[NDArray[np.bool_]] = []
    actions: list[NDArray[np.int64]] = []
    with tqdm(total=NUMBER_OF_GAME_STARTS, desc=f"starts of {game}", unit="start", disable=None) as bar:
        while len(frames) < NUMBER_OF_GAME_STARTS:
            emulator.reset()
            over = False
            # Each game begins elsewhere, so that starts aren't always of the same moments.
            for _ in range(int(generator.integers(SPACING))):
                over = over or emulator.step(int(generator.integers(number)))[1]
            while not over and len(frames) < NUMBER_OF_GAME_STARTS:
                done = generator.integers(number, size=SPACING)
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

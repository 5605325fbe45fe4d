"""What an Atari environment shows of a game, and the background that binary frames leave out.

A game's background has at each pixel the grey that is most often there; a binary frame is 1 where it differs from it.
The background is not shipped, since it is a picture of the game: it is found by a short run of the game itself, always
the same one, and kept in the user's cache folder.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.metadata
import os
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from gymnasium import spaces
from jaxtyping import UInt8
from numpy.typing import NDArray

from rnem_world.envs.atari_console import SIZE, Emulator, game_named, require_ale
from rnem_world.errors import ConfigError, DataError, OutputError, suggest
from rnem_world.io import atomic_file
from rnem_world.seeding import derive_seed, numpy_generator

RULE = (
    "1 where the grey of a pixel differs from the background: the most frequent grey of that pixel over "
    "8 games of 1,000 steps under a random policy; frames are the brighter of two screens, by areas to 84 x 84"
)
GAMES, STEPS = 8, 1000

Background = UInt8[np.ndarray, "84 84"]


def background_of(game: str) -> Background:
    """Returns the background of a game, from the cache or by playing (a few seconds).

    The cache is ``$XDG_CACHE_HOME/rnem-world`` (``~/.cache/rnem-world``); if it can't be written, every process
    plays by itself.

    Raises:
        ConfigError: If there is no such game.
        DependencyError: If ale-py is not installed.
    """
    return _background_of(game_named(game)).copy()


@lru_cache(maxsize=16)
def _background_of(game: str) -> Background:
    path = cache_path(game, f"{zlib.crc32(RULE.encode()):08x}", ".npy")
    with contextlib.suppress(OSError, ValueError, EOFError):
        kept = None if path is None else np.load(path, allow_pickle=False)
        if kept is not None and kept.shape == (SIZE, SIZE) and kept.dtype == np.uint8:
            found: Background = kept
            return found
    background = _play(game)
    if path is not None:
        with contextlib.suppress(OutputError), atomic_file(path) as temporary:
            np.save(temporary, background)
    return background


def cache_path(game: str, kind: str, suffix: str) -> Path | None:
    """Names the file in the user's cache folder that holds something of a game; None for users without a home.

    Args:
        game: The game, as `game_named` names it.
        kind: What it is, and the rule by which it was made.
        suffix: The file's, with the dot.

    Raises:
        DependencyError: If ale-py is not installed.
    """
    require_ale()
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rnem-world" / "atari"
    except RuntimeError:
        return None
    version = importlib.metadata.version("ale-py")
    return folder / f"{game}-{kind}-ale-{version}{suffix}"


def _play(game: str) -> Background:
    """Counts the greys of every pixel while a random policy plays."""
    emulator = Emulator(game)
    generator = numpy_generator(0, "background", game)
    counts = np.zeros((SIZE * SIZE, 256), np.int32)
    pixels = np.arange(SIZE * SIZE)
    actions = generator.integers(len(emulator.action_names), size=(GAMES, STEPS)).tolist()
    for number in range(GAMES):
        emulator.seed(derive_seed(0, "background", game, number))
        emulator.reset()
        for action in actions[number]:
            _, over, _ = emulator.step(action)
            counts[pixels, emulator.frame().ravel()] += 1
            if over:
                emulator.reset()
    background: Background = counts.argmax(axis=1).astype(np.uint8).reshape(SIZE, SIZE)
    return background


def to_text(background: Background) -> str:
    """Writes a background as text, for the attributes of a dataset."""
    return base64.b85encode(zlib.compress(background.tobytes(), 9)).decode()


def from_text(text: str) -> Background:
    """Reads what :func:`to_text` wrote.

    Raises:
        DataError: If it is something else.
    """
    try:
        values = np.frombuffer(zlib.decompress(base64.b85decode(text)), np.uint8)
        background: Background = values.reshape(SIZE, SIZE).copy()
    except (ValueError, zlib.error) as error:
        raise DataError(f"the background is no 84x84 picture as a dataset stores it: {error}") from error
    return background


def chosen_background(game: str, background: Any) -> Background:
    """Returns the background that a user asks for.

    Args:
        game: The game.
        background: None for the game's own; an array; or the path of a ``.npy`` file or of a dataset of the game.

    Raises:
        ConfigError: If it is none of these.
        DataError: If the file holds no background, or that of another game.
    """
    if background is None:
        return background_of(game)
    if isinstance(background, np.ndarray):
        return _checked(background, "the array")
    if not isinstance(background, str | os.PathLike):
        raise ConfigError(
            f"background is {background!r}, expected an array (84, 84) of uint8, a path, or None"
        )
    path = Path(background)
    if path.suffix == ".npy":
        try:
            return _checked(np.load(path, allow_pickle=False), str(path))
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} holds no background: {error}") from error
    from rnem_world.data.dataset import Dataset

    with Dataset.open(path) as dataset:
        settings = dataset.attributes.settings
    if "background" not in settings:
        raise DataError(
            f"{path} holds no background: give a dataset of binary frames that `collect --env atari` made"
        )
    if settings.get("game") != game:
        raise DataError(f"{path} holds the background of {settings.get('game')}, not of {game}")
    return from_text(settings["background"])


def _checked(background: NDArray[Any], place: str) -> Background:
    if background.shape != (SIZE, SIZE) or background.dtype != np.uint8:
        raise DataError(
            f"{place} has the shape {background.shape} and dtype {background.dtype}, expected (84, 84) of uint8"
        )
    return background


ObservationType = Literal["binary", "grayscale", "rgb"]
RewardType = Literal["raw", "sign"]


class AtariRules:
    """The options that the single and the vector environment share, checked.

    Args:
        game: The game's name.
        obs_type: ``binary``: 255 where a pixel differs from the background, else 0; ``grayscale``; or ``rgb``.
        reward: The game's ``raw`` points, or their ``sign``.
        background: See `chosen_background`; used for binary observations alone.
        repeat_probability: See `rnem_world.envs.atari_console.REPEAT_PROBABILITY`.

    Raises:
        ConfigError: If an argument makes no sense.
        DataError: If the background can't be read.
        DependencyError: If ale-py is not installed.
    """

    def __init__(
        self, game: str, obs_type: str, reward: str, background: Any, repeat_probability: float
    ) -> None:
        for name, value, kind in (("obs_type", obs_type, ObservationType), ("reward", reward, RewardType)):
            if value not in get_args(kind):
                raise ConfigError(f"{name} is {value!r}: {suggest(str(value), get_args(kind))}")
        self.game = game_named(game)
        self.obs_type, self.reward = obs_type, reward
        self.repeat_probability = repeat_probability
        self.background: NDArray[Any] | None = None
        if obs_type == "binary":
            self.background = chosen_background(self.game, background)
        elif background is not None:
            raise ConfigError(f"a background was given, but observations are {obs_type}: leave it out")
        self.space = spaces.Box(0, 255, (SIZE, SIZE, 3 if obs_type == "rgb" else 1), np.uint8)

    def emulator(self) -> Emulator:
        """Makes a console with the game."""
        colour: Literal["grayscale", "rgb"] = "rgb" if self.obs_type == "rgb" else "grayscale"
        return Emulator(self.game, colour, self.repeat_probability)

    def observation(self, frames: NDArray[Any]) -> UInt8[np.ndarray, "*n 84 84 c"]:
        """Turns frames of an `Emulator` into observations.

        Args:
            frames: (..., 84, 84), or (..., 84, 84, 3) in colour.
        """
        if self.obs_type == "rgb":
            return frames
        if self.background is not None:
            # 0 or 1, times 255: quicker than a choice between two numbers.
            frames = (frames != self.background).view(np.uint8) * np.uint8(255)
        return frames[..., None]

    def earned(self, points: Any) -> Any:
        """Turns points into rewards."""
        return np.sign(points) if self.reward == "sign" else points

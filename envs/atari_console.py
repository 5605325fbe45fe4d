"""One Atari console with a game: the games by name, actions held for four frames, and the frame that one sees."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from rnem_world.errors import ConfigError, DependencyError

INSTALL = 'pip install "rnem-world[atari]"'

PRESETS = ("SpaceInvaders", "Pong", "Breakout", "MsPacman")
"""Games whose binary frames were looked at: what matters is in them."""


def require_ale() -> ModuleType:
    """Imports ale-py.

    Raises:
        DependencyError: If it or OpenCV is not installed; the message says what to install.
    """
    try:
        import ale_py
        import cv2  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            f"Atari games need ale-py and OpenCV, and {error.name or error} is missing: {INSTALL}"
        ) from error
    # Its log would go to standard error with every game that is loaded.
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    module: ModuleType = ale_py
    return module


def games() -> list[str]:
    """Lists the games that are installed, as ``SpaceInvaders``.

    Raises:
        DependencyError: If ale-py is not installed.
    """
    require_ale()
    from ale_py import roms

    return sorted("".join(word.capitalize() for word in rom.split("_")) for rom in roms.get_all_rom_ids())


def game_named(name: str) -> str:
    """Finds a game's usual name; ``space_invaders`` and ``spaceinvaders`` are taken for ``SpaceInvaders``.

    Raises:
        ConfigError: If there is no such game; the message names the nearest.
        DependencyError: If ale-py is not installed.
    """
    if not isinstance(name, str):
        raise ConfigError(f"game is {name!r}, expected the name of an Atari game, as 'SpaceInvaders'")
    known = {game.lower(): game for game in games()}
    wanted = name.replace("_", "").replace("-", "").replace(" ", "").lower()
    if wanted in known:
        return known[wanted]
    nearest = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
    hint = f"did you mean {known[nearest[0]]!r}? " if nearest else ""
    raise ConfigError(
        f"no Atari game {name!r}: {hint}{len(known)} games are known, among them {', '.join(PRESETS)}"
    )


def rom_path(game: str) -> str:
    """Finds the file of a game named as :func:`game_named` names it.

    Raises:
        ConfigError: If it isn't there.
        DependencyError: If ale-py is not installed.
    """
    require_ale()
    from ale_py import roms

    for rom in roms.get_all_rom_ids():
        if rom.replace("_", "") == game.lower():
            return str(roms.get_rom_path(rom))
    raise ConfigError(f"no Atari game {game!r} is installed; {INSTALL} brings them")


SIZE = 84
"""Height and width of a frame."""

FRAME_SKIP = 4
"""Frames of the console for which an action is held."""

REPEAT_PROBABILITY = 0.25
"""Probability that a frame of the console still gets the action before ("sticky actions"; Machado et al., 2018)."""

MAX_EPISODE_STEPS = 27_000
"""Steps after which an episode is truncated: half an hour of play at 60 frames a second."""

Colour = Literal["grayscale", "rgb"]


@dataclass(frozen=True)
class EmulatorSnapshot:
    """A copy of an `Emulator`.

    Attributes:
        state: The console's, with its random generator.
        screens: Its last two screens.
        lives: The lives left.
    """

    state: Any
    screens: tuple[NDArray[Any], NDArray[Any]]
    lives: int


@lru_cache(maxsize=16)
def _facts(rom: str) -> tuple[list[Any], tuple[int, int]]:
    """Returns a game's actions, and height and width of its screen; asked once, since loading a game takes long."""
    console = require_ale().ALEInterface()
    console.loadROM(rom)
    height, width = console.getScreenDims()
    return console.getMinimalActionSet(), (height, width)


class Emulator:
    """A console with one game: the brighter of the last two screens of every pixel, by areas to 84 x 84.

    The frames are those of `gymnasium.wrappers.AtariPreprocessing` without its random start.

    Attributes:
        is_seeded: Whether the console has been seeded, and so has its game.
        ale: The console, ``ale_py.ALEInterface``.

    Args:
        game: The game, as `game_named` names it.
        colour: What screens are kept.
        repeat_probability: See `REPEAT_PROBABILITY`.

    Raises:
        ConfigError: If there is no such game.
        DependencyError: If ale-py is not installed.
    """

    def __init__(
        self, game: str, colour: Colour = "grayscale", repeat_probability: float = REPEAT_PROBABILITY
    ) -> None:
        ale_py = require_ale()
        import cv2

        if not 0.0 <= repeat_probability < 1.0:
            raise ConfigError(f"repeat_probability is {repeat_probability}, it must lie in [0, 1)")
        self.game, self.colour, self.repeat_probability = game, colour, repeat_probability
        self.ale = ale_py.ALEInterface()
        self.ale.setFloat("repeat_action_probability", repeat_probability)
        self._rom = rom_path(game)
        self.is_seeded = False
        self._actions, screen = _facts(self._rom)
        shape = screen if colour == "grayscale" else (*screen, 3)
        self._older, self._newer = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        self._read = self.ale.getScreenGrayscale if colour == "grayscale" else self.ale.getScreenRGB
        self._max, self._resize, self._area = cv2.max, cv2.resize, cv2.INTER_AREA
        self.lives = 0

    @property
    def action_names(self) -> list[str]:
        """The actions that the game knows, in the order of their numbers."""
        return [action.name for action in self._actions]

    def seed(self, seed: int) -> None:
        """Seeds the console's generator; takes some 60 ms, since the game is loaded again.

        Args:
            seed: At least 0, of any size.
        """
        word = np.random.SeedSequence(seed).generate_state(1)[0]
        self.ale.setInt("random_seed", int(word) & 0x7FFFFFFF)
        self.ale.loadROM(self._rom)
        self.is_seeded = True

    def reset(self) -> None:
        """Starts a new game; a console that was never seeded is seeded with 0."""
        if not self.is_seeded:
            self.seed(0)
        self.ale.reset_game()
        self._read(self._newer)
        self._older[...] = self._newer
        self.lives = int(self.ale.lives())

    def step(self, action: int) -> tuple[float, bool, bool]:
        """Holds an action for four frames of the console.

        Args:
            action: Its number.

        Returns:
            The points, whether the game is over, and whether a life was lost.
        """
        button, act = self._actions[action], self.ale.act
        points = 0
        for _ in range(FRAME_SKIP - 1):
            points += act(button)
        self._read(self._older)
        points += act(button)
        self._read(self._newer)
        lives, before = int(self.ale.lives()), self.lives
        self.lives = lives
        return float(points), bool(self.ale.game_over(with_truncation=False)), lives < before

    def frame(self) -> NDArray[Any]:
        """Returns the frame, (84, 84) of uint8, or (84, 84, 3) in colour."""
        frame: NDArray[Any] = self._resize(
            self._max(self._older, self._newer), (SIZE, SIZE), interpolation=self._area
        )
        return frame

    def screen(self) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the console's last screen in colour."""
        screen: NDArray[Any] = self.ale.getScreenRGB()
        return screen

    def get_state(self) -> EmulatorSnapshot:
        """Returns a copy of everything that the future depends on."""
        state = self.ale.cloneState(include_rng=True)
        return EmulatorSnapshot(state, (self._older.copy(), self._newer.copy()), self.lives)

    def set_state(self, snapshot: EmulatorSnapshot) -> None:
        """Goes back to a copy; the same actions then give exactly the same frames.

        Raises:
            ConfigError: If the copy is of an emulator with other screens.
        """
        if snapshot.screens[0].shape != self._older.shape:
            raise ConfigError(
                f"the snapshot's screens have the shape {snapshot.screens[0].shape}, expected {self._older.shape}: "
                "it is of an environment with other observations"
            )
        if not self.is_seeded:
            self.seed(0)
        self.ale.restoreState(snapshot.state)
        self._older[...], self._newer[...] = snapshot.screens
        self.lives = snapshot.lives

    def __getstate__(self) -> tuple[Any, ...]:
        arguments = (self.game, self.colour, self.repeat_probability)
        return (*arguments, self.get_state() if self.is_seeded else None)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        *arguments, snapshot = state
        self.__init__(*arguments)  # type: ignore[misc]  # a console can't be copied, only made again
        if snapshot is not None:
            self.set_state(snapshot)

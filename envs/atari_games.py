"""The games of the Arcade Learning Environment by name, and what a user is told who lacks it or misspells one."""

from __future__ import annotations

import difflib
from types import ModuleType

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

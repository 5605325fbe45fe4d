"""A window for people to watch an environment in, the render mode ``human``."""

from __future__ import annotations

import os
import sys
from typing import Any

from rnem_world.envs.episodes import Array
from rnem_world.errors import DependencyError


def has_screen() -> bool:
    """Whether a window can be seen."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def unseen_window() -> dict[str, str]:
    """Gives the environment variables by which pygame draws where there is no screen; none where there is one.

    Without them SDL, which pygame stands on, asks every kind of screen there might be, and libwayland complains on
    stderr. Whoever has chosen a driver keeps it.
    """
    return {} if has_screen() or "SDL_VIDEODRIVER" in os.environ else {"SDL_VIDEODRIVER": "dummy"}


class Window:
    """Shows pictures at the environment's own speed; opened when the first is shown.

    Args:
        frames_per_second: How many at most.
        title: What is written above.
    """

    def __init__(self, frames_per_second: int, title: str) -> None:
        self._arguments = (frames_per_second, title)
        self._screen: Any = None
        self._clock: Any = None

    def show(self, picture: Array) -> None:
        """Shows a picture, (height, width, 3) uint8, and waits until it is time for the next.

        Raises:
            DependencyError: If pygame is not installed.
        """
        try:
            import pygame
        except ImportError as error:
            raise DependencyError(
                'render_mode="human" needs pygame, which is missing: pip install "rnem-world[play]"'
            ) from error
        frames_per_second, title = self._arguments
        if self._screen is None:
            pygame.display.init()
            pygame.display.set_caption(title)
            self._screen = pygame.display.set_mode(picture.shape[1::-1])
            self._clock = pygame.time.Clock()
        self._screen.blit(pygame.surfarray.make_surface(picture.swapaxes(0, 1)), (0, 0))
        pygame.event.pump()
        pygame.display.flip()
        self._clock.tick(frames_per_second)

    def close(self) -> None:
        """Closes the window."""
        if self._screen is not None:
            import pygame

            pygame.display.quit()
            self._screen = self._clock = None

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy opens a window of its own.
        return type(self), self._arguments

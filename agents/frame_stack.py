"""The last frames of environments, for policies that were trained on stacks of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray


class FrameStack:
    """The last frames of N environments along their channels, as `VecFrameStack` has them: black before the first."""

    def __init__(self, channels: int, axis: int = -1) -> None:
        self._channels, self._axis = channels, axis
        self._frames: NDArray[Any] | None = None

    def clear(self, rows: Bool[np.ndarray, " n"] | None = None) -> None:
        """Forgets the frames of all environments, or of some."""
        if rows is None:
            self._frames = None
        elif self._frames is not None:
            self._frames[rows] = 0

    def push(self, frames: NDArray[Any]) -> NDArray[Any]:
        """Adds the newest frames, (n, h, w, c) or (n, c, h, w), and returns the stacks."""
        if self._frames is None:
            shape = list(frames.shape)
            shape[self._axis] = self._channels
            self._frames = np.zeros(shape, frames.dtype)
        _, rest = np.split(self._frames, [frames.shape[self._axis]], self._axis)
        self._frames = np.concatenate([rest, frames], axis=self._axis)
        return self._frames


class StackingAgent:
    """What agents share that look at the last frames, if they look at frames.

    Args:
        stack: Keeps the last frames; None for an agent that sees something else.
    """

    def __init__(self, stack: FrameStack | None) -> None:
        self._stack = stack

    def reset(self, num_envs: int) -> None:
        """Forgets the frames of N environments."""
        if self._stack is not None:
            self._stack.clear()

    def restart(self, begun: Bool[np.ndarray, " n"]) -> None:
        """Forgets the frames of some environments."""
        if self._stack is not None:
            self._stack.clear(begun)

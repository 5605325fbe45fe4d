"""What an agent is."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray


@runtime_checkable
class Agent(Protocol):
    """Chooses the actions of N environments that run side by side."""

    def reset(self, num_envs: int) -> None:
        """Starts anew with N environments; to be called before the first `act`."""

    def act(self, observations: NDArray[Any]) -> Int64[np.ndarray, " n"]:
        """Chooses the next actions.

        Args:
            observations: What the N environments show, (n, ...).

        Returns:
            Numbers of actions.
        """

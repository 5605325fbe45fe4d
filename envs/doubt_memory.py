"""What dreams remember of their doubt: signs added up since they began, and the slots' masses at that time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from rnem_world.envs.details import slot_masses
from rnem_world.envs.doubt import signs
from rnem_world.envs.dream_batches import chunks
from rnem_world.models.imagination import Picture

Draw = Callable[[Tensor], Picture]
"""Draws the dreams of the given rows."""


class DoubtMemory:
    """The memory of some dreams. Tensors are never changed in place, so that copies cost nothing.

    Whoever asks says how dreams are drawn; only what isn't known yet is.

    Attributes:
        values: Float (b, 2 + k), the first two signs added up, and the slots' masses when the dream began.

    Args:
        values: The memory to begin with.
    """

    def __init__(self, values: Float[Tensor, "b m"]) -> None:
        self.values = values
        self._signs: Tensor | None = None

    def add(self, draw: Draw) -> None:
        """Adds the signs of the frames that the dreams show now, once after every step."""
        found = self._measured(draw)
        self.values = torch.cat([self.values[:, :2] + found[:, :2], self.values[:, 2:]], dim=1)
        self._signs = found

    def put(self, rows: Int64[Tensor, " m"], values: Float[Tensor, "m n"] | None, draw: Draw) -> None:
        """Gives some dreams another memory.

        Args:
            rows: Which ones.
            values: The memory; None for dreams that begin now.
            draw: Draws dreams.
        """
        if values is None:
            masses = slot_masses(draw(rows))
            values = torch.cat([masses.new_zeros(len(rows), 2), masses], dim=1)
        self.values = self.values.index_copy(0, rows, values)
        self._signs = None

    def signs(self, draw: Draw) -> Float[Tensor, "b 3"]:
        """Gives the signs of the frames that the dreams show now."""
        if self._signs is None:
            self._signs = self._measured(draw)
        return self._signs

    def signs_added_up(self, draw: Draw) -> Float[Tensor, "b 3"]:
        """Gives the signs as `Calibration` wants them: the first two added up since the dream began."""
        return torch.cat([self.values[:, :2], self.signs(draw)[:, 2:]], dim=1)

    def _measured(self, draw: Draw) -> Tensor:
        rows = torch.arange(len(self.values), device=self.values.device)
        found = []
        for part in chunks(len(rows)):
            picture = draw(rows[part])
            found.append(signs(picture, slot_masses(picture), self.values[part, 2:]))
        return torch.cat(found)

"""Where a game's player is, found on frames alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


class FoundPlayers(NamedTuple):
    """Players found on frames.

    Attributes:
        positions: Float (*s), the centre of each along its way, in pixels.
        found: Bool (*s), whether there is one.
    """

    positions: Float[Tensor, "*s"]
    found: Bool[Tensor, "*s"]


@dataclass(frozen=True)
class PlayerLane:
    """The strip of a binary frame along which a player moves, and the player's size in it.

    Attributes:
        first: First row of the strip (column, if it is upright).
        last: Its last.
        length: Pixels of the player along the strip.
        upright: Whether the player moves up and down.
    """

    first: int
    last: int
    length: int
    upright: bool = False

    def find(self, frames: Float[Tensor, "*s 1 h w"]) -> FoundPlayers:
        """Finds the window of the player's length with the most pixels; there is none if it is less than half full."""
        strip = frames[..., 0, :, :]
        if self.upright:
            strip = strip.transpose(-1, -2)
        profile = strip[..., self.first : self.last + 1, :].sum(dim=-2)
        flat = profile.reshape(-1, 1, profile.shape[-1])
        filled = F.avg_pool1d(flat, self.length, stride=1)[:, 0] / (self.last + 1 - self.first)
        most, place = filled.max(dim=-1)
        positions = place.to(frames.dtype) + (self.length - 1) / 2
        shape = profile.shape[:-1]
        return FoundPlayers(positions.reshape(shape), (most >= 0.5).reshape(shape))


LANES: Mapping[str, PlayerLane] = {
    "Breakout": PlayerLane(75, 77, 9),
    "Pong": PlayerLane(73, 75, 7, upright=True),
    "SpaceInvaders": PlayerLane(74, 77, 7),
}
"""By the game's name; looked up on binary frames of 84 x 84."""

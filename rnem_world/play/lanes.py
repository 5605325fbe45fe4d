"""Lanes: moments that followed one another, which can be gone back to, cut off, and lived on from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from rnem_world.envs.dream import DreamsSnapshot
from rnem_world.play.reality import RealMoment


@dataclass(frozen=True)
class DreamMoment:
    """A dream at one time.

    Attributes:
        dreams: The dream.
        action: What led here; None at the beginning.
        reward: What that earned.
        ended: Whether the episode is over.
        changed: Whether objects were changed here.
    """

    dreams: DreamsSnapshot
    action: NDArray[Any] | None = None
    reward: float = 0.0
    ended: bool = False
    changed: bool = False


Moment = TypeVar("Moment", DreamMoment, RealMoment)


@dataclass
class Lane(Generic[Moment]):
    """Moments that followed one another.

    Attributes:
        moments: At least one; they never change, so that lanes share them.
        totals: The return until each.
        action: What is being done.
        replays: Whether the moments that follow now are lived once more, as long as there are any.
    """

    moments: list[Moment]
    totals: list[float]
    action: NDArray[Any]
    replays: bool = False

    @classmethod
    def beginning(cls, moment: Moment, action: NDArray[Any]) -> Lane[Moment]:
        """Makes a lane of one moment."""
        return cls([moment], [0.0], action)

    def until(self, index: int, most: int | None = None) -> Lane[Moment]:
        """Copies the lane up to a moment, with at most so many before it."""
        begin = 0 if most is None else max(index - most, 0)
        return Lane(self.moments[begin : index + 1], self.totals[begin : index + 1], self.action)

    def cut(self, index: int) -> None:
        """Forgets what came after a moment."""
        del self.moments[index + 1 :], self.totals[index + 1 :]

    def forget(self, number: int) -> None:
        """Forgets the first moments."""
        del self.moments[:number], self.totals[:number]

    def add(self, moment: Moment) -> None:
        """Lives one moment on."""
        self.moments.append(moment)
        self.totals.append(self.totals[-1] + moment.reward)

    def stand(self) -> None:
        """Adds the moment after the end of an episode: nothing happens."""
        self.add(replace(self.moments[-1], reward=0.0))

    def led_here(self, index: int, most: int) -> list[Moment]:
        """Lists a moment and those before it that led there by actions alone, at most so many, the first one first."""
        begin = max(index - most, 0)
        for at in range(begin, index + 1):
            if self.moments[at].action is None or getattr(self.moments[at], "changed", False):
                begin = at
        return self.moments[begin : index + 1]

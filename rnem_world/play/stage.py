"""The stage: who is here, when whose dream goes on, and one thread that computes for all of them at once.

The event loop only hands messages over, so that nobody's step keeps another's message waiting. Times are multiples of a
60th of a second: dreams at 30 frames a second are stepped together, in one batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from rnem_world.play.imagining import Imagining
from rnem_world.play.messages import Act, Command, Seek, Seen
from rnem_world.play.turns import Task, make_turn
from rnem_world.play.visit import Visit

TICKS_PER_SECOND = 60
MOST_UNSEEN = 4
"""Pictures that may be under way to a page: one that shows them slower gets fewer, and its dream waits."""

MOST_WAITING = 64
"""Commands of a visitor that may wait for the next turn."""


class TooManyCommandsError(Exception):
    """A visitor sends commands faster than they are followed."""


@dataclass(eq=False)
class Visitor:
    """One page.

    Attributes:
        outgoing: Messages for it; None is the last one.
        commands: What it wants, not followed yet.
        visit: Its dreams, made in the first turn.
        next_tick: When its dream goes on.
        sent: Pictures sent.
        seen: Pictures shown.
    """

    outgoing: asyncio.Queue[str | bytes | None] = field(default_factory=asyncio.Queue)
    commands: list[Command] = field(default_factory=list)
    visit: Visit | None = None
    next_tick: int = 0
    sent: int = 0
    seen: int = 0

    def take(self, command: Command) -> None:
        """Takes what its page sent.

        Raises:
            TooManyCommandsError: If too many wait.
        """
        if isinstance(command, Seen):
            self.seen = min(max(self.seen, command.picture), self.sent)
            return
        last = self.commands[-1] if self.commands else None
        if _replaces(command, last):
            self.commands[-1] = command
            return
        if len(self.commands) >= MOST_WAITING:
            raise TooManyCommandsError
        self.commands.append(command)

    @property
    def keeps_up(self) -> bool:
        """Whether it has shown nearly all that was sent."""
        return self.sent - self.seen < MOST_UNSEEN


def _replaces(command: Command, last: Command | None) -> bool:
    """Whether a command makes the one before it void: where the timeline is dragged to, what a slider is set to."""
    if isinstance(command, Act) and isinstance(last, Act):
        return command.lane == last.lane
    return isinstance(command, Seek) and isinstance(last, Seek)


class Stage:
    """All visitors of one world.

    Args:
        imagining: Computes their dreams.
        make_visit: Makes the dreams of one visitor; called in the computing thread.
        most_visitors: How many may be here at once.
    """

    def __init__(self, imagining: Imagining, make_visit: Callable[[], Visit], most_visitors: int) -> None:
        self._imagining = imagining
        self._make_visit = make_visit
        self._most = most_visitors
        self._visitors: list[Visitor] = []
        self._changed = asyncio.Event()
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="dreams")

    def __len__(self) -> int:
        return len(self._visitors)

    def enter(self) -> Visitor | None:
        """Lets a visitor in; None if there is no room."""
        if len(self._visitors) >= self._most:
            return None
        visitor = Visitor()
        self._visitors.append(visitor)
        self._changed.set()
        return visitor

    def leave(self, visitor: Visitor) -> None:
        """Lets a visitor's dreams go."""
        self._visitors.remove(visitor)
        visitor.outgoing.put_nowait(None)
        if visitor.visit is not None:
            # Where all else happens to it: it may be in the middle of a turn.
            self._computing.submit(visitor.visit.close)

    def take(self, visitor: Visitor, command: Command) -> None:
        """Takes what a page sent.

        Raises:
            TooManyCommandsError: If too many of its commands wait.
        """
        visitor.take(command)
        self._changed.set()

    async def run(self) -> None:
        """Lets time go on until it is cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._changed.clear()
                # Between 60ths nothing is due; what is asked for meanwhile is done at once.
                tick = int(time.monotonic() * TICKS_PER_SECOND)
                wanted = [each for visitor in self._visitors if (each := _wanted(visitor, tick)) is not None]
                if wanted:
                    messages = await loop.run_in_executor(self._computing, self._compute, wanted)
                    for each, some in zip(wanted, messages, strict=True):
                        for message in some:
                            each.visitor.sent += isinstance(message, bytes)
                            each.visitor.outgoing.put_nowait(message)
                else:
                    await self._wait()
        finally:
            self._computing.shutdown(wait=True, cancel_futures=True)

    async def _wait(self) -> None:
        """Waits for a command, or until the next dream has to go on."""
        ticks = [
            visitor.next_tick
            for visitor in self._visitors
            if visitor.visit is not None and visitor.visit.playing and visitor.keeps_up
        ]
        timeout = None if not ticks else max(min(ticks) / TICKS_PER_SECOND - time.monotonic(), 0.0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout)

    def _compute(self, wanted: Sequence[_Wanted]) -> list[list[str | bytes]]:
        """Makes a turn, in the computing thread."""
        tasks = []
        for each in wanted:
            if each.visitor.visit is None:
                each.visitor.visit = self._make_visit()
            tasks.append(Task(each.visitor.visit, each.commands, each.due))
        return make_turn(self._imagining, tasks)


@dataclass(frozen=True)
class _Wanted:
    """What is to be done for a visitor in a turn."""

    visitor: Visitor
    commands: list[Command] = field(default_factory=list)
    due: bool = False


def _wanted(visitor: Visitor, tick: int) -> _Wanted | None:
    """Says what is to be done for a visitor now; None if nothing is."""
    visit = visitor.visit
    if not visitor.keeps_up:
        return None
    if visit is None:
        return _Wanted(visitor)
    due = visit.playing and tick >= visitor.next_tick
    if not due and not visitor.commands:
        return None
    commands, visitor.commands = visitor.commands, []
    if due:
        period = TICKS_PER_SECOND // visit.fps
        visitor.next_tick = (tick // period + 1) * period  # the same moments for all of the same speed
    return _Wanted(visitor, commands, due)

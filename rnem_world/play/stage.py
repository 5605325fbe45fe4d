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

from rnem_world.errors import RnemWorldError
from rnem_world.play.imagining import Imagining, View
from rnem_world.play.lanes import DreamMoment, Lane
from rnem_world.play.messages import Command, LaneName, Seen, write_text
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
        if len(self.commands) >= MOST_WAITING:
            raise TooManyCommandsError
        self.commands.append(command)

    @property
    def keeps_up(self) -> bool:
        """Whether it has shown nearly all that was sent."""
        return self.sent - self.seen < MOST_UNSEEN


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
                tick = int(time.monotonic() * TICKS_PER_SECOND)
                tasks = [task for visitor in self._visitors if (task := _task_of(visitor, tick)) is not None]
                if tasks:
                    messages = await loop.run_in_executor(self._computing, self._compute, tasks)
                    for task, some in zip(tasks, messages, strict=True):
                        for message in some:
                            task.visitor.sent += isinstance(message, bytes)
                            task.visitor.outgoing.put_nowait(message)
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

    def _compute(self, tasks: Sequence[Task]) -> list[list[str | bytes]]:
        """Makes a turn: follows commands, steps what is due, and shows whatever has changed."""
        messages: list[list[str | bytes]] = []
        for task in tasks:
            if task.visitor.visit is None:
                task.visitor.visit = self._make_visit()
            messages.append([text for command in task.commands if (text := _follow(task.visit, command))])
        stepping: list[tuple[Task, Lane[DreamMoment]]] = []
        for task in tasks:
            if (task.due and task.visit.playing) or task.visit.steps_wanted:
                stepping += [(task, lane) for lane in task.visit.go_on()]
        imagined = self._imagining.advance(
            [lane.moments[-1].dreams for _, lane in stepping], [lane.action for _, lane in stepping]
        )
        views: dict[int, View] = {}
        for (_, lane), step in zip(stepping, imagined, strict=True):
            lane.add(DreamMoment(step.dreams, lane.action, step.reward, step.ended))
            views[id(lane)] = step.view
        others = [
            (lane, lane.moments[task.visit.now].dreams)
            for task in tasks
            for lane in task.visit.dreams.values()
            if id(lane) not in views
        ]
        for (lane, _), view in zip(
            others, self._imagining.look([dreams for _, dreams in others]), strict=True
        ):
            views[id(lane)] = view
        for task, some in zip(tasks, messages, strict=True):
            shown: dict[LaneName, View] = {name: views[id(lane)] for name, lane in task.visit.dreams.items()}
            some.append(task.visit.picture(shown))
        return messages


@dataclass(frozen=True)
class Task:
    """What a turn has to do for a visitor."""

    visitor: Visitor
    commands: list[Command]
    due: bool

    @property
    def visit(self) -> Visit:
        """The visitor's dreams, once they are made."""
        if self.visitor.visit is None:
            raise RuntimeError("a visit is made before anything is done in it")
        return self.visitor.visit


def _task_of(visitor: Visitor, tick: int) -> Task | None:
    """Says what is to be done for a visitor now; None if nothing is."""
    visit = visitor.visit
    if not visitor.keeps_up:
        return None
    if visit is None:
        return Task(visitor, [], due=False)
    due = visit.playing and tick >= visitor.next_tick
    if not due and not visitor.commands:
        return None
    commands, visitor.commands = visitor.commands, []
    if due:
        period = TICKS_PER_SECOND // visit.fps
        visitor.next_tick = (tick // period + 1) * period  # the same moments for all of the same speed
    return Task(visitor, commands, due)


def _follow(visit: Visit, command: Command) -> str | None:
    try:
        visit.follow(command)
    except RnemWorldError as error:
        return write_text("refused", message=" ".join(str(error).split()))
    return None

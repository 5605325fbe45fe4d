"""A turn: what some visitors want is done, and their dreams are stepped and drawn together, in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rnem_world.errors import RnemWorldError
from rnem_world.play.imagining import Imagining, View
from rnem_world.play.lanes import DreamMoment
from rnem_world.play.messages import Command, LaneName, write_text
from rnem_world.play.visit import Visit


@dataclass(frozen=True)
class Task:
    """What a turn has to do for a visitor.

    Attributes:
        visit: Its dreams.
        commands: What it wants, in this order.
        due: Whether it is time for the next frame, if time goes on.
    """

    visit: Visit
    commands: Sequence[Command] = ()
    due: bool = False


def make_turn(imagining: Imagining, tasks: Sequence[Task]) -> list[list[str | bytes]]:
    """Makes a turn.

    Args:
        imagining: Computes the dreams.
        tasks: One for each visitor that something is to be done for.

    Returns:
        The messages for each: what couldn't be done, and the picture of how things stand now.
    """
    messages: list[list[str | bytes]] = [_refusals(task) for task in tasks]
    going = [task.visit for task in tasks if (task.due and task.visit.playing) or task.visit.steps_wanted]
    waiting = [lane for visit in going for lane in visit.go_on()]
    imagined = imagining.advance(
        [lane.moments[-1].dreams for lane in waiting], [lane.action for lane in waiting]
    )
    views: dict[int, View] = {}
    for lane, step in zip(waiting, imagined, strict=True):
        lane.add(DreamMoment(step.dreams, lane.action, step.reward, step.ended))
        views[id(lane)] = step.view
    others = [
        (id(lane), lane.moments[task.visit.now].dreams)
        for task in tasks
        for lane in task.visit.dreams.values()
        if id(lane) not in views
    ]
    looked = imagining.look([dreams for _, dreams in others])
    views |= {lane: view for (lane, _), view in zip(others, looked, strict=True)}
    for task, some in zip(tasks, messages, strict=True):
        shown: dict[LaneName, View] = {name: views[id(lane)] for name, lane in task.visit.dreams.items()}
        some.append(task.visit.picture(shown))
    return messages


def _refusals(task: Task) -> list[str | bytes]:
    """Does what a visitor wants, and says what couldn't be done and why."""
    refusals: list[str | bytes] = []
    for command in task.commands:
        try:
            task.visit.follow(command)
        except RnemWorldError as error:
            refusals.append(write_text("refused", message=" ".join(str(error).split())))
    return refusals

"""One visitor's dreams: the dream, a branch of it that goes another way, and the real environment, all in one time.

A visit does what commands ask for and keeps what has been; `rnem_world.play.turns` steps and draws the dreams of many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rnem_world.actions import ActionSpace
from rnem_world.envs.dream import DreamsSnapshot
from rnem_world.envs.editing import Remove as RemoveEdit
from rnem_world.envs.editing import Transplant
from rnem_world.envs.placing import PAST_STEPS, Put
from rnem_world.errors import ConfigError, RnemWorldError
from rnem_world.play import messages
from rnem_world.play.imagining import Imagining, View, emptiest_slot
from rnem_world.play.lanes import DreamMoment, Lane
from rnem_world.play.messages import Command, LaneName, read_action, write_picture
from rnem_world.play.reality import Reality, RealMoment

HISTORY, FORGOTTEN = 900, 50
"""Steps back that can be gone to, half a minute, some 10 kB each; and how many are forgotten at once beyond that."""

MOST_UNDONE = 16


class Visit:
    """One visitor's dreams.

    Attributes:
        playing: Whether time goes on by itself.
        fps: At how many frames a second.
        steps_wanted: Steps that were asked for one by one.

    Args:
        imagining: Begins dreams, and changes them.
        make_reality: Makes a real environment.
        seed: Of the first dream, and of those after.
        fps: Frames a second.
    """

    def __init__(
        self, imagining: Imagining, make_reality: Callable[[], Reality], seed: int, fps: int
    ) -> None:
        self._imagining = imagining
        self._make_reality = make_reality
        self._generator = np.random.default_rng(seed)
        self._nothing = nothing(imagining.world.actions)
        self._kept: dict[int, tuple[int, Lane[DreamMoment]]] = {}
        self._reality: Reality | None = None
        self.playing = False
        self.fps = fps
        self.steps_wanted = 0
        self._epoch = self._pictures = 0
        self._begin(seed)

    # What a visit consists of.

    @property
    def dreams(self) -> dict[LaneName, Lane[DreamMoment]]:
        """The lanes that are dreamt."""
        return self._dreams

    @property
    def every_lane(self) -> dict[str, Lane[Any]]:
        """All lanes, the real one among them."""
        lanes: dict[str, Lane[Any]] = {name: lane for name, lane in self._dreams.items()}
        return lanes if self._real is None else {**lanes, "real": self._real}

    @property
    def now(self) -> int:
        """Where in the lanes' moments the visitor is."""
        return self._now

    @property
    def all_ended(self) -> bool:
        """Whether no lane can go on from now."""
        return all(lane.moments[self._now].ended for lane in self.every_lane.values())

    def _begin(self, seed: int) -> None:
        """Begins a new dream, beside the real environment if that is shown."""
        real: Lane[RealMoment] | None = None
        if self._reality is not None:
            frames, actions, moment = self._reality.begin(seed)
            dreams = self._imagining.watched(frames, actions)
            real = Lane.beginning(moment, self._nothing)
        else:
            dreams = self._imagining.begin(seed)
        self._seed, self._begun, self._real = seed, dreams, real
        self._live_on(Lane.beginning(DreamMoment(dreams), self._nothing), 0)

    def _live_on(self, lane: Lane[DreamMoment], time: int) -> None:
        """Makes a lane the only dream; its last moment is now."""
        self._dreams: dict[LaneName, Lane[DreamMoment]] = {"dream": lane}
        self._now = len(lane.moments) - 1
        self._first = time - self._now
        self._undone: list[tuple[Lane[DreamMoment], int, Lane[DreamMoment]]] = []
        self._epoch += 1

    # What a visitor wants.

    def follow(self, command: Command) -> None:
        """Does what the visitor wants.

        Raises:
            RnemWorldError: If that isn't possible now; then nothing has changed.
        """
        match command:
            case messages.Act(action, name):
                lane = self._lane(name)
                lane.action, lane.replays = action, False
            case messages.Play(on):
                self.playing = on and not self.all_ended
            case messages.Step():
                self.playing = False
                self.steps_wanted = min(self.steps_wanted + 1, 1)
            case messages.Speed(fps):
                self.fps = fps
            case messages.Seek(time):
                self._go_to(time)
            case messages.Begin(seed):
                self._begin(int(self._generator.integers(2**31)) if seed is None else seed)
            case messages.Remove() | messages.Place() | messages.Exchange():
                self._change(self._lane(command.lane), command)
            case messages.Undo():
                self._undo()
            case messages.Branch(on, keep):
                self._branch(on, keep)
            case messages.Real(on):
                self._show_reality(on)
            case messages.Keep(number):
                self._kept[number] = (
                    self._first + self._now,
                    self._dreams["dream"].until(self._now, PAST_STEPS),
                )
            case messages.Return(number):
                if number not in self._kept:
                    raise ConfigError(f"no moment was kept as number {number}")
                self._drop_reality()
                time, kept = self._kept[number]
                self._live_on(kept.until(len(kept.moments) - 1), time)
                self.playing = False

    def _lane(self, name: LaneName) -> Lane[DreamMoment]:
        if name not in self._dreams:
            raise ConfigError("there is no second dream: branch one first")
        return self._dreams[name]

    @property
    def _last(self) -> int:
        return min(len(lane.moments) for lane in self.every_lane.values()) - 1

    def _go_to(self, time: int) -> None:
        self._now = min(max(time - self._first, 0), self._last)
        self.playing = False

    def _change(
        self, lane: Lane[DreamMoment], wanted: messages.Remove | messages.Place | messages.Exchange
    ) -> None:
        here = lane.moments[self._now]
        match wanted:
            case messages.Remove(slot):
                dreams = self._without(here.dreams, slot)
            case messages.Place(slot, x, y, copy):
                dreams = self._put(lane, [Put(slot, self._free_slot(here) if copy else slot, x, y)])
            case messages.Exchange(first, second):
                places = self._imagining.look([here.dreams])[0].slots[:, :2].tolist()
                there, back = places[second], places[first]
                dreams = self._put(lane, [Put(first, first, *there), Put(second, second, *back)])
        before = Lane(lane.moments[self._now :], lane.totals[self._now :], lane.action)
        self._undone = [*self._undone[1 - MOST_UNDONE :], (lane, self._first + self._now, before)]
        lane.cut(self._now)
        lane.moments[self._now] = replace(here, dreams=dreams, changed=True)

    def _without(self, dreams: DreamsSnapshot, slot: int) -> DreamsSnapshot:
        """Takes an object out; where no slot is empty any more, its own becomes like one that was at the beginning."""
        try:
            return self._imagining.edit(dreams, RemoveEdit(slot))
        except ConfigError:
            empty = emptiest_slot(self._imagining.look([self._begun])[0])
            if empty is None:
                raise
            return self._imagining.edit(dreams, Transplant(self._begun, empty, slot))

    def _free_slot(self, moment: DreamMoment) -> int:
        slot = emptiest_slot(self._imagining.look([moment.dreams])[0])
        if slot is None:
            raise ConfigError(
                f"all {self._imagining.slots} slots have an object: remove one first, or start with --slots "
                f"{self._imagining.slots + 1}"
            )
        return slot

    def _put(self, lane: Lane[DreamMoment], puts: list[Put]) -> DreamsSnapshot:
        past = lane.led_here(self._now, PAST_STEPS)
        actions = [moment.action for moment in past[1:] if moment.action is not None]
        return self._imagining.put([moment.dreams for moment in past], actions, puts)

    def _undo(self) -> None:
        if not self._undone:
            raise ConfigError("nothing was changed that could be taken back")
        lane, time, before = self._undone.pop()
        index = time - self._first
        there = any(lane is each for each in self._dreams.values())
        if not there or not 0 <= index < len(lane.moments):
            raise ConfigError("the change is too long ago to be taken back")
        lane.moments[index:], lane.totals[index:] = before.moments, before.totals
        self._go_to(time)

    def _branch(self, on: bool, keep: bool) -> None:
        branch = self._dreams.pop("branch", None)
        if on:
            for lane in self.every_lane.values():  # what was, once more, beside what could have been
                lane.replays = len(lane.moments) > self._now + 1
            self._dreams["branch"] = self._dreams["dream"].until(self._now)
        elif keep and branch is not None:
            self._drop_reality()  # it went the way of the dream that is let go
            self._dreams["dream"] = branch
        self._now = min(self._now, self._last)

    def _show_reality(self, on: bool) -> None:
        if not on:
            self._drop_reality()
        elif self._reality is None:
            self._reality = self._make_reality()
            try:
                self._begin(self._seed)
            except RnemWorldError:
                self._drop_reality()
                raise

    def _drop_reality(self) -> None:
        if self._reality is not None:
            self._reality.close()
        self._reality = self._real = None

    # How time goes on.

    def go_on(self) -> list[Lane[DreamMoment]]:
        """Goes one step on, but for what has to be imagined for it.

        Returns:
            The lanes to which their next moment has to be added.
        """
        self.steps_wanted = 0
        if self.all_ended:
            self.playing = False
            return []
        if self._now >= HISTORY + FORGOTTEN:
            self._forget()
        waiting = []
        for lane in self.every_lane.values():
            lane.replays = lane.replays and len(lane.moments) > self._now + 1
            if lane.replays:
                continue
            lane.cut(self._now)
            if lane.moments[-1].ended:
                lane.stand()
            elif lane is self._real:
                self._step_reality(lane)
            else:
                waiting.append(lane)
        self._now += 1
        return waiting

    def _step_reality(self, lane: Lane[RealMoment]) -> None:
        if self._reality is not None:
            self._reality.go_to(lane.moments)
            lane.add(self._reality.step(self._dreams["dream"].action))

    def _forget(self) -> None:
        number = FORGOTTEN
        while self._real is not None and not self._real.moments[number].is_copied:
            number -= 1  # the first one left has to have a copy of the environment
        for lane in self.every_lane.values():
            lane.forget(number)
        self._now, self._first = self._now - number, self._first + number

    # What is shown.

    def picture(self, views: Mapping[LaneName, View]) -> bytes:
        """Writes the message that shows how things stand.

        Args:
            views: What the dreams look like now.
        """
        self._pictures += 1
        lanes: list[dict[str, Any]] = []
        pixels: list[NDArray[np.uint8]] = []
        for name, lane in self.every_lane.items():
            moment = lane.moments[self._now]
            lanes.append(
                {
                    "name": name,
                    "action": None if moment.action is None else moment.action.tolist(),
                    "reward": round(moment.reward, 4),
                    "total": round(lane.totals[self._now], 4),
                    "ended": moment.ended,
                    "replays": lane.replays,
                    "changed": getattr(moment, "changed", False),
                }
            )
            if isinstance(moment, RealMoment):
                pixels.append(moment.frame)
                continue
            view = views[_dream(name)]
            lanes[-1] |= {
                "slots": view.slots.astype(np.float64).round(2).tolist(),
                "attention": _rounded(view.attention),
                "uncertainty": round(view.uncertainty, 4),
            }
            pixels += [view.frame, view.owner, view.share]
        header = {
            "picture": self._pictures,
            "epoch": self._epoch,
            "time": self._first + self._now,
            "first": self._first,
            "last": self._first + self._last,
            "playing": self.playing,
            "fps": self.fps,
            "seed": self._seed,
            "undo": bool(self._undone),
            "lanes": lanes,
        }
        return write_picture(header, pixels)

    def close(self) -> None:
        """Lets all go."""
        self._drop_reality()
        self._dreams.clear()
        self._kept.clear()
        self._undone.clear()


def _dream(name: str) -> Literal["dream", "branch"]:
    return "branch" if name == "branch" else "dream"


def _rounded(attention: NDArray[Any] | None) -> list[list[float]] | None:
    return None if attention is None else attention.astype(np.float64).round(3).tolist()


def nothing(known: ActionSpace) -> NDArray[Any]:
    """Gives the stored action that is done until a visitor chooses one: 0, or what is nearest to it within bounds."""
    return read_action(0 if known.is_discrete else [0] * known.length, known)

"""A visit: what a visitor can do to time and to objects."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pages import read_picture

from rnem_world.errors import ConfigError
from rnem_world.play import messages, visit
from rnem_world.play.facts import facts_of
from rnem_world.play.imagining import Imagining
from rnem_world.play.reality import Reality
from rnem_world.play.turns import Task, make_turn
from rnem_world.play.visit import Visit

ACTIONS = [3, 3, 1, 0, 7, 7, 5, 2]


class Player:
    """A visit whose turns are made here, one command each."""

    def __init__(self, imagining: Imagining, seed: int = 0) -> None:
        self.imagining = imagining
        self.facts = facts_of(imagining)
        self.visit = Visit(imagining, lambda: Reality(imagining.world), seed, 30)
        self.refused: list[str] = []

    def do(self, *commands, due: bool = False):
        (sent,) = make_turn(self.imagining, [Task(self.visit, commands, due)])
        self.refused += [json.loads(text)["message"] for text in sent[:-1]]
        return read_picture(sent[-1], self.facts)

    def act(self, actions, lane="dream"):
        return [self.do(messages.Act(np.array(action), lane), messages.Step()) for action in actions]


@pytest.fixture
def player(imagining) -> Player:
    return Player(imagining)


def frames(pictures, lane="dream"):
    return np.stack([picture["lanes"][lane]["frame"] for picture in pictures])


def object_of(picture, lane="dream") -> int:
    """The slot with the most pixels."""
    return int(np.argmax([slot[2] for slot in picture["lanes"][lane]["slots"]]))


def number_of_objects(picture, lane="dream") -> int:
    return sum(slot[2] > 5 for slot in picture["lanes"][lane]["slots"])


def free_place(picture) -> tuple[float, float]:
    slots = [slot for slot in picture["lanes"]["dream"]["slots"] if slot[2] > 5]
    places = [(float(x), float(y)) for x in range(6, 27) for y in range(6, 27)]
    return max(places, key=lambda place: min(np.hypot(place[0] - s[0], place[1] - s[1]) for s in slots))


def test_a_dream_goes_on_only_when_it_is_due_and_playing(player):
    assert player.do(due=True)["time"] == 0
    player.do(messages.Play(True))
    assert player.do(due=False)["time"] == 0
    assert player.do(due=True)["time"] == 1
    player.do(messages.Play(False))
    assert player.do(due=True)["time"] == 1


def test_going_back_and_doing_the_same_shows_the_same(player):
    first = player.act(ACTIONS)
    back = player.do(messages.Seek(3))
    assert back["time"] == 3
    np.testing.assert_array_equal(back["lanes"]["dream"]["frame"], first[2]["lanes"]["dream"]["frame"])
    assert back["lanes"]["dream"]["total"] == first[2]["lanes"]["dream"]["total"]
    again = player.act(ACTIONS[3:])
    np.testing.assert_array_equal(frames(again), frames(first[3:]))
    assert again[-1]["lanes"]["dream"]["total"] == first[-1]["lanes"]["dream"]["total"]


def test_other_actions_lead_elsewhere(player):
    first = player.act([3] * 8)
    player.do(messages.Seek(0))
    assert (frames(player.act([7] * 8))[-1] != frames(first)[-1]).any()


def test_the_same_seed_begins_the_same_dream(player, imagining):
    first = player.act(ACTIONS)
    other = Player(imagining, seed=0).act(ACTIONS)
    np.testing.assert_array_equal(frames(first), frames(other))
    seed = first[0]["seed"]
    player.do(messages.Begin())
    assert player.do()["seed"] != seed
    player.do(messages.Begin(seed))
    np.testing.assert_array_equal(frames(player.act(ACTIONS)), frames(first))


def test_removing_an_object_and_taking_it_back(player):
    before = player.act(ACTIONS)[-1]
    slot = object_of(before)
    gone = player.do(messages.Remove(slot))
    assert gone["lanes"]["dream"]["slots"][slot][2] < 5
    assert number_of_objects(gone) == number_of_objects(before) - 1
    assert gone["undo"]
    after = player.act([0] * 5)[-1]
    assert number_of_objects(after) == number_of_objects(before) - 1
    back = player.do(messages.Undo())
    assert back["time"] == before["time"]
    np.testing.assert_array_equal(back["lanes"]["dream"]["frame"], before["lanes"]["dream"]["frame"])
    assert not back["undo"]
    player.do(messages.Undo())
    assert "nothing" in player.refused[-1]


@pytest.mark.parametrize("steps", [0, 8])
def test_a_copy_lies_where_it_was_put_and_lives_on(player, steps):
    before = player.act(ACTIONS[:steps])[-1] if steps else player.do()
    (x, y), slot = free_place(before), object_of(before)
    copied = player.do(messages.Place(slot, x, y))
    assert player.refused == []
    assert number_of_objects(copied) == number_of_objects(before) + 1
    slots = np.array(copied["lanes"]["dream"]["slots"])
    assert np.hypot(*(slots[:, :2] - (x, y)).T).min() < 2.5
    others = np.array(before["lanes"]["dream"]["slots"])[:, 2] > 5
    np.testing.assert_allclose(
        slots[others, :2], np.array(before["lanes"]["dream"]["slots"])[others, :2], atol=1.0
    )
    assert number_of_objects(player.act([0] * 6)[-1]) == number_of_objects(copied)


def test_without_a_free_slot_a_copy_is_refused(player):
    for _ in range(2):
        picture = player.do()
        copied = player.do(messages.Place(object_of(picture), *free_place(picture)))
    assert "remove one first" in player.refused[-1]
    assert number_of_objects(copied) == 5


def test_where_no_slot_is_empty_any_more_objects_can_be_removed_all_the_same(player):
    before = player.act(ACTIONS)[-1]
    slot = object_of(before)
    full = player.do(messages.Place(slot, *free_place(before)))
    assert number_of_objects(full) == 5
    gone = player.do(messages.Remove(slot))
    assert player.refused == []
    assert number_of_objects(gone) == 4
    assert gone["lanes"]["dream"]["slots"][slot][2] < 5
    assert number_of_objects(player.act([0] * 6)[-1]) == 4


def test_a_moved_object_leaves_its_place(player):
    before = player.act(ACTIONS)[-1]
    (x, y), slot = free_place(before), object_of(before)
    moved = player.do(messages.Place(slot, x, y, copy=False))
    assert player.refused == []
    assert number_of_objects(moved) == number_of_objects(before)
    assert np.hypot(*np.subtract(moved["lanes"]["dream"]["slots"][slot][:2], (x, y))) < 2.5


def test_two_objects_change_places(player):
    before = player.act(ACTIONS)[-1]["lanes"]["dream"]["slots"]
    first, second = sorted(range(5), key=lambda slot: -before[slot][2])[:2]
    after = player.do(messages.Exchange(first, second))["lanes"]["dream"]["slots"]
    assert player.refused == []
    assert np.hypot(*np.subtract(after[first][:2], before[second][:2])) < 3
    assert np.hypot(*np.subtract(after[second][:2], before[first][:2])) < 3


def test_a_branch_under_the_same_actions_is_the_same_and_under_others_is_not(player):
    player.act(ACTIONS)
    branched = player.do(messages.Branch(True))
    assert set(branched["lanes"]) == {"dream", "branch"}
    for action in ACTIONS:
        player.do(messages.Act(np.array(action), "branch"))
        (same,) = player.act([action])
    np.testing.assert_array_equal(same["lanes"]["dream"]["frame"], same["lanes"]["branch"]["frame"])
    player.do(messages.Act(np.array(5), "branch"))
    other = player.act([1] * 8)[-1]
    assert (other["lanes"]["dream"]["frame"] != other["lanes"]["branch"]["frame"]).any()
    kept = player.do(messages.Branch(False, keep=True))
    assert set(kept["lanes"]) == {"dream"}
    np.testing.assert_array_equal(kept["lanes"]["dream"]["frame"], other["lanes"]["branch"]["frame"])


def test_beside_a_branch_from_the_past_the_dream_is_lived_once_more(player):
    first = player.act(ACTIONS)
    player.do(messages.Seek(2))
    assert player.do(messages.Branch(True))["lanes"]["dream"]["replays"]
    player.do(messages.Act(np.array(5), "branch"))
    again = [player.do(messages.Step()) for _ in ACTIONS[2:]]
    np.testing.assert_array_equal(frames(again), frames(first[2:]))
    assert (frames(again, "branch") != frames(first[2:])).any()
    further = player.act([1])[-1]
    assert not further["lanes"]["dream"]["replays"]


def test_changing_one_dream_leaves_the_other(player):
    player.act(ACTIONS)
    before = player.do(messages.Branch(True))
    after = player.do(messages.Remove(object_of(before), "branch"))
    assert number_of_objects(after, "branch") == number_of_objects(after) - 1
    player.do(messages.Remove(0, "branch"))
    ended = player.do(messages.Branch(False))
    assert number_of_objects(ended) == number_of_objects(before)
    player.do(messages.Act(np.array(1), "branch"))
    assert "branch one first" in player.refused[-1]


def test_a_kept_moment_can_be_returned_to_from_another_dream(player):
    kept = player.act(ACTIONS)[-1]
    player.do(messages.Keep(3))
    player.do(messages.Begin())
    player.act([1] * 3)
    back = player.do(messages.Return(3))
    assert back["time"] == kept["time"]
    np.testing.assert_array_equal(back["lanes"]["dream"]["frame"], kept["lanes"]["dream"]["frame"])
    player.do(messages.Return(4))
    assert "no moment was kept" in player.refused[-1]


def test_what_has_been_is_forgotten_in_time(player, monkeypatch):
    history, forgotten = 40, 15
    monkeypatch.setattr(visit, "HISTORY", history)
    monkeypatch.setattr(visit, "FORGOTTEN", forgotten)
    player.do(messages.Real(True))
    player.do(messages.Play(True))
    steps = history + 2 * forgotten + 5
    for _ in range(steps):
        picture = player.do(due=True)
    assert history <= picture["last"] - picture["first"] <= history + forgotten
    assert picture["last"] == picture["time"] == steps
    oldest = player.do(messages.Seek(0))
    assert oldest["time"] == oldest["first"] > 0
    assert player.act([1])[-1]["time"] == oldest["first"] + 1  # the real environment can go on from there too


def test_the_real_environment_begins_with_the_dream_and_gets_the_same_actions(player):
    begun = player.do(messages.Real(True))
    assert set(begun["lanes"]) == {"dream", "real"}
    shows = begun["lanes"]["dream"]["frame"] > 0, begun["lanes"]["real"]["frame"] > 0
    assert (shows[0] & shows[1]).sum() > 0.8 * (shows[0] | shows[1]).sum()
    first = player.act(ACTIONS)
    player.do(messages.Seek(0))
    np.testing.assert_array_equal(frames(player.act(ACTIONS), "real"), frames(first, "real"))
    player.do(messages.Seek(0))
    assert (frames(player.act([5] * 8), "real")[-1] != frames(first, "real")[-1]).any()
    assert set(player.do(messages.Real(False))["lanes"]) == {"dream"}


def test_many_visits_in_one_turn_go_the_same_way_as_each_alone(imagining):
    players = [Player(imagining, seed=seed) for seed in range(7)]
    tasks = [Task(player.visit, [messages.Play(True)], due=True) for player in players]
    for step in range(5):
        sent = make_turn(imagining, tasks if step == 0 else [Task(t.visit, (), due=True) for t in tasks])
    for seed, player in enumerate(players):
        together = read_picture(sent[seed][-1], player.facts)
        alone = Player(imagining, seed=seed).act([0] * 5)[-1]
        np.testing.assert_array_equal(together["lanes"]["dream"]["frame"], alone["lanes"]["dream"]["frame"])


def test_a_game_that_is_over_stands_still(player, monkeypatch):
    advance = player.imagining.advance

    def ending(dreams, actions):
        from dataclasses import replace

        return [replace(step, ended=True) for step in advance(dreams, actions)]

    monkeypatch.setattr(player.imagining, "advance", ending)
    player.do(messages.Play(True))
    over = player.do(due=True)
    assert over["lanes"]["dream"]["ended"]
    still = player.do(due=True)
    assert (still["time"], still["playing"]) == (over["time"], False)


def test_unknown_slots_are_refused_by_the_world_itself(imagining):
    from rnem_world.envs.placing import Put

    with pytest.raises(ConfigError, match="slot that isn't there"):
        imagining.put([imagining.begin(0)], [], [Put(0, 9, 5.0, 5.0)])

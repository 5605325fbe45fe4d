"""Worlds of other kinds: colours, real-valued actions, environments that can't be copied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dreamers import write_world_of
from test_visit import Player, frames

from rnem_world.envs.starts import Starts, write_starts
from rnem_world.envs.world import World
from rnem_world.play import messages
from rnem_world.play.facts import facts_of
from rnem_world.play.imagining import NOBODY, Imagining
from rnem_world.play.reality import Reality


def world_of(folder: Path, environment: str) -> World:
    """A random world of an environment, with starts that nobody has to play."""
    write_world_of(folder, environment, slots=3, hidden_size=16, attention_size=8)
    world = World.load(folder)
    generator = np.random.default_rng(0)
    seen = generator.integers(256, size=(2, 3, *world.frame_shape)).astype(np.uint8)
    if world.model.likelihood.is_binary:
        seen = seen > 127
    done = np.stack([world.actions.encode(np.stack([world.action_space.sample()] * 2)) for _ in range(2)])
    write_starts(folder / "starts.npz", Starts.pack(seen, done))
    return world


@pytest.fixture(scope="module", params=["Pendulum-v1", "CartPole-v1"])
def player(request, tmp_path_factory) -> Player:
    pytest.importorskip("pygame")
    return Player(Imagining(world_of(tmp_path_factory.mktemp("world"), request.param)))


def test_pictures_have_the_worlds_own_shape(player):
    shape = player.imagining.world.frame_shape
    lane = player.do(messages.Begin(1))["lanes"]["dream"]
    assert lane["frame"].shape == shape
    assert set(np.unique(lane["owner"])) <= {0, 1, 2, NOBODY}
    assert lane["uncertainty"] >= 0.0


def test_facts_tell_of_the_actions(player):
    actions = facts_of(player.imagining)["actions"]
    if player.imagining.world.actions.kind == "box":
        assert actions == {"kind": "box", "low": [-2.0], "high": [2.0]}
    else:
        assert actions == {"kind": "discrete", "names": ["action 0", "action 1"]}


def test_actions_are_followed(player):
    world = player.imagining.world
    some = messages.read_action([1.5] if world.actions.kind == "box" else 1, world.actions)
    player.do(messages.Begin(1))
    first = player.act([some] * 3)
    player.do(messages.Seek(0))
    np.testing.assert_array_equal(frames(player.act([some] * 3)), frames(first))
    assert first[-1]["lanes"]["dream"]["action"] == some.tolist()


def test_an_environment_that_cannot_be_copied_is_gone_back_in_all_the_same(player):
    world = player.imagining.world
    reality = Reality(world)
    seen, between, begun = reality.begin(3)
    assert seen.shape[1:] == world.frame_shape
    assert len(between) == len(seen) - 1
    np.testing.assert_array_equal(seen[-1], begun.frame)
    is_box = world.actions.kind == "box"
    low, high = (
        messages.read_action([value] if is_box else int(value > 0), world.actions) for value in (-1.0, 1.0)
    )
    lane = [begun]
    for action in (low, high, low, low):
        lane.append(reality.step(action))
    reality.go_to(lane[:3])
    again = reality.step(low)
    np.testing.assert_array_equal(again.frame, lane[3].frame)
    assert (again.reward, again.number) == (lane[3].reward, lane[3].number)
    other = [reality.step(high) for _ in range(3)]
    assert (other[-1].frame != lane[4].frame).any()
    reality.close()

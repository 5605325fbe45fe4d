"""Whether dreams obey is measured by what two players of one environment have done differently."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import own_environments
import pytest
import torch
from dreamers import write_world, write_world_of
from gymnasium import spaces

from rnem_world.actions import ActionSpace
from rnem_world.agents import obedience
from rnem_world.agents.base import RandomAgent, StayAgent
from rnem_world.agents.obedience import HoldAgent, ObedienceConfig, OppositeAgent, measure_obedience
from rnem_world.agents.twins import other_actions, play_twins
from rnem_world.envs.world import World
from rnem_world.errors import ConfigError, DataError

SPACES = {
    "discrete": spaces.Discrete(5, start=2),
    "multi_discrete": spaces.MultiDiscrete([3, 2, 4]),
    "multi_binary": spaces.MultiBinary(3),
    "box": spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32)),
}


class Fickle(own_environments.Wide):
    """Whose frames nobody can repeat."""

    count = 0

    def _shown(self, action=(0.0, 0.0)):
        Fickle.count += 1
        frame = super()._shown(action)
        frame[0, 0] = (Fickle.count % 256, Fickle.count // 256, 0)
        return frame


gymnasium.register("Own/Fickle-v0", Fickle)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("worlds")
    names = ("Wide", "Masks", "Fickle")
    return {name: write_world_of(place / name, f"own_environments:Own/{name}-v0") for name in names}


def players(world: World, kind=RandomAgent, seed: int = 0):
    return lambda env: kind(world.actions, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", SPACES)
def test_other_actions_differ_in_every_number_and_are_actions(kind):
    space = ActionSpace.of(SPACES[kind])
    agent = RandomAgent(space, np.random.default_rng(0))
    given = space.encode(agent.act(np.zeros((500, 1))))
    shifts = np.random.default_rng(1).random((500, space.length))
    others = other_actions(given, space, shifts)
    assert others.dtype == space.stored_dtype
    assert all(SPACES[kind].contains(action) for action in space.decode(others))
    if kind == "box":
        apart = np.abs(others - given) / (SPACES[kind].high - SPACES[kind].low)
        assert apart.min() > 0.24
    else:
        assert (others != given).all()
        assert len(np.unique(others, axis=0)) == np.prod(space.sizes)


def test_real_numbers_with_one_bound_or_none_have_others_within_it():
    low, high = np.array([1.0, -np.inf, 5.0, -np.inf]), np.array([np.inf, 1.0, np.inf, np.inf])
    space = ActionSpace.of(spaces.Box(low, high, dtype=np.float64))
    given = space.encode(RandomAgent(space, np.random.default_rng(0)).act(np.zeros((400, 1))))
    assert ((given >= low) & (given <= high)).all()
    assert given.std(axis=0).min() > 0.5
    others = other_actions(given, space, np.random.default_rng(1).random((400, 4)))
    assert np.isfinite(others).all()
    assert ((others >= low) & (others <= high)).all()
    assert (np.abs(others - given) > 0.1).mean() > 0.8


def test_a_single_action_has_no_other():
    space = ActionSpace.of(spaces.MultiDiscrete([1, 3]))
    others = other_actions(np.zeros((9, 2), np.int64), space, np.random.default_rng(0).random((9, 2)))
    assert not others[:, 0].any()
    assert others[:, 1].all()


def test_twins_differ_after_the_context_and_only_by_what_they_did(worlds):
    world = World.load(worlds["Wide"])
    found = play_twins(world, players(world), 5, lead=2, context=3, horizon=4, seed=7)
    assert found.frames.shape == (7, 5, 36, 64, 3)
    assert found.others.shape[:2] == (4, 5)
    assert found.lasts.all()
    for time in range(6):
        for row, action in enumerate(found.actions[time]):
            frame = own_environments.Wide._shown(None, action)
            np.testing.assert_array_equal(found.frames[time + 1, row], frame)
            if time >= 2:
                assert (found.others[time - 2, row] != frame).any()


def test_episodes_that_end_are_followed_to_their_end_and_no_further(worlds):
    world = World.load(worlds["Masks"])  # whose episodes have 8 frames
    found = play_twins(world, players(world), 4, lead=2, context=3, horizon=6, seed=0)
    assert found.lasts.shape == (9, 4)
    np.testing.assert_array_equal(found.lasts.all(axis=1), [True] * 6 + [False] * 3)
    np.testing.assert_array_equal(found.terminations[:6].all(axis=1), [False] * 4 + [True, False])
    assert play_twins(world, players(world), 4, lead=6, context=3, horizon=1, seed=0).frames.shape[1] == 0


def test_an_environment_that_cannot_be_repeated_is_refused(worlds):
    world = World.load(worlds["Fickle"])
    with pytest.raises(DataError, match="shows different things with the same seeds"):
        play_twins(world, players(world), 3, lead=0, context=3, horizon=2, seed=0)


@pytest.mark.parametrize("obeys", [True, False])
def test_a_dream_that_does_what_the_twin_did_has_nothing_right(worlds, monkeypatch, obeys):
    world = World.load(worlds["Wide"])
    kept = []

    def play(*arguments, **options):
        kept.append(play_twins(*arguments, **options))
        return kept[-1]

    def dreamt(world, truth, context, horizon, imagination):
        frames = [part.frames[context:] if obeys else part.others for part in kept[-len(obedience.LEADS) :]]
        frames = np.concatenate([part for part in frames if part.size], axis=1)
        return obedience._as_seen(world, frames.swapaxes(0, 1))

    monkeypatch.setattr(obedience, "play_twins", play)
    monkeypatch.setattr(obedience, "_dreamt", dreamt)
    monkeypatch.setattr(obedience, "LEADS", (0, 2, 4))
    config = ObedienceConfig(3, 3, 6, "random")
    for each in measure_obedience(world, config):
        assert each.steered == each.steered_exact == [float(obeys)] * 3
        assert each.player in ("hold", "stay") or max(each.steered_copy) < 0.9
        assert each.figures.horizon == 3


def test_who_plays():
    space = ActionSpace.of(SPACES["discrete"])
    held = HoldAgent(space, np.random.default_rng(0))
    held.reset(50)
    first = held.act(None)
    assert len(np.unique(first)) == 5
    np.testing.assert_array_equal(held.act(None), first)
    begun = np.arange(50) < 25
    held.restart(begun)
    np.testing.assert_array_equal(held.act(None)[25:], first[25:])
    assert (held.act(None)[:25] != first[:25]).any()
    assert OppositeAgent(StayAgent(space, np.random.default_rng(0)), space).act(np.zeros(2)).tolist() == [
        6,
        6,
    ]
    box = ActionSpace.of(SPACES["box"])
    opposite = OppositeAgent(StayAgent(box, np.random.default_rng(0)), box)
    assert opposite.act(np.zeros(1)).tolist() == [[0.0, 1.0]]


def run_left(observation):
    return np.array([-1.0, 0.0], np.float32)


def test_the_datas_players_come_first_and_the_opposite_is_done_of_who_knows_what_to_do(
    worlds, rnem, tmp_path
):
    out = tmp_path / "figures.json"
    command = ["evaluate", worlds["Wide"], "--obedience", 2, "--sequences", 6, "--context", 3, "--out", out]
    done = rnem(*command, "--players", "test_obedience:run_left")
    assert done.code == 0, done.err
    found = json.loads(out.read_text())["obedience"]
    names = ["test_obedience:run_left", "random", "hold", "stay", "opposite"]
    assert [each["player"] for each in found] == names
    assert all(len(each["steered"]) == 2 for each in found)
    assert "what actions decide, right" in done.out
    assert "channel" not in done.out


def test_worlds_of_balls_know_where_the_player_is(tmp_path):
    world = World.load(write_world(tmp_path / "world"))
    config = ObedienceConfig(2, 4, 3)
    found = measure_obedience(world, config)
    assert [each.player for each in found] == [obedience.USUAL_PLAYERS, "random", "hold", "stay"]
    assert all(len(each.figures.objects.player_errors) == 2 for each in found)
    table = "\n".join(obedience.obedience_table(found))
    assert "player's error, radii" in table
    assert "player within its radius" in table
    within = found[0].figures.objects.player_within
    assert all(0.0 <= value <= 1.0 for value in within)


def test_what_cannot_be_told_is_refused(tmp_path, worlds):
    alone = World.load(write_world(tmp_path / "none", number_of_actions=0))
    with pytest.raises(ConfigError, match="knows no actions to choose from"):
        measure_obedience(alone, ObedienceConfig())
    with pytest.raises(ConfigError, match="horizon"):
        ObedienceConfig(horizon=0)
    with pytest.raises(ConfigError, match="context"):
        ObedienceConfig(context=2)
    with pytest.raises(ConfigError, match="no policy 'randm'"):
        measure_obedience(World.load(worlds["Wide"]), ObedienceConfig(2, 3, 3, "randm"))
    with pytest.raises(DataError, match="give a shorter context"):
        measure_obedience(World.load(worlds["Masks"]), ObedienceConfig(2, 9, 3, "random"))


def test_figures_repeat_with_the_seed(worlds):
    world = World.load(worlds["Masks"])
    table = obedience.obedience_table(measure_obedience(world, ObedienceConfig(2, 3, 3)))
    assert sum(line.startswith("channel ") for line in table) == 5
    measure = partial(measure_obedience, world, ObedienceConfig(2, 3, 6))
    assert [each.as_json() for each in measure()] == [each.as_json() for each in measure()]
    assert torch.is_grad_enabled()

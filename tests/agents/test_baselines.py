from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from rnem_world.actions import ActionSpace
from rnem_world.agents.base import BASELINES, Agent, RandomAgent, RepeatedRandomAgent, StayAgent, baseline
from rnem_world.errors import ConfigError

FRAMES = np.zeros((6, 8, 8, 1), dtype=np.uint8)


def acted(agent, steps: int) -> np.ndarray:
    agent.reset(len(FRAMES))
    return np.stack([agent.act(FRAMES) for _ in range(steps)])


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_baselines_are_agents_and_repeatable(name):
    first = baseline(name, 9, np.random.default_rng(1))
    assert isinstance(first, Agent)
    actions = acted(first, 40)
    assert actions.dtype == np.int64
    assert actions.min() >= 0
    assert actions.max() <= 8
    np.testing.assert_array_equal(actions, acted(baseline(name, 9, np.random.default_rng(1)), 40))


def test_random_draws_every_action_evenly():
    actions = acted(RandomAgent(4, np.random.default_rng(0)), 2000)
    np.testing.assert_allclose(np.bincount(actions.ravel(), minlength=4) / actions.size, 0.25, atol=0.02)
    assert (actions[1:] == actions[:-1]).mean() == pytest.approx(0.25, abs=0.02)


def test_repeated_random_holds_actions_for_3_to_5_steps_each_environment_by_itself():
    # With so many actions two draws in a row are never the same.
    actions = acted(RepeatedRandomAgent(10**9, np.random.default_rng(0)), 300)
    lengths = []
    for column in actions.T:
        changes = np.flatnonzero(np.diff(column)) + 1
        lengths.extend(np.diff([0, *changes]).tolist())
    assert set(lengths) == {3, 4, 5}
    np.testing.assert_allclose(np.bincount(lengths)[3:] / len(lengths), 1 / 3, atol=0.1)
    assert (np.diff(actions[:, 0]) != 0).tolist() != (np.diff(actions[:, 1]) != 0).tolist()


def test_stay_stays():
    assert not acted(StayAgent(9, np.random.default_rng(0)), 5).any()


def test_a_new_reset_forgets_what_was_held():
    agent = RepeatedRandomAgent(10**9, np.random.default_rng(0))
    before = acted(agent, 1)
    assert (acted(agent, 1) != before).all()


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match="number of actions"):
        RandomAgent(0, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="did you mean 'random'"):
        baseline("randm", 9, np.random.default_rng(0))


@pytest.mark.parametrize("name", BASELINES)
def test_actions_may_begin_anywhere_and_observations_have_names(name):
    agent = baseline(name, ActionSpace.discrete(3, start=4), np.random.default_rng(0))
    agent.reset(5)
    seen = {"place": np.zeros((5, 2)), "time": np.zeros(5)}
    chosen = np.stack([agent.act(seen) for _ in range(40)])
    assert chosen.shape == (40, 5)
    assert set(chosen.flatten().tolist()) == ({4} if name == "stay" else {4, 5, 6})
    plain = baseline(name, 3, np.random.default_rng(0))
    plain.reset(5)
    np.testing.assert_array_equal(chosen, 4 + np.stack([plain.act(np.zeros((5, 2))) for _ in range(40)]))


SPACES = {
    "multi_discrete": spaces.MultiDiscrete([3, 2], start=[1, 0]),
    "grid of choices": spaces.MultiDiscrete([[2, 3], [4, 5]]),
    "multi_binary": spaces.MultiBinary(3),
    "box": spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 5.0], np.float32)),
    "box of whole numbers": spaces.Box(0, 7, (2, 2), np.uint8),
    "no bounds": spaces.Box(-np.inf, np.inf, (2,), np.float64),
}


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("name", BASELINES)
def test_actions_of_every_kind_are_those_of_the_environment(name, kind):
    space = SPACES[kind]
    agent = baseline(name, ActionSpace.of(space), np.random.default_rng(0))
    chosen = acted(agent, 60)
    assert chosen.shape == (60, 6, *space.shape)
    assert all(space.contains(action) for action in chosen.reshape(-1, *space.shape))
    if name == "stay":
        assert len(np.unique(chosen.reshape(360, -1), axis=0)) == 1
    elif kind in ("multi_discrete", "multi_binary"):
        flat = chosen.reshape(360, -1)
        assert len(np.unique(flat, axis=0)) == np.prod([len(np.unique(column)) for column in flat.T]) > 5
    elif kind == "box":
        low, high = chosen.min(axis=(0, 1)), chosen.max(axis=(0, 1))
        np.testing.assert_allclose([low, high], [space.low, space.high], atol=0.3)


def test_real_numbers_are_held_together():
    actions = acted(baseline("repeated-random", ActionSpace.of(SPACES["box"]), np.random.default_rng(0)), 50)
    assert set(np.diff(np.flatnonzero(np.diff(actions[:, 0, 0]))).tolist()) <= {3, 4, 5}
    np.testing.assert_array_equal(np.diff(actions[:, 0, 0]) != 0, np.diff(actions[:, 0, 1]) != 0)

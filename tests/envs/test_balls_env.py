from __future__ import annotations

import warnings
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

import rnem_world  # registers the environments
from rnem_world.envs.balls import BouncingBallsEnv, BouncingBallsVectorEnv
from rnem_world.errors import ConfigError
from rnem_world.physics import DIRECTIONS, preset

ENVIRONMENT = "RNEM-BallsReal-v0"
LONE_PLAYER = replace(preset("control"), numbers_of_balls=(1,))


@pytest.mark.parametrize("name", ["control", "stove", "balls678mass64"])
def test_gymnasium_has_nothing_to_complain_about(name):
    assert rnem_world.__version__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ENVIRONMENT, preset=name).unwrapped)


def test_an_episode_has_100_steps():
    env = gymnasium.make(ENVIRONMENT, preset="stove")
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(100)]
    assert ends[:-1] == [(False, False)] * 99
    assert ends[-1] == (False, True)


def test_make_vec_makes_the_batched_environment_and_hands_over_the_limit():
    env = gymnasium.make_vec(ENVIRONMENT, num_envs=3, preset="stove")
    assert isinstance(env, BouncingBallsVectorEnv)
    assert env.max_episode_steps == 100
    assert gymnasium.make_vec(ENVIRONMENT, num_envs=2, max_episode_steps=7).max_episode_steps == 7


@pytest.mark.parametrize("name", ["control", "balls678mass64", "balls3curtain64"])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_batched_is_equal_to_single_over_episodes(name, mode):
    rules = preset(name)
    batched = BouncingBallsVectorEnv(
        3, preset=rules, max_episode_steps=4, autoreset_mode=mode, ground_truth=True
    )

    def make() -> gymnasium.Env:
        return gymnasium.wrappers.TimeLimit(BouncingBallsEnv(rules, ground_truth=True), 4)

    single = SyncVectorEnv([make] * 3, autoreset_mode=mode)
    observations, infos = batched.reset(seed=5)
    expected, expected_infos = single.reset(seed=5)
    rng = np.random.default_rng(0)
    for _ in range(15):
        np.testing.assert_array_equal(observations, expected)
        assert infos.keys() == expected_infos.keys()
        for key in ("groups", "collisions", "positions", "velocities", "_groups"):
            np.testing.assert_array_equal(infos[key], expected_infos[key])
        if "final_obs" in infos:
            for index in range(3):
                np.testing.assert_array_equal(infos["final_obs"][index], expected_infos["final_obs"][index])
            np.testing.assert_array_equal(
                infos["final_info"]["positions"], expected_infos["final_info"]["positions"]
            )
        actions = rng.integers(batched.single_action_space.n, size=3)
        observations, *ends, infos = batched.step(actions)
        expected, *expected_ends, expected_infos = single.step(actions)
        for end, expected_end in zip(ends, expected_ends, strict=True):
            np.testing.assert_array_equal(end, expected_end)


def test_next_step_resets_with_the_step_after_and_ignores_its_action():
    env = BouncingBallsVectorEnv(2, preset=LONE_PLAYER, max_episode_steps=3, ground_truth=True)
    env.reset(seed=0)
    truncated = [env.step(np.array([3, 0]))[3].tolist() for _ in range(7)]
    assert truncated == [
        [False] * 2,
        [False] * 2,
        [True] * 2,
        [False] * 2,
        [False] * 2,
        [False] * 2,
        [True] * 2,
    ]


def test_disabled_wants_a_masked_reset():
    env = BouncingBallsVectorEnv(2, preset="stove", max_episode_steps=2, autoreset_mode="Disabled")
    env.reset(seed=0)
    env.step(np.zeros(2, dtype=int))
    env.reset(options={"reset_mask": np.array([False, True])})
    *_, truncations, _ = env.step(np.zeros(2, dtype=int))
    assert truncations.tolist() == [True, False]
    with pytest.raises(ResetNeeded, match=r"\[0\]"):
        env.step(np.zeros(2, dtype=int))
    before = env.get_state()
    env.reset(options={"reset_mask": truncations})
    after = env.get_state()
    np.testing.assert_array_equal(after.state.balls.positions[1], before.state.balls.positions[1])
    assert (after.state.balls.positions[0] != before.state.balls.positions[0]).any()
    env.step(np.zeros(2, dtype=int))


def test_a_masked_reset_clears_the_pending_autoreset():
    env = BouncingBallsVectorEnv(2, preset=LONE_PLAYER, max_episode_steps=1, ground_truth=True)
    env.reset(seed=0)
    env.step(np.array([0, 0]))
    _, infos = env.reset(options={"reset_mask": np.array([True, False])}, seed=[77, None])
    start = infos["positions"][0, 0]
    _, infos = env.reset(options={"reset_mask": np.array([True, False])}, seed=[77, None])
    np.testing.assert_array_equal(infos["positions"][0, 0], start)
    assert infos["_positions"].tolist() == [True, False]
    *_, infos = env.step(np.array([0, 0]))
    np.testing.assert_array_equal(infos["positions"][0, 0], start)  # an autoreset would have moved it


def test_seeds_repeat_and_differ():
    env = BouncingBallsVectorEnv(3, preset="stove")
    first, _ = env.reset(seed=9)
    unseeded, _ = env.reset()
    again, _ = env.reset(seed=[9, 10, 11])
    np.testing.assert_array_equal(first, again)
    assert (first != unseeded).any()
    assert (first[0] != first[1]).any()


def test_actions_move_the_ring_in_the_frames():
    env = BouncingBallsVectorEnv(9, preset=LONE_PLAYER, ground_truth=True)
    env.reset(seed=0)
    state = env.get_state()
    state.state.balls.positions[:] = 5.0
    env.set_state(state)
    before = centroids(env.step(np.zeros(9, dtype=int))[0])
    after = centroids(env.step(np.arange(9))[0])
    np.testing.assert_allclose(after - before, 6.4 * 0.6 * DIRECTIONS, atol=0.4)  # pixels


def centroids(frames: np.ndarray) -> np.ndarray:
    weight = frames[..., 0] / frames.sum(axis=(1, 2))[:, None]
    index = np.arange(frames.shape[1])
    return np.stack(
        [(weight.sum(axis=1) * index).sum(axis=1), (weight.sum(axis=2) * index).sum(axis=1)], axis=1
    )


def test_the_reward_is_minus_one_where_the_player_meets_a_ball():
    env = BouncingBallsVectorEnv(50, preset="control", max_episode_steps=None, ground_truth=True)
    _, infos = env.reset(seed=0)
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(60):
        ring = infos["groups"] == 1
        _, rewards, terminations, _, infos = env.step(rng.integers(9, size=50))
        marked = (infos["collisions"].astype(bool) & ring).any(axis=(1, 2, 3))
        np.testing.assert_array_equal(rewards, np.where(marked, -1.0, 0.0))
        assert not terminations.any()
        seen += int(marked.sum())
    assert seen > 20


def test_the_first_touch_ends_an_episode_where_the_rules_say_so():
    ending, going_on = (BouncingBallsEnv(name) for name in ("survive", "avoid"))
    for env in (ending, going_on):
        env.reset(seed=4)
    for action in np.random.default_rng(0).integers(9, size=400).tolist():
        first, second = ending.step(action), going_on.step(action)
        assert first[1] == second[1]
        assert first[2] == (first[1] == -1.0)
        assert not second[2]
        if first[2]:
            return
    raise AssertionError("400 random steps touched nothing")


def test_a_state_replays_exactly_resets_included():
    env = BouncingBallsVectorEnv(4, preset="control", max_episode_steps=6, ground_truth=True)
    env.reset(seed=1)
    actions = np.random.default_rng(0).integers(9, size=(25, 4))
    for action in actions[:5]:
        env.step(action)
    state = env.get_state()
    runs = []
    for target in (env, BouncingBallsVectorEnv(4, preset="control", max_episode_steps=6, ground_truth=True)):
        target.set_state(state)
        runs.append([target.step(action) for action in actions])
    for one, other in zip(*runs, strict=True):
        for left, right in zip(one[:4], other[:4], strict=True):
            np.testing.assert_array_equal(left, right)
        for key, value in one[4].items():
            np.testing.assert_array_equal(value, other[4][key])


def test_a_single_state_replays_exactly():
    env = BouncingBallsEnv("stove")
    env.reset(seed=1)
    env.step(3)
    state = env.get_state()
    frames = [env.step(5)[0], env.reset()[0]]
    env.set_state(state)
    np.testing.assert_array_equal(frames[0], env.step(5)[0])
    np.testing.assert_array_equal(frames[1], env.reset()[0])


def test_returned_arrays_are_not_reused():
    env = BouncingBallsVectorEnv(2, preset="control", ground_truth=True)
    observations, infos = env.reset(seed=0)
    copies = observations.copy(), infos["positions"].copy()
    observations[:] = 7
    infos["positions"][:] = 7
    env.step(np.array([1, 2]))
    env.reset(seed=0)
    fresh, fresh_infos = env.reset(seed=0)
    np.testing.assert_array_equal(fresh, copies[0])
    np.testing.assert_array_equal(fresh_infos["positions"], copies[1])


def test_rendering_is_coloured_and_magnified():
    env = BouncingBallsVectorEnv(2, preset="stove", render_mode="rgb_array")
    env.reset(seed=0)
    pictures = env.render()
    assert len(pictures) == 2
    assert pictures[0].shape == (256, 256, 3)
    assert len(np.unique(pictures[0].reshape(-1, 3), axis=0)) == 4
    assert BouncingBallsVectorEnv(2).render() is None


def test_the_shared_metadata_of_gymnasium_is_left_alone():
    before = dict(VectorEnv.metadata)
    env = BouncingBallsVectorEnv(1, autoreset_mode=AutoresetMode.DISABLED)
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert BouncingBallsVectorEnv(1).metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert VectorEnv.metadata == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "num_envs"),
        ({"preset": "stov"}, "did you mean 'stove'"),
        ({"max_episode_steps": 0}, "max_episode_steps"),
        ({"autoreset_mode": "never"}, "autoreset_mode"),
        ({"render_mode": "ansi"}, "render_mode"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        BouncingBallsVectorEnv(**arguments)


def test_wrong_calls_are_refused():
    env = BouncingBallsVectorEnv(2, preset="stove")
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(2, dtype=int))
    with pytest.raises(ResetNeeded):
        BouncingBallsEnv("stove").step(0)
    env.reset(seed=0)
    for actions in (np.array([0, 9]), np.array([-1, 0]), np.zeros(3, dtype=int), np.zeros(2)):
        with pytest.raises(ConfigError, match="actions"):
            env.step(actions)
    with pytest.raises(ConfigError, match="seeds"):
        env.reset(seed=[1])
    for mask in (np.array([False, False]), np.array([1, 0]), np.array([True])):
        with pytest.raises(ConfigError, match="reset_mask"):
            env.reset(options={"reset_mask": mask})
    other = BouncingBallsVectorEnv(3, preset="stove")
    other.reset()
    state = other.get_state()
    with pytest.raises(ConfigError, match="state"):
        env.set_state(state)

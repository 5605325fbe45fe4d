"""What the one base of all environments promises, seen through worlds of balls and dreams."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from dreamers import write_world
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rnem_world.envs.balls import BouncingBallsEnv, BouncingBallsVectorEnv
from rnem_world.envs.learned import LearnedEnv, LearnedVectorEnv
from rnem_world.errors import ConfigError


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("worlds") / "small")


def test_generators_are_those_of_gymnasiums_vector_environments():
    ours, theirs = BouncingBallsVectorEnv(3), SyncVectorEnv([BouncingBallsEnv] * 3)
    ours.reset(seed=7)
    theirs.reset(seed=7)
    assert ours.np_random_seed == theirs.np_random_seed == (7, 8, 9)
    for one, other in zip(ours.np_random, theirs.np_random, strict=True):
        assert one.bit_generator.state == other.bit_generator.state
    ours.reset(seed=[None, 4, None])
    assert ours.np_random_seed == (7, 4, 9)


def test_a_single_environment_draws_from_its_own_np_random(world):
    for env in (BouncingBallsEnv(), LearnedEnv(world, obs_type="slots")):
        first, _ = env.reset(seed=3)
        assert env.np_random_seed == 3
        env.np_random, _ = gymnasium.utils.seeding.np_random(3)
        np.testing.assert_array_equal(env.reset()[0], first)


@pytest.mark.parametrize("options", [{"start": 99}, {"edits": ["nothing"]}, {"strat": 1}])
def test_a_refused_reset_leaves_generators_alone(world, options):
    for env, again in (
        (LearnedEnv(world, obs_type="slots"), LearnedEnv(world, obs_type="slots")),
        (LearnedVectorEnv(2, world, obs_type="slots"), LearnedVectorEnv(2, world, obs_type="slots")),
    ):
        env.reset(seed=1)
        again.reset(seed=1)
        with pytest.raises(ConfigError):
            env.reset(seed=50, options=options)
        with pytest.raises(ConfigError):
            env.reset(options=options)
        assert env.np_random_seed == again.np_random_seed
        np.testing.assert_array_equal(env.reset()[0], again.reset()[0])


@pytest.mark.parametrize("seed", [-1, 2.5, "5", True, [1, -1]])
def test_bad_seeds_are_refused_in_one_line(seed):
    env = BouncingBallsVectorEnv(2)
    with pytest.raises((ConfigError, TypeError), match="seed"):
        env.reset(seed=seed)
    if not isinstance(seed, list):
        with pytest.raises((ConfigError, TypeError), match="seed"):
            BouncingBallsEnv().reset(seed=seed)


def test_unknown_options_are_refused():
    for env in (BouncingBallsEnv(), BouncingBallsVectorEnv(2)):
        with pytest.raises(ConfigError, match="unknown option 'preset' of a reset"):
            env.reset(options={"preset": "stove"})


@pytest.mark.parametrize("limit", [0, -1, 2.5, "5"])
def test_a_limit_of_steps_is_a_whole_number(world, limit):
    for make in (BouncingBallsVectorEnv, lambda **given: LearnedVectorEnv(checkpoint=world, **given)):
        with pytest.raises((ConfigError, TypeError), match="max_episode_steps"):
            make(num_envs=2, max_episode_steps=limit)


def test_a_single_episode_that_uncertainty_cuts_off_is_over(tmp_path):
    folder = write_world(tmp_path / "world")
    from rnem_world.envs.uncertainty import Calibration, write_calibrations

    curve = Calibration((1.0, 0.5, 0.0), (0.0, 1.0, 4.0), (0.0, 2.0, 3.0), "latent", 0.5)
    write_calibrations(folder, [curve])
    env = LearnedEnv(folder, truncate_on_uncertainty=0.01)
    env.reset(seed=0)
    assert env.step(0)[3]
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset()
    env.step(0)


class Ending(BouncingBallsVectorEnv):
    """Balls whose every episode terminates with its third step."""

    def advance(self, actions, waiting):
        shown = super().advance(actions, waiting)
        return shown._replace(terminations=self.episodes.elapsed >= 2)


def test_an_episode_may_terminate_and_be_truncated_at_once():
    env = Ending(2, max_episode_steps=3, autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    actions = np.zeros(2, dtype=int)
    for _ in range(2):
        env.step(actions)
    _, _, terminations, truncations, infos = env.step(actions)
    assert terminations.all()
    assert truncations.all()
    assert infos["_final_obs"].all()


def test_the_world_of_a_game_and_a_checkpoint_are_not_both_given(world):
    with pytest.raises(ConfigError, match="leave one out"):
        LearnedEnv(world, game="SpaceInvaders")
    with pytest.raises(ConfigError, match=r"unknown option 'num_slot'.*did you mean 'num_slots'"):
        LearnedEnv(world, num_slot=3)


def test_people_can_watch(world, monkeypatch):
    pygame = pytest.importorskip("pygame")
    for env in (
        gymnasium.make("RNEM-Balls-v0", checkpoint=world, render_mode="human"),
        gymnasium.make("RNEM-BallsReal-v0", render_mode="human"),
    ):
        env.reset(seed=0)
        before = pygame.surfarray.array3d(pygame.display.get_surface())
        env.step(3)
        after = pygame.surfarray.array3d(pygame.display.get_surface())
        np.testing.assert_array_equal(after.swapaxes(0, 1), env.unwrapped.batch.pictures()[0])
        assert (before != after).any()
        assert env.render() is None
        env.close()
        assert pygame.display.get_surface() is None


@pytest.mark.parametrize(
    "options", [{"obs_type": "slots"}, {"imagination": "pixels", "details": ("lost", "centroids")}]
)
def test_ambient_precision_changes_nothing(world, options):
    expected = LearnedEnv(world, **options)
    env = LearnedEnv(world, **options)
    one, other = expected.reset(seed=0), None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        other = env.reset(seed=0)
        for action in (1, 2, 3):
            np.testing.assert_array_equal(one[0], other[0])
            one, other = None, env.step(action)
            with torch.autocast("cpu", enabled=False):
                one = expected.step(action)
    monkey = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        for made in (env, LearnedEnv(world, **options)):
            observation, info = made.reset(seed=0)
            assert observation in made.observation_space
            observation, *_, info = made.step(1)
            assert observation in made.observation_space
            assert all(value.dtype == np.float32 for value in info.values())
    finally:
        torch.set_default_dtype(monkey)

"""Learned worlds of Atari games: which is taken for a game, where their dreams begin, and both environments."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from dreamers import write_world
from gymnasium.utils.env_checker import check_env

from rnem_world.envs import atari_frames, real
from rnem_world.envs import starts as starts_module
from rnem_world.envs.atari import AtariEnv, AtariVectorEnv
from rnem_world.envs.learned import LearnedEnv, LearnedVectorEnv
from rnem_world.envs.slots import SlotObservation, SlotVectorObservation
from rnem_world.envs.starts import game_starts
from rnem_world.errors import ConfigError, DependencyError
from rnem_world.training import checkpoint
from rnem_world.training.checkpoint import load_model, save_checkpoint
from tests.envs.atari_cache import short_run

pytest.importorskip("ale_py")


def write_game_world(folder: Path, data: str = "data/SpaceInvaders.h5", actions: int = 6) -> Path:
    write_world(folder, -30.0, architecture="projection84", number_of_actions=actions)
    model, config = load_model(folder)
    save_checkpoint(folder, model, replace(config, data=data, environment="RNEM-AtariReal-v0"))
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_game_world(tmp_path_factory.mktemp("worlds") / "space_invaders")


@pytest.fixture(scope="module")
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        short_run(patch, tmp_path_factory.mktemp("cache"))
        patch.setattr(starts_module, "NUMBER_OF_GAME_STARTS", 12)
        starts_module._game_starts.cache_clear()
        yield
    atari_frames._background_of.cache_clear()
    starts_module._game_starts.cache_clear()


pytestmark = pytest.mark.usefixtures("_cache")


@pytest.mark.parametrize("obs_type", ["frame", "slots"])
def test_gymnasium_has_nothing_to_complain_about(world, obs_type):
    env = gymnasium.make("RNEM-Atari-v0", checkpoint=world, obs_type=obs_type, render_mode="rgb_array")
    assert env.spec.max_episode_steps == 200
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


def test_stable_baselines3_has_nothing_to_complain_about(world):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(gymnasium.make("RNEM-Atari-v0", checkpoint=world))


def test_spaces_are_those_of_the_real_game(world):
    real, dream = AtariEnv(), gymnasium.make("RNEM-Atari-v0", checkpoint=world)
    assert (dream.observation_space, dream.action_space) == (real.observation_space, real.action_space)


def test_batched_is_equal_to_single(world):
    batched = gymnasium.make_vec("RNEM-Atari-v0", num_envs=3, checkpoint=world)
    assert isinstance(batched.unwrapped, LearnedVectorEnv)
    assert batched.unwrapped.max_episode_steps == 200
    single = LearnedEnv(world)
    frames, _ = batched.reset(seed=7)
    frame, _ = single.reset(seed=9)
    for action in (1, 5, 3):
        assert (frames[2] != frame).mean() < 0.001  # another batch rounds otherwise
        frames, rewards, *_ = batched.step(np.full(3, action))
        frame, reward, *_ = single.step(action)
        assert reward == pytest.approx(rewards[2], abs=1e-4)


def test_starts_are_of_the_real_game_and_kept(monkeypatch):
    starts = game_starts("space_invaders")
    frames = starts.frames(slice(None))
    assert frames.shape == (12, 16, 84, 84, 1)
    assert (starts.actions.min(), starts.actions.max()) == (0, 5)
    assert 0.01 < frames.mean() < 0.5
    assert len(np.unique(starts.packed[:, -1], axis=0)) > 6
    starts_module._game_starts.cache_clear()
    monkeypatch.setattr(starts_module, "_play", lambda game: pytest.fail("they were kept"))
    assert game_starts("SpaceInvaders").digest == starts.digest


def test_starts_go_on_as_the_game_does(monkeypatch):
    """The actions of a start lead through its frames: the first is played again by an environment's console."""
    seeds = []
    monkeypatch.setattr(starts_module, "SPACING", 20)
    monkeypatch.setattr(starts_module, "NUMBER_OF_GAME_STARTS", 1)
    monkeypatch.setattr(starts_module, "derive_seed", lambda *_: seeds.append(11) or 11)

    class Still:
        """Draws no steps before the first start."""

        def __init__(self) -> None:
            self.generator = np.random.default_rng(2)

        def integers(self, high, size=None):
            return 0 if size is None else self.generator.integers(high, size=size)

    monkeypatch.setattr(starts_module, "numpy_generator", lambda *_: Still())
    starts = starts_module._play("SpaceInvaders")
    env = AtariEnv()
    frame, _ = env.reset(seed=11)
    seen = [frame] + [env.step(action)[0] for action in starts.actions[0].tolist()]
    np.testing.assert_array_equal(starts.frames([0])[0], np.stack(seen) > 0)


def test_a_broken_cache_is_made_anew(monkeypatch):
    starts = game_starts("SpaceInvaders")
    path = next(
        iter(starts_module.cache_path("SpaceInvaders", "x", "").parent.glob("SpaceInvaders-starts-*"))
    )
    path.write_bytes(b"broken")
    starts_module._game_starts.cache_clear()
    assert game_starts("SpaceInvaders").digest == starts.digest
    assert path.stat().st_size > 6


def test_the_world_of_a_game_is_the_shipped_one(world, monkeypatch):
    monkeypatch.setattr(checkpoint, "PRETRAINED", world.parent)
    for game in ("SpaceInvaders", "space_invaders"):
        env = LearnedEnv(game=game)
        assert env.batch.world.folder == world.resolve()
    assert gymnasium.make("RNEM-Atari-v0").unwrapped.batch.world.folder == world.resolve()
    twin = env.clone()
    assert twin.batch.world is env.batch.world
    with pytest.raises(ConfigError, match=r"no world of Pong is shipped.*--game Pong --world-model"):
        gymnasium.make("RNEM-Atari-v0", game="Pong")
    with pytest.raises(ConfigError, match="did you mean 'SpaceInvaders'"):
        LearnedVectorEnv(2, game="SpaceInvader")


def test_the_shipped_game_is_an_environment():
    env = gymnasium.make("RNEM-Atari-v0")
    assert env.unwrapped.batch.world.folder.name == "space_invaders"
    check_env(env.unwrapped, skip_render_check=True)
    envs = gymnasium.make_vec("RNEM-Atari-v0", num_envs=8, obs_type="slots")
    slots, _ = envs.reset(seed=0)
    for _ in range(10):
        slots, *_ = envs.step(envs.action_space.sample())
    assert slots.shape == (8, 4, 128)
    frames = gymnasium.make_vec("RNEM-Atari-v0", num_envs=8).reset(seed=0)[0] == 255
    assert 0.02 < frames.mean() < 0.3  # invaders, neither dark nor white


def test_a_world_knows_its_game(world, tmp_path):
    assert LearnedEnv(world, starts="real:space_invaders").batch.starts.number_of_starts == 12
    with pytest.raises(ConfigError, match=r"learned from SpaceInvaders.*can't begin in Pong"):
        LearnedEnv(world, starts="real:Pong")
    unknown = write_game_world(tmp_path / "mine", data="gone.h5")
    with pytest.raises(ConfigError, match="real:GAME"):
        LearnedEnv(unknown)
    assert LearnedEnv(unknown, starts="real:SpaceInvaders").batch.starts.number_of_starts == 12
    with pytest.raises(ConfigError, match="Breakout has 4 actions"):
        LearnedEnv(unknown, starts="real:Breakout")
    with pytest.raises(ConfigError, match="no game"):
        real.game_of(LearnedEnv("balls").batch.world)


def test_without_ale_py_one_line_says_what_to_install(world, monkeypatch, tmp_path):
    from rnem_world.envs.starts import write_starts

    write_starts(tmp_path / "starts.npz", game_starts("SpaceInvaders"))
    monkeypatch.setitem(sys.modules, "ale_py", None)
    for arguments in ({"checkpoint": world}, {"game": "Pong"}):
        with pytest.raises(DependencyError, match=r'ale_py is missing: pip install "rnem-world\[atari\]"'):
            gymnasium.make("RNEM-Atari-v0", **arguments)
    env = LearnedEnv(world, starts=tmp_path / "starts.npz")  # which needs no game
    env.reset(seed=0)


def test_real_games_are_watched_as_slots(world):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")  # it is a wrapper
        check_env(SlotObservation(AtariEnv(), world), skip_render_check=True)
    single = SlotObservation(AtariEnv(), world)
    batched = SlotVectorObservation(AtariVectorEnv(2, autoreset_mode="Disabled"), world)
    slots, _ = batched.reset(seed=3)
    expected, _ = single.reset(seed=4)
    for action in (1, 4):
        np.testing.assert_allclose(slots[1], expected, atol=1e-3)
        slots, *_ = batched.step(np.full(2, action))
        expected, *_ = single.step(np.int64(action))
    assert single.observation_space == LearnedEnv(world, obs_type="slots").observation_space

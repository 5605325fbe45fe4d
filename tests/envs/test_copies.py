"""Every environment can be copied, cloned and pickled wherever it stands, with all that a user has set."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from dreamers import write_world

from rnem_world.envs.balls import BouncingBallsEnv, BouncingBallsVectorEnv
from rnem_world.envs.learned import LearnedEnv, LearnedVectorEnv
from rnem_world.envs.slots import SlotObservation, SlotVectorObservation
from tests.envs.atari_cache import black


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("worlds") / "small")


MAKERS = {
    "learned": LearnedEnv,
    "learned in pixels": lambda world: LearnedEnv(world, imagination="pixels", details=("lost", "gamma")),
    "learned vector": lambda world: LearnedVectorEnv(3, world, obs_type="slots"),
    "learned ensemble": lambda world: LearnedVectorEnv(2, world, ensemble=[world], details=("disagreement",)),
    "simulated starts": lambda world: LearnedEnv(world, starts="real"),
    "balls": lambda world: BouncingBallsEnv(),
    "balls vector": lambda world: BouncingBallsVectorEnv(3, autoreset_mode="SameStep", max_episode_steps=4),
    "slots": lambda world: SlotObservation(BouncingBallsEnv(), world),
    "slots vector": lambda world: SlotVectorObservation(BouncingBallsVectorEnv(2), world),
    "made": lambda world: gymnasium.make("RNEM-Balls-v0", checkpoint=world),
    "made vector": lambda world: gymnasium.make_vec("RNEM-Balls-v0", num_envs=2, checkpoint=world),
    "atari": lambda world: atari().AtariEnv(background=black()),
    "atari vector": lambda world: atari().AtariVectorEnv(2, background=black()),
}


def atari():
    pytest.importorskip("ale_py")
    from rnem_world.envs import atari

    return atari


WAYS = {"copied": copy.deepcopy, "pickled": lambda env: pickle.loads(pickle.dumps(env))}


def step(env, action: int):
    shape = env.action_space.shape
    return env.step(np.full(shape, action) if shape else np.int64(action))


def same(one: tuple, other: tuple) -> None:
    for left, right in zip(one[:4], other[:4], strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_copy_goes_on_alike_and_by_itself(world, kind, way):
    env = MAKERS[kind](world)
    env.action_space.seed(5)
    env.unwrapped.something = {"of": "the user's"}
    env.reset(seed=1)
    step(env, 2)
    twin = WAYS[way](env)
    assert twin.unwrapped.something == {"of": "the user's"}
    expected = [step(env, action) for action in (3, 1, 0)]
    drawn = env.action_space.sample()
    begun = env.reset()[0]
    for one, action in zip(expected, (3, 1, 0), strict=True):
        same(one, step(twin, action))
    np.testing.assert_array_equal(twin.action_space.sample(), drawn)
    np.testing.assert_array_equal(twin.reset()[0], begun)


@pytest.mark.parametrize("way", WAYS)
def test_environments_are_copied_before_their_first_reset(world, way):
    for kind, make in MAKERS.items():
        if "atari" in kind:
            continue
        env = make(world)
        twin = WAYS[way](env)
        np.testing.assert_array_equal(twin.reset(seed=2)[0], env.reset(seed=2)[0])


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_copies_share_weights(engine):
    env = LearnedEnv("stove", engine=engine)
    env.reset(seed=0)
    for twin in (copy.deepcopy(env), env.clone(), pickle.loads(pickle.dumps(env))):
        assert twin.batch.world is env.batch.world
        assert twin.batch.dreams.engine is env.batch.dreams.engine
    assert len(pickle.dumps(env)) < 200_000


def test_copies_survive_another_working_directory(world, tmp_path, monkeypatch):
    monkeypatch.chdir(world.parent)
    env = LearnedEnv(world.name, starts=f"{world.name}/starts.npz")
    env.reset(seed=0)
    pickled = pickle.dumps(env)
    monkeypatch.chdir(tmp_path)
    assert not os.path.exists(world.name)
    for twin in (env.clone(), pickle.loads(pickled)):
        np.testing.assert_array_equal(twin.reset(seed=3)[0], env.reset(seed=3)[0])

"""OpenVINO computes the same world as PyTorch, as exactly as bfloat16 can, or says why it can't."""

from __future__ import annotations

import copy
import pickle
import sys
import threading

import numpy as np
import pytest
import torch
from dreamers import write_world

from rnem_world.agents.config import ContestConfig
from rnem_world.agents.contest import Contest
from rnem_world.agents.dynamics import LearnedDynamics
from rnem_world.device import has_bfloat16
from rnem_world.envs.engine import GRAPH_ENGINES, OpenVinoEngine
from rnem_world.envs.learned import LearnedEnv, LearnedVectorEnv
from rnem_world.envs.world import World
from rnem_world.errors import CheckpointError, ConfigError, DependencyError
from rnem_world.training.checkpoint import find_checkpoint

openvino = pytest.importorskip("openvino")
BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
able = pytest.mark.skipif(not BF16, reason="this processor has no bfloat16")
NAME = "openvino-bf16"


def actions_of(steps: int, n: int) -> np.ndarray:
    return np.random.default_rng(1).integers(9, size=(steps, n))


@able
@pytest.mark.parametrize("name", ["balls", "stove"])
@pytest.mark.parametrize("imagination", ["latent", "pixels"])
@pytest.mark.parametrize("obs_type", ["slots", "frame"])
def test_it_dreams_nearly_as_pytorch_does(name, imagination, obs_type):
    options = {"imagination": imagination, "obs_type": obs_type}
    one, other = (LearnedVectorEnv(8, name, engine=engine, **options) for engine in ("torch", NAME))
    first, second = one.reset(seed=0), other.reset(seed=0)
    assert (first[0] != second[0]).mean() < 0.001  # frames are drawn by the engine
    for row in actions_of(5, 8):
        first, second = one.step(row), other.step(row)
        if obs_type == "slots":
            assert np.abs(first[0] - second[0]).mean() < 0.02
        else:
            assert (first[0] != second[0]).mean() < 0.01
        assert np.abs(first[1] - second[1]).mean() < 0.02


@able
def test_what_it_gave_stays_when_it_is_asked_again():
    world = World.load("balls")
    env = LearnedVectorEnv(3, engine=NAME, obs_type="slots")
    env.reset(seed=0)
    dreams = env.dreams.state.dreams
    actions = torch.zeros(3, dtype=torch.int64)
    found = world.engine(NAME).dream_step(dreams, actions, "latent").state
    before = found.theta.clone()
    world.engine(NAME).dream_step(found, actions + 1, "latent")
    assert torch.equal(found.theta, before)


@able
def test_threads_share_it():
    world = World.load("balls")
    env = LearnedVectorEnv(16, engine=NAME, obs_type="slots")
    env.reset(seed=0)
    dreams, failures = env.dreams.state.dreams, []
    expected = [
        world.engine(NAME).dream_step(dreams, torch.full((16,), a), "latent").state.theta for a in range(4)
    ]

    def step(action: int) -> None:
        for _ in range(20):
            found = world.engine(NAME).dream_step(dreams, torch.full((16,), action), "latent").state.theta
            if not torch.equal(found, expected[action]):
                failures.append(action)

    threads = [threading.Thread(target=step, args=(action,)) for action in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@able
def test_copies_share_it():
    env = LearnedEnv("stove", engine=NAME)
    env.reset(seed=0)
    for twin in (copy.deepcopy(env), env.clone(), pickle.loads(pickle.dumps(env))):
        assert twin.batch.dreams.engine is env.batch.dreams.engine


@able
def test_planners_take_it():
    dynamics = LearnedDynamics(World.load("balls"), "latent", NAME)
    env = LearnedVectorEnv(2, obs_type="slots")
    env.reset(seed=0)
    step = dynamics.step(env.dreams.state.dreams, torch.zeros(2, dtype=torch.int64))
    assert step.rewards.shape == (2,)
    contest = Contest(ContestConfig(("shooting:horizon=2,population=2",), episodes=1, steps=2, engine=NAME))
    agent, real = contest.agent("shooting:horizon=2,population=2", 1)
    agent.reset(1)
    assert agent.act(real.reset(seed=0)[0]).shape == (1,)
    assert contest.dream(1).dreams.engine is World.load("balls").engine(NAME)


def test_bfloat16_is_found_alike():
    assert has_bfloat16(torch.device("cpu")) == BF16


def test_a_processor_without_it_is_refused(monkeypatch):
    class Plain:
        def get_property(self, *asked):
            return ["FP32", "INT8"]

    monkeypatch.setattr(openvino, "Core", Plain)
    with pytest.raises(ConfigError, match=r"no bfloat16 of its own.*engine='onnx'"):
        GRAPH_ENGINES[NAME](find_checkpoint("balls"), World.load("balls").fingerprint)


def test_it_says_what_is_missing(tmp_path, monkeypatch):
    folder = write_world(tmp_path / "world")
    if BF16:
        with pytest.raises(CheckpointError, match=r"no graphs.*openvino-bf16.*--onnx"):
            LearnedEnv(folder, engine=NAME)
        with pytest.raises(CheckpointError, match="no graphs"):
            LearnedDynamics(World.load(folder), engine=NAME)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DependencyError, match="pip install openvino"):
        OpenVinoEngine(folder, "0")

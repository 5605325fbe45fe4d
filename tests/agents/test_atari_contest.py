"""Agents in a learned game and in the real one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rnem_world.agents.config import ContestConfig, PolicyConfig
from rnem_world.agents.contest import Contest
from rnem_world.agents.scores import dream_beside_reality
from rnem_world.envs import atari_frames, starts
from rnem_world.errors import ConfigError
from tests.envs.atari_cache import short_run
from tests.envs.test_learned_atari import write_game_world

pytest.importorskip("ale_py")


@pytest.fixture
def world(tmp_path, monkeypatch):
    short_run(monkeypatch, tmp_path / "cache")
    monkeypatch.setattr(starts, "NUMBER_OF_GAME_STARTS", 4)
    starts._game_starts.cache_clear()
    yield str(write_game_world(tmp_path / "space_invaders"))
    atari_frames._background_of.cache_clear()
    starts._game_starts.cache_clear()


def test_a_policy_trained_in_the_dream_and_a_planner_play_the_real_game(world, tmp_path):
    pytest.importorskip("stable_baselines3")
    from rnem_world.agents.policy_training import train_policy

    few = {"n_steps": 4, "batch_size": 8, "n_epochs": 1}
    options = {"checkpoint": world, "obs_type": "slots"}
    policy = PolicyConfig("ppo", "RNEM-Atari-v0", options, num_envs=2, timesteps=8, hyperparameters=few)
    train_policy(policy, tmp_path / "policy")
    planner = "shooting:horizon=2,population=4"
    config = ContestConfig(
        (planner, str(tmp_path / "policy")), world, "RNEM-AtariReal-v0", episodes=2, steps=3
    )
    found = {score.name: score for score in Contest(config).play(progress=False)}
    assert {planner, str(tmp_path / "policy"), "random", "stay"} <= found.keys()
    contest = Contest(replace(config, steps=20))
    agent, env = contest.agent(str(tmp_path / "policy"), 1)
    real, dreamt = dream_beside_reality(agent, env, contest.dream(1), seed=0, steps=20)
    assert real.shape == dreamt.shape == (21, 84, 84, 1)
    assert real.any()


def test_a_world_of_something_else_is_refused():
    config = ContestConfig(("shooting",), "balls", "RNEM-AtariReal-v0", episodes=1, steps=1)
    with pytest.raises(ConfigError, match=r"expected frames \(32, 32, 1\)"):
        Contest(config)

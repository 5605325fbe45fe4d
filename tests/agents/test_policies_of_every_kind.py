"""Policies of stable-baselines3 are trained in worlds with actions of every kind, and act there."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from dreamers import write_world
from gymnasium import spaces

pytest.importorskip("stable_baselines3")

from rnem_world.agents.config import PolicyConfig
from rnem_world.agents.policy_agent import load_policy
from rnem_world.agents.policy_training import train_policy
from rnem_world.agents.scores import play
from rnem_world.envs.learned import LearnedEnv, LearnedVectorEnv
from rnem_world.envs.slots import SlotVectorObservation
from rnem_world.errors import CheckpointError, ConfigError
from rnem_world.models.config import ActionsConfig

KINDS = {
    "multi_discrete": ActionsConfig("multi_discrete", (3, 2)),
    "multi_binary": ActionsConfig("multi_binary", (2, 2)),
    "box": ActionsConfig("box", low=(-2.0, 0.0), high=(2.0, 1.0)),
}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("worlds")
    return {kind: write_world(place / kind, actions=actions) for kind, actions in KINDS.items()}


def configured(world: Path, **values) -> PolicyConfig:
    options = {
        "env": "RNEM-World-v0",
        "env_options": {"checkpoint": str(world), "obs_type": "slots", "max_episode_steps": 4},
        "num_envs": 2,
        "timesteps": 32,
        "hyperparameters": {"n_steps": 8, "batch_size": 16, "n_epochs": 1},
    }
    return PolicyConfig(**{**options, **values})


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_learns_and_acts_where_actions_are_of_this_kind(worlds, tmp_path, kind):
    train_policy(configured(worlds[kind]), tmp_path / "policy")
    dream = LearnedVectorEnv(3, worlds[kind], obs_type="slots", max_episode_steps=5)
    agent = load_policy(tmp_path / "policy", dream.single_observation_space, dream.single_action_space)
    observations, _ = dream.reset(seed=0)
    agent.reset(3)
    assert dream.action_space.contains(agent.act(observations))
    assert play(agent, dream, 1, 5).lengths.max() <= 5
    watched = SlotVectorObservation(LearnedVectorEnv(3, worlds[kind], max_episode_steps=5), worlds[kind])
    assert np.isfinite(play(agent, watched, 1, 5).returns).all()
    for other in KINDS:
        if other != kind:
            space = LearnedVectorEnv(1, worlds[other]).single_action_space
            with pytest.raises(CheckpointError, match="was trained with actions"):
                load_policy(tmp_path / "policy", dream.single_observation_space, space)


def test_dqn_says_what_it_can_act_with(worlds, tmp_path):
    config = configured(worlds["box"], algorithm="dqn", hyperparameters={})
    with pytest.raises(ConfigError, match=r"dqn with MlpPolicy refuses what it is given.*Discrete"):
        train_policy(config, tmp_path / "policy")
    assert isinstance(LearnedVectorEnv(1, worlds["box"]).single_action_space, spaces.Box)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("obs_type", ["frame", "slots"])
def test_stable_baselines3_has_nothing_to_complain_about(worlds, kind, obs_type):
    from stable_baselines3.common.env_checker import check_env

    env = LearnedEnv(worlds[kind], obs_type=obs_type)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Frames of 32 pixels are what this world has, bounds of actions are the real environment's.
        warnings.filterwarnings("ignore", message=".*minimal resolution")
        warnings.filterwarnings("ignore", message=".*symmetric and normalized")
        warnings.filterwarnings("ignore", message=".*unconventional shape")
        check_env(env)

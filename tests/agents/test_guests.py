"""Policies of stable-baselines3 that were trained in an environment itself, or on its frames, play in collections."""

from __future__ import annotations

import gymnasium
import numpy as np
import own_environments
import pytest

from rnem_world.agents.collecting import collect
from rnem_world.agents.guests import make_players
from rnem_world.data.dataset import Dataset
from rnem_world.envs.any import AnyVectorEnv
from rnem_world.errors import ConfigError

stable_baselines3 = pytest.importorskip("stable_baselines3")

BLIND = "own_environments:Own/Blind-v0"
PPO = {"n_steps": 4, "batch_size": 8, "n_epochs": 1}


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    """Files of policies: one knows states, one frames, one another environment."""
    from rnem_world.agents.sb3 import VectorEnvAdapter

    own_environments.register()
    folder = tmp_path_factory.mktemp("policies")
    framed = VectorEnvAdapter(AnyVectorEnv(2, BLIND, autoreset_mode="SameStep"))
    for name, env in (
        ("state", gymnasium.make("Own/Blind-v0")),
        ("frames", framed),
        ("other", gymnasium.make("Own/Wide-v0")),
    ):
        stable_baselines3.PPO("MlpPolicy", env, **PPO).save(folder / f"{name}.zip")
    return folder


@pytest.mark.parametrize("name", ["state", "frames"])
def test_a_trained_policy_plays(policies, name, tmp_path):
    policy = f"{policies / name}.zip"
    sizes = {"num_train": 2, "num_valid": 0, "num_test": 0, "frames": 20}
    with pytest.raises(ConfigError, match="--trust-policy"):
        collect(BLIND, tmp_path / "d.h5", policy=policy, **sizes)
    path = collect(BLIND, tmp_path / "d.h5", policy=f"{policy}:0.5,random:0.5", trust_policy=True, **sizes)
    with Dataset.open(path) as dataset:
        assert dataset.attributes.settings["policy"] == f"{name}.zip:0.5,random:0.5"
        assert set(np.unique(dataset.read("training", [0, 1], ["actions"])["actions"])) <= {0, 1}


@pytest.mark.parametrize("name", ["state", "frames"])
def test_what_it_is_shown_is_what_it_knows(policies, name):
    env = AnyVectorEnv(2, BLIND, autoreset_mode="Disabled")
    agent = make_players(env, np.random.default_rng(0), f"{policies / name}.zip", trusted=True)
    seen, predict = [], agent._model.predict

    def watched(given, **options):
        seen.append(given)
        return predict(given, **options)

    agent._model.predict = watched
    frames, _ = env.reset(seed=0)
    agent.reset(2)
    for _ in range(3):
        actions = agent.act(frames)
        if name == "frames":
            assert np.array_equal(np.moveaxis(seen[-1], 1, -1), frames)
        else:
            assert np.array_equal(seen[-1], np.stack(env.raw_observations))
        frames, *_ = env.step(actions)


def test_a_policy_of_another_environment_is_refused(policies, tmp_path):
    with pytest.raises(
        ConfigError, match=r"other\.zip knows the actions Box.*choose a policy of this environment"
    ):
        collect(BLIND, tmp_path / "d.h5", policy=str(policies / "other.zip"), trust_policy=True, num_train=1)
    masks = AnyVectorEnv(1, BLIND, autoreset_mode="Disabled")
    masks.envs[0].env.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (7,), np.float32)
    with pytest.raises(ConfigError, match="was trained on observations"):
        make_players(masks, np.random.default_rng(0), str(policies / "state.zip"), trusted=True)

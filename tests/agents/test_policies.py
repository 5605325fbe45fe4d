from __future__ import annotations

import copy
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

pytest.importorskip("stable_baselines3")

from rnem_world.agents import policy_training
from rnem_world.agents.base import Agent
from rnem_world.agents.config import CONFIG_FILE, FORMER_WIDTH, PolicyConfig
from rnem_world.agents.policy import (
    checkpoints_of,
    last_checkpoint,
    read_policy_config,
    read_policy_weights,
    read_trainer,
)
from rnem_world.agents.policy_agent import FrameFeatures, SlotFeatures, load_policy, policy_kind
from rnem_world.agents.policy_training import make_training_environment, train_policy
from rnem_world.envs.ids import make_environment
from rnem_world.envs.learned import LearnedEnv
from rnem_world.errors import CheckpointError, ConfigError, DivergenceError, OutputError, TrainingError
from rnem_world.io import Lock

SMALL = {
    "ppo": {"n_steps": 8, "batch_size": 16, "n_epochs": 1},
    "dqn": {"buffer_size": 200, "learning_starts": 16, "train_freq": 4, "gradient_steps": 1, "batch_size": 8},
}


def config(algorithm: str = "ppo", env: str = "CartPole-v1", timesteps: int = 64, **values) -> PolicyConfig:
    return PolicyConfig(
        algorithm, env, num_envs=4, timesteps=timesteps, hyperparameters=SMALL[algorithm], **values
    )


def test_slots_are_a_set():
    torch.manual_seed(0)
    extractor = SlotFeatures(spaces.Box(-1, 1, (5, 6)))
    slots = torch.randn(3, 5, 6)
    features = extractor(slots)
    assert features.shape == (3, 64)
    torch.testing.assert_close(extractor(slots[:, [3, 1, 0, 4, 2]]), features, atol=1e-5, rtol=1e-4)
    assert extractor(slots[:, :4]).shape == features.shape  # another number of slots
    changed = slots.clone()
    changed[:, 2, 0] += 1.0
    assert (extractor(changed) - features).abs().max() > 1e-3
    with pytest.raises(ConfigError, match="slots"):
        SlotFeatures(spaces.Box(-1, 1, (6,)))


@pytest.mark.parametrize("size", [16, 32, 64, 84])
def test_frames_of_all_our_sizes_are_seen(size):
    extractor = FrameFeatures(spaces.Box(0, 255, (4, size, size), np.uint8))
    assert extractor(torch.rand(2, 4, size, size)).shape == (2, 256)
    assert sum(parameter.numel() for parameter in extractor.parameters()) < 2_000_000
    with pytest.raises(ConfigError, match="16"):
        FrameFeatures(spaces.Box(0, 255, (4, 8, 8), np.uint8))


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_training_resumes_where_it_was(algorithm, tmp_path):
    train_policy(config(algorithm), tmp_path / "run")
    before = last_checkpoint(tmp_path / "run")
    weights, (trainer, replay) = read_policy_weights(before), read_trainer(before)
    assert trainer["steps"] == 64
    assert (replay is not None) == (algorithm == "dqn")
    more = config(algorithm, timesteps=128)
    seen = {}

    def look(model, env, *rest):
        seen.update({name: value.clone() for name, value in model.policy.state_dict().items()})
        seen["steps"] = model.num_timesteps
        seen["counters"] = {name: getattr(model, name) for name in trainer["counters"]}
        seen["optimizer"] = copy.deepcopy(model.policy.optimizer.state_dict()["state"])
        if replay is not None:
            assert (model.replay_buffer.pos, model.replay_buffer.full) == (16, False)
            np.testing.assert_array_equal(model.replay_buffer.observations[:16], replay["observations"])
        return learn(model, env, *rest)

    learn = policy_training._learn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy_training, "_learn", look)
        train_policy(more, tmp_path / "run", resume=True)
    assert seen["steps"] == 64
    assert seen["counters"] == trainer["counters"]
    if algorithm == "dqn":
        assert trainer["counters"]["_n_calls"] == 16  # by which the target network's updates are timed
    for name, value in weights.items():
        assert torch.equal(seen[name], value)
    for key, entry in trainer["optimizer"]["state"].items():
        assert torch.equal(seen["optimizer"][key]["exp_avg"], entry["exp_avg"])
    after = last_checkpoint(tmp_path / "run")
    assert read_trainer(after)[0]["steps"] == 128
    assert any(not torch.equal(value, weights[name]) for name, value in read_policy_weights(after).items())
    assert len(checkpoints_of(tmp_path / "run")) == 2
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["steps"] for line in lines] == sorted(line["steps"] for line in lines)
    assert list((tmp_path / "run" / "tensorboard").iterdir())


@pytest.mark.parametrize("options", [{}, {"optimize_memory_usage": True}])
def test_a_replay_buffer_of_any_kind_is_resumed(options, sights, tmp_path):
    if options:  # stable-baselines3 has that for arrays only, and for ends that aren't cut off
        options = options | {"replay_buffer_kwargs": {"handle_timeout_termination": False}}
    trained = looking("numbers" if options else "names", "dqn")
    trained = replace(trained, hyperparameters=trained.hyperparameters | options)
    train_policy(trained, tmp_path)
    _, before = read_trainer(last_checkpoint(tmp_path))
    assert before is not None
    assert ("next_observations" in before or "next_observations/which" in before) == (not options)
    train_policy(replace(trained, timesteps=64), tmp_path, resume=True)
    _, after = read_trainer(last_checkpoint(tmp_path))
    assert after is not None
    assert after["position"] == 2 * before["position"] > 0
    first = [name for name in before if name.startswith("observations")]
    assert first
    for name in ("actions", "rewards", *first):
        np.testing.assert_array_equal(after[name][: len(before[name]) - 1], before[name][:-1])


def test_the_same_seed_gives_the_same_policy(tmp_path):
    for name in ("one", "two"):
        train_policy(config(), tmp_path / name)
    train_policy(config(seed=1), tmp_path / "other")
    one, two, other = (
        read_policy_weights(last_checkpoint(tmp_path / name)) for name in ("one", "two", "other")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_frames_are_stacked_in_training_and_in_acting(tmp_path):
    frames = config(
        env="RNEM-BallsReal-v0", env_options={"preset": "stove", "max_episode_steps": 5}, frame_stack=3
    )
    train_policy(frames, tmp_path)
    env = make_environment("RNEM-BallsReal-v0", 4, {"preset": "stove", "max_episode_steps": 5})
    agent = load_policy(tmp_path, env.single_observation_space, env.single_action_space)
    assert isinstance(agent, Agent)
    stacked = make_training_environment(frames)
    stacked.seed(3)
    expected = stacked.reset()
    observations, _ = env.reset(seed=3)
    agent.reset(4)
    for _ in range(4):
        actions = agent.act(observations)
        np.testing.assert_array_equal(agent._stack._frames, expected)
        np.testing.assert_array_equal(
            actions, agent.policy.predict(expected.transpose(0, 3, 1, 2), deterministic=True)[0]
        )
        expected, *_ = stacked.step(actions)
        observations, *_ = env.step(actions)


def test_a_signal_saves_and_stops(tmp_path, monkeypatch):
    stopping = policy_training._Watch._on_rollout_start

    def signalled(self):
        if self.num_timesteps >= 64:
            os.kill(os.getpid(), signal.SIGTERM)
        stopping(self)

    monkeypatch.setattr(policy_training._Watch, "_on_rollout_start", signalled)
    said: list[str] = []
    code = train_policy(config(timesteps=100_000), tmp_path, report=said.append)
    assert code == signal.SIGTERM
    assert "SIGTERM" in said[0]
    assert 64 <= read_trainer(last_checkpoint(tmp_path))[0]["steps"] < 100


@pytest.mark.parametrize(("algorithm", "timesteps"), [("ppo", 64), ("dqn", 64), ("ppo", 32)])
def test_a_policy_that_becomes_nan_is_an_error_and_the_last_checkpoint_stays(algorithm, timesteps, tmp_path):
    # After 32 steps it learns, and with no more than these it never acts again.
    options = {**SMALL[algorithm], "learning_rate": 1e30}
    with pytest.raises(TrainingError, match=r"NaN.*learning_rate=1e\+30 and rewards of up to 1:"):
        train_policy(replace(config(algorithm, timesteps=timesteps), hyperparameters=options), tmp_path)
    assert checkpoints_of(tmp_path)
    for checkpoint in checkpoints_of(tmp_path):
        assert all(bool(torch.isfinite(value).all()) for value in read_policy_weights(checkpoint).values())


class Sights(gymnasium.Env):
    """Observations of a given space, and actions that are counted from 3."""

    action_space = spaces.Discrete(2, start=3)
    reward = 1.0

    def __init__(self, space: spaces.Space) -> None:
        self.observation_space = space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        return self.observation_space.sample(), self.reward, self.steps == 5, False, {}


class NaNRewards(Sights):
    reward = float("nan")


FRAME = spaces.Box(0, 255, (36, 36, 3), np.uint8)
SIGHTS = {
    "numbers": spaces.Box(-1, 1, (3,), np.float32),
    "choice": spaces.Discrete(4, start=2),
    "choices": spaces.MultiDiscrete([2, 3], start=[1, 5]),
    "grey": spaces.Box(0, 255, (24, 24), np.uint8),
    "frame": FRAME,
    "channels first": spaces.Box(0, 255, (3, 36, 36), np.uint8),
    "names": spaces.Dict(
        {"where": spaces.Box(-1, 1, (3,), np.float32), "which": spaces.Discrete(4, start=1)}
    ),
    "frame and more": spaces.Dict({"frame": FRAME, "which": spaces.Discrete(4)}),
}


@pytest.fixture
def sights():
    """Registers environments that show something of each kind."""
    for name, space in SIGHTS.items():
        gymnasium.register(f"Sights/{name.title().replace(' ', '')}-v0", Sights, kwargs={"space": space})
    gymnasium.register("Sights/NaN-v0", NaNRewards, kwargs={"space": SIGHTS["numbers"]})
    yield
    for name in [name for name in gymnasium.registry if name.startswith("Sights/")]:
        del gymnasium.registry[name]


def looking(name: str, algorithm: str = "ppo", **values) -> PolicyConfig:
    return config(algorithm, f"Sights/{name.title().replace(' ', '')}-v0", timesteps=32, **values)


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
@pytest.mark.parametrize("name", SIGHTS)
def test_any_observations_and_actions_from_any_number_on_are_learned_from_and_acted_on(
    name, algorithm, sights, tmp_path
):
    train_policy(looking(name, algorithm), tmp_path / "run")
    env = make_environment(looking(name).env, 4, {})
    agent = load_policy(tmp_path / "run", env.single_observation_space, env.single_action_space)
    observations, _ = env.reset(seed=0)
    agent.reset(4)
    for _ in range(3):
        observations, *_ = env.step(agent.act(observations))


@pytest.mark.parametrize("name", ["frame", "channels first", "frame and more"])
def test_a_policy_acts_on_what_it_was_trained_on(name, sights, tmp_path, monkeypatch):
    kept = []
    learn = policy_training._learn

    def keep(model, *rest):
        kept.append(model)
        return learn(model, *rest)

    monkeypatch.setattr(policy_training, "_learn", keep)
    train_policy(looking(name), tmp_path)
    env = make_environment(looking(name).env, 4, {})
    agent = load_policy(tmp_path, env.single_observation_space, env.single_action_space)
    assert agent.policy.observation_space == kept[0].observation_space
    observations, _ = env.reset(seed=3)
    trained_in = kept[0].get_env()
    trained_in.seed(3)
    shown = trained_in.reset()
    agent.reset(4)
    expected, _ = kept[0].policy.predict(shown, deterministic=True)
    np.testing.assert_array_equal(agent.act(observations), expected + 3)


def test_the_policy_may_be_chosen(sights, tmp_path):
    slots = spaces.Box(-1, 1, (5, 6), np.float32)
    assert policy_kind(looking("frame"), FRAME)[1]["features_extractor_class"] is FrameFeatures
    assert policy_kind(looking("names"), SIGHTS["names"]) == ("MultiInputPolicy", {})
    assert policy_kind(looking("grey"), SIGHTS["grey"]) == ("MlpPolicy", {})
    assert policy_kind(looking("names"), slots)[1]["features_extractor_class"] is SlotFeatures
    chosen = looking("frame", policy="MlpPolicy")
    chosen = replace(chosen, hyperparameters=chosen.hyperparameters | {"policy_kwargs": {"net_arch": [7]}})
    train_policy(chosen, tmp_path)
    agent = load_policy(tmp_path, FRAME, Sights.action_space)
    assert agent.policy.mlp_extractor.policy_net[0].out_features == 7
    assert not isinstance(agent.policy.features_extractor, FrameFeatures)


def test_policies_that_do_not_say_their_width_have_the_former_one(tmp_path):
    dreams = {"obs_type": "slots", "checkpoint": "stove"}
    former = config(env="RNEM-Balls-v0", timesteps=32, env_options=dreams, slot_width=FORMER_WIDTH)
    train_policy(former, tmp_path)
    path = tmp_path / CONFIG_FILE
    values = json.loads(path.read_text())
    assert values.pop("slot_width") == FORMER_WIDTH
    path.write_text(json.dumps(values))
    env = LearnedEnv("stove", obs_type="slots")
    agent = load_policy(tmp_path, env.observation_space, env.action_space)
    assert agent.policy.features_extractor.embed[0].out_features == FORMER_WIDTH
    train_policy(replace(read_policy_config(tmp_path)[0], timesteps=64), tmp_path, resume=True)
    assert PolicyConfig().slot_width < FORMER_WIDTH
    with pytest.raises(ConfigError, match="slot_width is 30, expected a multiple of 4"):
        PolicyConfig(slot_width=30)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("names", {"policy": "MlpPolicy"}, r"MlpPolicy doesn't suit .*MultiInputPolicy"),
        ("numbers", {"policy": "CnnPolicy"}, "CnnPolicy refuses"),
        ("numbers", {"policy": "MultiInputPolicy"}, "MultiInputPolicy doesn't suit"),
        ("numbers", {"policy": "CnPolicy"}, "did you mean 'CnnPolicy'"),
        ("numbers", {"hyperparameters": {"policy": "CnnPolicy"}}, "give --policy"),
        ("numbers", {"hyperparameters": {"policy_kwargs": "wide"}}, "policy_kwargs is 'wide'"),
        ("numbers", {"hyperparameters": {"policy_kwargs": {"activation_fn": print}}}, "JSON"),
        ("numbers", {"env_options": {"space": FRAME}}, "JSON"),
    ],
)
def test_policies_that_see_something_else_are_refused(name, values, message, sights, tmp_path):
    with pytest.raises(ConfigError, match=message):
        train_policy(replace(looking(name), **values), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_rewards_that_are_nan_are_not_put_down_to_the_learning_rate(algorithm, sights, tmp_path):
    with pytest.raises(DivergenceError, match=r"rewards that are NaN.*mend the environment") as refused:
        train_policy(replace(looking("numbers", algorithm), env="Sights/NaN-v0"), tmp_path)
    assert "learning" not in str(refused.value).replace("nothing can be learned", "")


def test_errors_of_environments_are_theirs(sights, tmp_path, monkeypatch):
    def broken(self, action):
        raise ValueError("the tenant isn't in")

    monkeypatch.setattr(Sights, "step", broken)
    with pytest.raises(ValueError, match="tenant"):
        train_policy(looking("numbers"), tmp_path)


def test_names_of_observations_tell_policies_apart(sights, tmp_path):
    train_policy(looking("names"), tmp_path)
    other = spaces.Dict({"where": spaces.Box(-1, 1, (4,), np.float32), "which": spaces.Discrete(4)})
    with pytest.raises(CheckpointError, match="observations of the shape"):
        load_policy(tmp_path, other, Sights.action_space)
    with pytest.raises(CheckpointError, match="observations of the shape"):
        load_policy(tmp_path, SIGHTS["numbers"], Sights.action_space)


def test_agents_of_other_worlds_are_refused(tmp_path):
    train_policy(config(env="RNEM-BallsReal-v0", env_options={"preset": "stove"}), tmp_path)
    frames = spaces.Box(0, 255, (32, 32, 1), np.uint8)
    with pytest.raises(CheckpointError, match="actions 9, and the environment has 4"):
        load_policy(tmp_path, frames, spaces.Discrete(4))
    with pytest.raises(CheckpointError, match=r"\[32, 32, 1\].*\[64, 64, 1\]"):
        load_policy(tmp_path, spaces.Box(0, 255, (64, 64, 1), np.uint8), spaces.Discrete(9))
    load_policy(tmp_path, frames, spaces.Discrete(9))
    weights = last_checkpoint(tmp_path) / "policy.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="can't be read"):
        load_policy(tmp_path, frames, spaces.Discrete(9))
    with pytest.raises(CheckpointError, match="no agent"):
        load_policy(tmp_path / "nowhere", frames, spaces.Discrete(9))


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "checkpoints" / ".step-1.0.tmp").mkdir(parents=True)  # a process was killed
    with (
        Lock(tmp_path / "training.lock", "it is being trained"),
        pytest.raises(OutputError, match="being trained"),
    ):
        train_policy(config(), tmp_path)
    train_policy(config(), tmp_path)
    assert all(path.name.startswith("step-") for path in (tmp_path / "checkpoints").iterdir())
    with pytest.raises(CheckpointError, match="--resume"):
        train_policy(config(), tmp_path)
    said: list[str] = []
    train_policy(config(), tmp_path, resume=True, report=said.append)
    assert "done already" in said[-1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"algorithm": "pop"}, "did you mean 'ppo'"),
        ({"num_envs": 0}, "num_envs"),
        ({"env": "RNEM-BallReal-v0"}, "did you mean 'RNEM-BallsReal-v0'"),
        ({"env": "RNEM-BallsReal-v0", "env_options": {"presets": "stove"}}, "presets"),
        ({"env": "RNEM-BallsReal-v0", "env_options": {"preset": "stov"}}, "did you mean 'stove'"),
        ({"env": "CartPole-v1", "hyperparameters": {"learning_rat": 1}}, "learning_rate"),
        ({"env": "CartPole-v1", "hyperparameters": {"n_steps": "many"}}, "refuses"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(values, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        train_policy(PolicyConfig(**values), tmp_path / "run")
    assert not (Path(tmp_path) / "run").exists()


def test_real_frames_may_be_seen_as_slots(tmp_path):
    real = config(env="RNEM-BallsReal-v0", slots_of="balls", timesteps=32)
    train_policy(real, tmp_path / "real")
    dreamed = make_training_environment(config(env="RNEM-Balls-v0", env_options={"obs_type": "slots"}))
    real_env = make_training_environment(real)
    assert real_env.observation_space == dreamed.observation_space
    assert np.isfinite(real_env.reset()).all()
    agent = load_policy(tmp_path / "real", dreamed.observation_space, dreamed.action_space)
    assert agent.act(np.zeros((2, 5, 128), np.float32)).shape == (2,)
    with pytest.raises(CheckpointError, match="ball"):
        make_training_environment(config(env="RNEM-BallsReal-v0", slots_of="ball"))

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from rnem_world.agents.collecting import collect
from rnem_world.agents.collection import AtariCollection
from rnem_world.agents.policy_agent import TrainedPolicyAgent, load_sb3_policy
from rnem_world.data import collector
from rnem_world.data.dataset import Dataset
from rnem_world.data.writer import write_shard
from rnem_world.envs.atari import AtariVectorEnv
from rnem_world.envs.atari_frames import chosen_background
from rnem_world.errors import CheckpointError, ConfigError, DataError, OutputError
from tests.envs.atari_cache import black

pytest.importorskip("ale_py")

SMALL = {"num_train": 6, "num_valid": 4, "num_test": 0, "frames": 12, "shard_size": 4, "progress": False}


@pytest.fixture
def background(tmp_path) -> Path:
    path = tmp_path / "background.npy"
    np.save(path, black())
    return path


def read_all(path: Path, split: str = "training") -> dict[str, np.ndarray]:
    with Dataset.open(path) as dataset:
        info = dataset.info(split)
        return dataset.read(split, range(info.number_of_sequences), info.arrays)


def test_a_dataset_says_all_about_its_frames_and_plays_again(tmp_path, background):
    path = collect(
        "atari", tmp_path / "b.h5", game="breakout", **SMALL, seed=3, background=background, reward="raw"
    )
    data = read_all(path)
    assert set(np.unique(data["features"])) == {0, 1}
    assert data["features"].shape == (12, 6, 84, 84, 1)
    with Dataset.open(path) as dataset:
        settings = dataset.attributes.settings
        assert dataset.attributes.environment_id == "RNEM-AtariReal-v0"
        assert dataset.attributes.number_of_actions == 4
    assert settings["game"] == "Breakout"
    assert settings["action_names"] == ["NOOP", "FIRE", "RIGHT", "LEFT"]
    np.testing.assert_array_equal(chosen_background("Breakout", path), black())
    with pytest.raises(DataError, match="of Breakout, not of Pong"):
        chosen_background("Pong", path)


def interrupt_after(shards: int):
    """Writes so many shards, and then behaves as Ctrl-C does."""
    left = [shards]

    def write(*arguments) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write_shard(*arguments)

    return write


def test_the_same_for_any_number_of_processes_and_after_an_interruption(tmp_path, background, monkeypatch):
    alone = collect("atari", tmp_path / "1.h5", game="Breakout", **SMALL, background=background)
    together = collect("atari", tmp_path / "2.h5", game="Breakout", **SMALL, background=background, workers=2)
    whole = tmp_path / "whole.h5"
    with monkeypatch.context() as patch:
        patch.setattr(collector, "write_shard", interrupt_after(2))
        with pytest.raises(KeyboardInterrupt):
            collect("atari", whole, game="Breakout", **SMALL, background=background)
    assert len(list((tmp_path / "whole.h5.parts").glob("*.h5"))) == 2
    collect("atari", whole, game="Breakout", **SMALL, background=background)
    assert whole.read_bytes() == alone.read_bytes()
    for split in ("training", "validation"):
        one, two = read_all(alone, split), read_all(together, split)
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
    assert not np.array_equal(
        read_all(alone)["actions"][:, :4], read_all(alone, "validation")["actions"][:, :4]
    )


@pytest.mark.parametrize(("kind", "channels"), [("grayscale", 1), ("rgb", 3)])
def test_greys_and_colours(tmp_path, kind, channels):
    path = collect("atari", tmp_path / "p.h5", game="Pong", **SMALL, obs_type=kind, policy="random")
    frames = read_all(path)["features"]
    assert frames.shape[4] == channels
    assert frames.max() > 1
    with Dataset.open(path) as dataset:
        assert dataset.attributes.maximum_value == 255
        assert "background" not in dataset.attributes.settings
    with pytest.raises(DataError, match="holds no background"):
        chosen_background("Pong", path)


class Remembering:
    """Stands for a model of stable-baselines3 where only its spaces and what it is shown matter."""

    def __init__(self, shape: tuple[int, ...], actions: int = 4) -> None:
        from gymnasium import spaces

        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.action_space = spaces.Discrete(actions)
        self.shown: list[np.ndarray] = []

    def predict(self, observations, deterministic):
        self.shown.append(observations.copy())
        return np.full(len(observations), 1), None


def test_a_trained_policy_sees_stacks_that_never_cross_a_reset():
    env = AtariVectorEnv(
        2, "Breakout", background=black(), max_episode_steps=3, autoreset_mode="Disabled", reward="sign"
    )
    model = Remembering((84, 84, 4))
    agent = TrainedPolicyAgent(model, env)
    observations, _ = env.reset(seed=0)
    agent.reset(2)
    frames = []
    for time in range(5):
        frames.append(env.frames())
        *_, truncations, _ = env.step(agent.act(observations))
        if truncations.any():
            env.reset(options={"reset_mask": truncations})
        shown = model.shown[-1]
        begin = 0 if time < 3 else 3
        for back in range(4):
            expected = frames[time - back] if time - back >= begin else np.zeros_like(frames[0])
            np.testing.assert_array_equal(shown[..., 3 - back], expected)
    first = Remembering((4, 84, 84))
    agent = TrainedPolicyAgent(first, env, "observations")
    agent.act(env.reset(seed=0)[0])
    assert first.shown[0].shape == (2, 4, 84, 84)
    assert set(np.unique(first.shown[0])) <= {0, 255}


def test_a_policy_of_another_game_is_refused():
    env = AtariVectorEnv(2, "Breakout", background=black())
    with pytest.raises(ConfigError, match="knows 6 actions, and the game has 4"):
        TrainedPolicyAgent(Remembering((84, 84, 4), 6), env)
    with pytest.raises(ConfigError, match="84x84"):
        TrainedPolicyAgent(Remembering((64, 64, 4)), env)


def test_a_checkpoint_of_stable_baselines3_collects_if_it_is_trusted(tmp_path):
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

    from rnem_world.envs.atari import AtariEnv

    stacked = VecFrameStack(DummyVecEnv([lambda: AtariEnv("Breakout", "grayscale")]), 2)
    path = tmp_path / "policy.zip"
    sb3.A2C("CnnPolicy", stacked, policy_kwargs={"features_extractor_kwargs": {"features_dim": 8}}).save(path)
    wanted = {"num_train": 2, "num_valid": 0, "num_test": 0, "frames": 5, "progress": False}
    with pytest.raises(ConfigError, match=r"a pickle can run any program.*--trust-policy"):
        collect("atari", tmp_path / "a.h5", game="Breakout", **wanted, policy=str(path), obs_type="grayscale")
    with pytest.raises(ConfigError, match="knows 4 actions"):
        collect(
            "atari",
            tmp_path / "a.h5",
            game="Pong",
            **wanted,
            policy=str(path),
            obs_type="rgb",
            trust_policy=True,
        )
    assert [file.name for file in tmp_path.iterdir()] == ["policy.zip"]
    one, two = (
        collect(
            "atari",
            tmp_path / f"{name}.h5",
            game="Breakout",
            **wanted,
            policy=str(path),
            obs_type="grayscale",
            trust_policy=True,
        )
        for name in "ab"
    )
    np.testing.assert_array_equal(read_all(one)["actions"], read_all(two)["actions"])
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("data", "{}")
    for name, match in (
        ("broken", "no checkpoint of stable-baselines3"),
        ("other", "none of the algorithms"),
    ):
        with pytest.raises(CheckpointError, match=match):
            load_sb3_policy(tmp_path / f"{name}.zip", True, 0)


def test_the_files_it_is_made_with_are_never_replaced(tmp_path, background):
    before = background.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="is what the dataset is to be made of"):
            collect("atari", background, game="Breakout", **SMALL, background=background, overwrite=overwrite)
    policy = tmp_path / "ppo.zip"
    policy.write_bytes(b"policy")
    with pytest.raises(OutputError, match=r"ppo\.zip is what"):
        collect("atari", policy, **SMALL, policy=str(policy), trust_policy=True, overwrite=True)
    assert (background.read_bytes(), policy.read_bytes()) == (before, b"policy")


def test_paths_hold_in_another_working_directory(tmp_path, background, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "ppo.zip").write_bytes(b"policy")
    monkeypatch.chdir(tmp_path)
    collection = AtariCollection(
        num_train=2, num_valid=0, num_test=0, frames=12, game="Breakout", background=background.name
    )
    trained = AtariCollection(policy="ppo.zip", trust_policy=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = collect(collection, "o.h5", progress=False)
    assert path == tmp_path / "elsewhere" / "o.h5"
    np.testing.assert_array_equal(chosen_background("Breakout", path), black())
    assert trained.files == (tmp_path / "ppo.zip",)

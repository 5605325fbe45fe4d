"""Collecting from environments of any kind: what is stored, how much, who plays, and what is refused."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.envs.registration import WrapperSpec

from rnem_world.actions import ActionSpace
from rnem_world.agents.any_collection import AnyCollection, any_collection
from rnem_world.agents.collecting import collect
from rnem_world.data.dataset import Dataset
from rnem_world.envs.any import AnyVectorEnv
from rnem_world.envs.recipe import EnvironmentRecipe
from rnem_world.errors import ConfigError, DependencyError, SimulationError

MODULE = '''
import gymnasium, numpy as np
from gymnasium import spaces

class Dot(gymnasium.Env):
    """A dot in a row of eight: right, left or stay; the episode ends at the right end."""

    observation_space = spaces.Box(0, 1, (4, 8, 2), np.uint8)
    action_space = spaces.Discrete(3, start=-1)

    def __init__(self, breaks_after=10**9):
        self.breaks_after, self.steps = breaks_after, 0

    def shown(self):
        frame = np.zeros((4, 8, 2), np.uint8)
        frame[2, self.place, 0] = 1
        frame[0, :, 1] = 1
        return frame

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(6))
        return self.shown(), {}

    def step(self, action):
        self.steps += 1
        if self.steps > self.breaks_after:
            raise ZeroDivisionError("it broke")
        self.place = max(self.place + int(action), 0)
        ends = self.place == 7
        return self.shown(), float(ends), ends, False, {}

def right(observation):
    return 1

def any_side(observation, generator):
    return generator.integers(-1, 2)

def wrong(observation):
    return 5

def broken(observation):
    return observation["nothing"]

gymnasium.register("My/Dot-v0", Dot, max_episode_steps=20)
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of a user's with an environment and players."""
    import sys

    (tmp_path / "my_dots.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield "my_dots"
    for name in [name for name in gymnasium.registry if name.startswith("My/")]:
        del gymnasium.registry[name]
    sys.modules.pop("my_dots", None)


def read_all(dataset):
    return dataset.read("training", range(6), dataset.info("training").arrays)


SMALL = {"num_train": 6, "num_valid": 1, "num_test": 1, "frames": 30}


def test_streams_hold_every_transition_of_episodes_however_short(module):
    path = collect("my_dots:My/Dot-v0", policy="my_dots:right", **SMALL)
    assert path.name == "Dot-v0.h5"
    with Dataset.open(path) as dataset:
        attributes = dataset.attributes
        read = read_all(dataset)
    assert attributes.action_space == ActionSpace.discrete(3, -1)
    assert attributes.number_of_actions == 3
    assert attributes.environment_id == "my_dots:My/Dot-v0"
    assert attributes.maximum_value == 1
    frames, actions = read["features"], read["actions"]
    assert frames.shape == (30, 6, 4, 8, 2)
    places = frames[:, :, 2, :, 0].argmax(axis=2)
    first, ended = read["is_first"], read["terminations"]
    # Behind the frame at the right end comes a first frame; before it every action led one to the right.
    assert ended.any()
    assert first[0].any()
    for t in range(29):
        moved = ~first[t + 1]
        assert (places[t + 1] == places[t] + 1)[moved].all()
        assert (actions[t] == 2)[moved].all()  # stored from 0 on
        assert (read["rewards"][t] == (places[t + 1] == 7))[moved].all()
        assert (ended[t] == (places[t + 1] == 7))[moved].all()
        assert (places[t] == 7)[first[t + 1]].all()
    assert not read["truncations"].any()


def test_truncations_are_told_from_ends(module):
    path = collect("my_dots:Dot", policy="stay", max_episode_steps=5, **SMALL)
    with Dataset.open(path) as dataset:
        read = read_all(dataset)
        recipe = dataset.attributes.settings["recipe"]
    assert recipe["max_episode_steps"] == 5
    assert not read["terminations"].any()
    # Of every six frames the last is shown once more, as the last of its episode.
    assert read["truncations"][:, 0].nonzero()[0].tolist() == [4, 10, 16, 22, 28]
    assert read["is_first"][:, 0].nonzero()[0].tolist() == [0, 6, 12, 18, 24]


def test_the_same_seed_gives_the_same_data_for_any_number_of_processes(module, tmp_path):
    kind = {**SMALL, "shard_size": 3, "policy": "random:0.5,my_dots:any_side:0.5"}
    alone = collect("my_dots:My/Dot-v0", tmp_path / "1.h5", **kind)
    together = collect("my_dots:My/Dot-v0", tmp_path / "2.h5", workers=2, **kind)
    with Dataset.open(alone) as one, Dataset.open(together) as two:
        assert one.attributes == two.attributes
        for name, array in read_all(one).items():
            assert np.array_equal(array, read_all(two)[name]), name


def test_functions_make_the_environment_and_play_in_it(module, tmp_path):
    import importlib

    dots = importlib.import_module("my_dots")
    path = collect(dots.Dot, tmp_path / "d.h5", policy=lambda shown: -1, **SMALL)
    with Dataset.open(path) as dataset:
        assert (read_all(dataset)["actions"] == 0).all()
        assert dataset.attributes.settings["policy"] == "<lambda>"
        assert "id" not in dataset.attributes.settings["recipe"]
    wrapped = collect(
        lambda: gymnasium.wrappers.TimeLimit(gymnasium.make("my_dots:My/Dot-v0", breaks_after=999), 4),
        tmp_path / "w.h5",
        policy="stay",
        **SMALL,
    )
    with Dataset.open(wrapped) as dataset:
        recipe = EnvironmentRecipe.from_json(dataset.attributes.settings["recipe"])
    assert recipe.options == {"breaks_after": 999}
    env = AnyVectorEnv(1, recipe)
    env.reset(seed=0)
    assert [bool(env.step(np.array([0]))[3][0]) for _ in range(4)] == [False, False, False, True]
    with pytest.raises(ConfigError, match=r"several processes.*workers=1"):
        collect(lambda: dots.Dot(9), tmp_path / "x.h5", workers=2, **SMALL)
    with pytest.raises(ConfigError, match="put them into it"):
        collect(dots.Dot, tmp_path / "x.h5", env_options={"breaks_after": 3}, **SMALL)


def test_a_player_is_a_function():
    with pytest.raises(ConfigError, match="the player is 3"):
        AnyCollection(recipe=EnvironmentRecipe("CartPole-v1"), player=3)


def test_how_much_is_said_by_frames_or_by_sequences():
    usual = AnyCollection(recipe=EnvironmentRecipe("CartPole-v1"))
    assert sum(usual.sizes().sequences.values()) * 51 == pytest.approx(50_000, rel=0.01)
    some = AnyCollection(recipe=EnvironmentRecipe("CartPole-v1"), steps_of_data=2000)
    assert some.sizes().sequences == {"training": 36, "validation": 2, "test": 2}
    assert some.name == "CartPole-v1"
    named = any_collection("ALE/Pong-v5", {"size": "36x64", "grayscale": True})
    assert named.name == "Pong-v5-36x64-grayscale"
    assert named.recipe.size == (36, 64)
    with pytest.raises(ConfigError, match="leave one out"):
        AnyCollection(recipe=EnvironmentRecipe("CartPole-v1"), steps_of_data=2000, num_train=3)
    with pytest.raises(ConfigError, match="two sequences of 51 frames"):
        AnyCollection(recipe=EnvironmentRecipe("CartPole-v1"), steps_of_data=60)


def test_an_environment_that_breaks_in_the_middle_loses_nothing(module, tmp_path):
    options = {**SMALL, "shard_size": 1, "policy": "stay", "env_options": {"breaks_after": 70}}
    with pytest.raises(SimulationError, match=r"My/Dot-v0, step .* fails: ZeroDivisionError: it broke"):
        collect("my_dots:My/Dot-v0", tmp_path / "d.h5", **{**options, "frames": 100})
    assert not (tmp_path / "d.h5").exists()
    assert not (tmp_path / "d.h5.parts").exists()  # nothing was finished
    for workers in (1, 2):
        good = collect(
            "my_dots:My/Dot-v0",
            tmp_path / "d.h5",
            overwrite=True,
            workers=workers,
            **{**options, "frames": 60},
        )
        assert good.exists()


class Twice(gymnasium.ActionWrapper):
    """Does nothing, twice."""

    def action(self, action):
        return action


def test_wrappers_that_an_id_comes_with_are_applied_once():
    own = WrapperSpec("Twice", f"{__name__}:Twice", {})
    clip = WrapperSpec("Clip", "gymnasium.wrappers:ClipReward", {"min_reward": 0.0, "max_reward": 1.0})
    gymnasium.register("Own/Wrapped-v0", CartPoleEnv, max_episode_steps=9, additional_wrappers=(own, clip))
    try:
        plain = any_collection(lambda: gymnasium.make("Own/Wrapped-v0"), {}).recipe
        more = any_collection(
            lambda: gymnasium.wrappers.TimeAwareObservation(gymnasium.make("Own/Wrapped-v0")), {}
        ).recipe
    finally:
        del gymnasium.registry["Own/Wrapped-v0"]
    assert plain.id == more.id == "Own/Wrapped-v0"
    assert list(plain.wrappers) == []
    assert [each["entry_point"].rpartition(":")[2] for each in more.wrappers] == ["TimeAwareObservation"]


@pytest.mark.parametrize(
    ("what", "options", "kind", "message"),
    [
        ("my_dots:My/Dot-v9", {}, ConfigError, "my_dots:My/Dot-v9"),
        ("Cartpole-v1", {}, ConfigError, "did you mean 'CartPole-v1'"),
        ("balsl", {}, ConfigError, "did you mean 'balls'"),
        ("no_such_module:X-v0", {}, DependencyError, "no module 'no_such_module'"),
        ("my_dots:Dot", {"policy": "rndom"}, ConfigError, "did you mean 'random'"),
        ("my_dots:Dot", {"policy": "my_dots:nobody"}, ConfigError, "expected a function"),
        (
            "my_dots:Dot",
            {"policy": "my_dots:wrong"},
            ConfigError,
            "my_dots:wrong returns 5, expected an action",
        ),
        ("my_dots:Dot", {"policy": "my_dots:broken"}, ConfigError, "my_dots:broken fails: IndexError"),
        ("my_dots:Dot", {"policy": "nothing.zip"}, ConfigError, "no policy nothing.zip"),
        ("my_dots:Dot", {"trust_policy": True}, ConfigError, "--trust-policy is for a .zip"),
        ("my_dots:Dot", {"colour": 3}, ConfigError, "unknown option 'colour'"),
        ("my_dots:Dot", {"env_options": {"size": 3}}, ConfigError, "can't make my_dots:Dot"),
        ("my_dots:Dot", {"size": "4by4"}, ConfigError, "36x64"),
        ("my_dots:Dot", {"binarise": "threshold"}, ConfigError, "2 channels"),
        ("my_dots:Dot", {"threshold": 9}, ConfigError, "threshold is 9, and binarise None"),
        (
            "my_dots:Dot",
            {"threshold": 9, "binarise": "background"},
            ConfigError,
            "binarise='threshold'",
        ),
        ("my_dots:Dot", {"frames": 0}, ConfigError, "frames is 0"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    module, tmp_path, what, options, kind, message
):
    with pytest.raises(kind, match=message) as caught:
        collect(what, tmp_path / "d.h5", **{**SMALL, **options})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("d.h5*"))

"""The adapter's transitions against those of DummyVecEnv over the same single environments."""

from __future__ import annotations

import copy
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

pytest.importorskip("stable_baselines3")

from stable_baselines3.common.vec_env import DummyVecEnv

from rnem_world.agents.sb3 import VectorEnvAdapter, unbatched
from rnem_world.envs.balls import BouncingBallsEnv, BouncingBallsVectorEnv
from rnem_world.errors import ConfigError, DivergenceError

MODES = list(AutoresetMode)


class Walk(gymnasium.Env):
    """A random walk that ends at 3 with a reward; infos of several kinds."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 1}
    action_space = spaces.Discrete(2)
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, as_dict: bool = False) -> None:
        self.render_mode = "rgb_array"
        self.as_dict = as_dict
        self.label = "walk"
        if as_dict:
            self.observation_space = spaces.Dict(
                {"place": self.observation_space, "time": spaces.Discrete(99)}
            )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.time = self.np_random.normal(size=2).astype(np.float32), 0
        return self.shown(), {"start": float(self.place[0]), "options": str(options or None)}

    def step(self, action):
        self.place = self.place + self.np_random.normal(size=2).astype(np.float32) + np.float32(action)
        self.time += 1
        ended = bool(self.place[0] > 3)
        info = {"time": self.time, "nested": {"x": float(self.place[0])}}
        if self.time % 2:
            info["odd"] = True
        return self.shown(), float(ended), ended, False, info

    def shown(self):
        return {"place": self.place.copy(), "time": self.time} if self.as_dict else self.place.copy()

    def render(self):
        return np.full((4, 4, 3), self.time, dtype=np.uint8)

    def add(self, number: int) -> int:
        return self.time + number


def make_walk(as_dict: bool = False, limit: int = 6):
    return lambda: gymnasium.wrappers.TimeLimit(Walk(as_dict), limit)


def assert_same(one, other) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    elif isinstance(one, np.ndarray):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


def plain(infos: list[dict]) -> list[dict]:
    """Numbers as Python has them: a vector environment keeps them in arrays."""

    def convert(value):
        if isinstance(value, dict):
            return {key: convert(entry) for key, entry in value.items()}
        if isinstance(value, np.generic):
            return value.item()
        return value.tolist() if isinstance(value, np.ndarray) and not value.shape else value

    return [convert(info) for info in infos]


def compare(adapter: VectorEnvAdapter, reference: DummyVecEnv, steps: int = 40) -> tuple[int, int]:
    adapter.seed(7)
    reference.seed(7)
    assert_same(adapter.reset(), reference.reset())
    assert_same(plain(adapter.reset_infos), plain(reference.reset_infos))
    rng = np.random.default_rng(0)
    ended = cut = 0
    handed_out = []
    for _ in range(steps):
        actions = rng.integers(reference.action_space.n, size=adapter.num_envs)
        mine, theirs = adapter.step(actions), reference.step(actions)
        for left, right in zip(mine[:3], theirs[:3], strict=True):
            assert_same(left, right)
        assert_same(plain(mine[3]), plain(theirs[3]))
        handed_out.append((mine[0], copy.deepcopy(mine[0])))
        assert_same(plain(adapter.reset_infos), plain(reference.reset_infos))
        ended += sum(
            info["TimeLimit.truncated"] is False for info, over in zip(mine[3], mine[2], strict=True) if over
        )
        cut += sum(info["TimeLimit.truncated"] for info in mine[3])
    for observations, as_they_were in handed_out:
        assert_same(observations, as_they_were)
    return ended, cut


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("as_dict", [False, True])
def test_transitions_are_those_of_dummy_vec_env(mode, as_dict):
    makers = [make_walk(as_dict)] * 5
    # An environment that writes into the same arrays with every step is no matter either.
    vector = SyncVectorEnv(makers, copy=mode is AutoresetMode.NEXT_STEP, autoreset_mode=mode)
    ended, cut = compare(VectorEnvAdapter(vector), DummyVecEnv(makers))
    assert ended > 5
    assert cut > 5


@pytest.mark.parametrize("mode", MODES)
def test_batched_balls_are_those_of_dummy_vec_env(mode):
    def make():
        return gymnasium.wrappers.TimeLimit(BouncingBallsEnv("stove", ground_truth=True), 4)

    batched = BouncingBallsVectorEnv(
        3, preset="stove", max_episode_steps=4, autoreset_mode=mode, ground_truth=True
    )
    _, cut = compare(VectorEnvAdapter(batched), DummyVecEnv([make] * 3), steps=14)
    assert cut == 9


def test_attributes_and_methods_of_sub_environments():
    adapter, reference = VectorEnvAdapter(SyncVectorEnv([make_walk()] * 3)), DummyVecEnv([make_walk()] * 3)
    for env in (adapter, reference):
        env.seed(0)
        env.set_options({"how": 1})
        env.reset()
        assert env.reset_infos[0]["options"] == "{'how': 1}"
        env.reset()
        assert env.reset_infos[0]["options"] == "None"
        env.step(np.zeros(3, dtype=np.int64))
        assert env.get_attr("label") == ["walk"] * 3
        assert env.env_method("add", 4, indices=[0, 2]) == [5, 5]
        env.set_attr("label", "stroll", indices=1)
        assert env.get_attr("label", indices=[1]) == ["stroll"]
        assert env.has_attr("label")
        assert not env.has_attr("nothing")
        assert env.env_is_wrapped(gymnasium.wrappers.TimeLimit) == [True] * 3
        assert env.env_is_wrapped(gymnasium.wrappers.TransformReward, indices=0) == [False]
        assert env.render_mode == "rgb_array"
        assert env.render().shape == (8, 8, 3)
        env.close()


def test_attributes_and_methods_of_one_batch():
    adapter = VectorEnvAdapter(BouncingBallsVectorEnv(3, preset="stove", render_mode="rgb_array"))
    adapter.seed(0)
    adapter.reset()
    assert adapter.get_attr("max_episode_steps", indices=[0, 1]) == [100, 100]
    adapter.set_attr("max_episode_steps", 2)
    assert adapter.get_attr("max_episode_steps") == [2, 2, 2]
    with pytest.raises(ConfigError, match="one batch"):
        adapter.set_attr("max_episode_steps", 2, indices=[0])
    with pytest.raises(ConfigError, match="one batch"):
        adapter.env_method("get_state", indices=0)
    assert len(adapter.env_method("get_state")) == 3
    assert adapter.env_is_wrapped(gymnasium.wrappers.TimeLimit) == [False] * 3
    assert len(adapter.get_images()) == 3


def test_an_environment_that_ignores_the_mask_is_found_out():
    adapter = VectorEnvAdapter(
        gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="vector_entry_point", max_episode_steps=500)
    )
    adapter.seed(0)
    adapter.reset()

    def play() -> None:
        for _ in range(200):
            adapter.step(np.array([0, 1, 1]))

    with pytest.raises(ConfigError, match="reset_mask"):
        play()


def test_nan_is_refused():
    class Broken(Walk):
        def step(self, action):
            observation, *rest = super().step(action)
            return observation * np.nan, *rest

    adapter = VectorEnvAdapter(SyncVectorEnv([Broken] * 2))
    adapter.reset()
    with pytest.raises(DivergenceError, match="NaN"):
        adapter.step(np.zeros(2, dtype=np.int64))


def test_what_cannot_be_adapted_is_refused():
    env = BouncingBallsVectorEnv(1)
    env.metadata = {"autoreset_mode": "whenever"}
    with pytest.raises(ConfigError, match="AutoresetMode"):
        VectorEnvAdapter(env)
    adapter = VectorEnvAdapter(SyncVectorEnv([make_walk()] * 2))
    adapter.set_options([{"a": 1}, {"a": 2}])
    with pytest.raises(ConfigError, match="same options"):
        adapter.reset()


def test_infos_are_taken_apart():
    infos = {
        "a": np.array([1, 2]),
        "_a": np.array([True, False]),
        "b": {"c": np.array([3, 4])},
        "_b": np.ones(2, bool),
    }
    assert unbatched(infos, 2) == [{"a": 1, "b": {"c": 3}}, {"b": {"c": 4}}]

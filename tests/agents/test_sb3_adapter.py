"""The adapter's transitions against those of DummyVecEnv over the same single environments."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorWrapper
from gymnasium.wrappers import vector as wrappers

pytest.importorskip("stable_baselines3")

from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecVideoRecorder

from rnem_world.agents.sb3 import VectorEnvAdapter, unbatched
from rnem_world.envs.balls import BouncingBallsEnv, BouncingBallsVectorEnv
from rnem_world.envs.slots import SlotVectorObservation
from rnem_world.errors import ConfigError, DivergenceError

MODES = list(AutoresetMode)


class Walk(gymnasium.Env):
    """A random walk that ends at 3, with rewards on the way; infos of several kinds."""

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
        if ended:
            info["final_place"] = float(self.place[1])
        return self.shown(), float(self.place[1]), ended, False, info

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


class Counted(VectorWrapper):
    """Notes with every step how many there were, and with every reset which environments are meant; as a user might."""

    def __init__(self, env):
        super().__init__(env)
        self.steps, self.masks = np.zeros(env.num_envs, dtype=np.int64), []

    def reset(self, *, seed=None, options=None):
        shown = super().reset(seed=seed, options=options)
        self.masks.append((options or {}).get("reset_mask"))
        return shown

    def step(self, actions):
        *rest, infos = super().step(actions)
        self.steps = self.steps + 1
        return *rest, {**infos, "counted": self.steps}


def without_seconds(infos: list[dict]) -> list[dict]:
    for info in infos:
        info.get("episode", {}).pop("t", None)
    return infos


def played(adapter, steps: int = 40) -> list[Any]:
    """All that an adapter gives in some steps, without what differs between two sittings."""
    adapter.seed(7)
    given = [adapter.reset()]
    rng = np.random.default_rng(0)
    for _ in range(steps):
        observations, rewards, over, infos = adapter.step(rng.integers(2, size=adapter.num_envs))
        given += [observations, rewards, over, plain(without_seconds(infos)), plain(adapter.reset_infos)]
    return given


@pytest.mark.parametrize("mode", MODES)
def test_statistics_of_episodes_are_those_of_dummy_vec_env(mode):
    def make():
        return gymnasium.wrappers.RecordEpisodeStatistics(make_walk()())

    vector = SyncVectorEnv([make_walk()] * 5, autoreset_mode=mode)
    given = played(VectorEnvAdapter(wrappers.RecordEpisodeStatistics(vector)))
    assert_same(given, played(DummyVecEnv([make] * 5)))
    assert sum("episode" in info for infos in given[4::5] for info in infos) > 10


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: wrappers.NormalizeReward(wrappers.RecordEpisodeStatistics(env)),
        lambda env: wrappers.RecordEpisodeStatistics(
            wrappers.RecordEpisodeStatistics(env), stats_key="again"
        ),
        lambda env: wrappers.DictInfoToList(wrappers.ClipReward(env, 0, 0.5)),
        lambda env: wrappers.DictInfoToList(wrappers.RecordEpisodeStatistics(env)),
        lambda env: Counted(wrappers.RecordEpisodeStatistics(Counted(env))),
    ],
)
def test_wrapped_environments_give_the_same_in_all_modes(mode, wrap):
    def adapted(mode):
        return VectorEnvAdapter(wrap(SyncVectorEnv([make_walk()] * 5, autoreset_mode=mode)))

    given = played(adapted(mode))
    for infos in given[4::5]:
        for info in infos:
            info.get("again", {}).pop("t", None)
    expected = played(adapted(AutoresetMode.NEXT_STEP))
    for infos in expected[4::5]:
        for info in infos:
            info.get("again", {}).pop("t", None)
    assert_same(given, expected)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_each_wrapper_is_told_which_environments_are_reset(mode):
    inner = Counted(SyncVectorEnv([make_walk(limit=2), make_walk(limit=3)], autoreset_mode=mode))
    outer = Counted(wrappers.RecordEpisodeStatistics(inner))
    adapter = VectorEnvAdapter(outer)
    adapter.seed(7)  # with this seed nobody's walk ends by itself
    adapter.reset()
    for _ in range(3):
        adapter.step(np.zeros(2, dtype=np.int64))
    assert [mask if mask is None else mask.tolist() for mask in outer.masks] == [
        None,
        [True, False],
        [False, True],
    ]
    assert_same(inner.masks, outer.masks)


@pytest.mark.parametrize("mode", MODES)
def test_observations_through_wrappers_are_those_of_dummy_vec_env(mode):
    def make():
        return gymnasium.wrappers.ReshapeObservation(make_walk()(), (1, 2))

    vector = SyncVectorEnv([make_walk()] * 3, autoreset_mode=mode)
    if mode is AutoresetMode.SAME_STEP:  # Gymnasium's vector wrappers of observations refuse that
        vector = SyncVectorEnv([make] * 3, autoreset_mode=mode)
    else:
        vector = wrappers.ReshapeObservation(vector, (1, 2))
    assert_same(played(VectorEnvAdapter(vector)), played(DummyVecEnv([make] * 3)))


def test_statistics_of_episodes_reach_ppo():
    for mode in MODES:
        env = wrappers.RecordEpisodeStatistics(SyncVectorEnv([make_walk()] * 2, autoreset_mode=mode))
        model = PPO("MlpPolicy", VectorEnvAdapter(env), n_steps=16, batch_size=16, n_epochs=1, device="cpu")
        model.learn(32)
        assert len(model.ep_info_buffer) > 3
        assert all(0 < entry["l"] <= 6 for entry in model.ep_info_buffer)


@pytest.mark.parametrize("mode", MODES)
def test_slots_of_real_frames_are_adapted_in_all_modes(mode, tiny_world):
    def adapted(mode):
        balls = BouncingBallsVectorEnv(
            3, preset="avoid", max_episode_steps=4, ground_truth=True, autoreset_mode=mode
        )
        return VectorEnvAdapter(SlotVectorObservation(wrappers.RecordEpisodeStatistics(balls), tiny_world))

    given, expected = (played(adapted(each), steps=10) for each in (mode, AutoresetMode.NEXT_STEP))
    assert [info["episode"]["l"] for info in given[4 + 5 * 3]] == [4, 4, 4]
    for one, other in zip(given[4::5], expected[4::5], strict=True):
        for left, right in zip(one, other, strict=True):
            if "terminal_observation" in left:
                np.testing.assert_allclose(
                    left.pop("terminal_observation"), right.pop("terminal_observation"), atol=1e-5
                )
        assert_same(one, other)


def test_processes_give_what_one_process_gives():
    vector = AsyncVectorEnv([make_walk()] * 2, shared_memory=True)
    adapter = VectorEnvAdapter(wrappers.RecordEpisodeStatistics(vector))
    one = VectorEnvAdapter(wrappers.RecordEpisodeStatistics(SyncVectorEnv([make_walk()] * 2)))
    assert_same(played(adapter, 12), played(one, 12))
    assert adapter.get_attr("label") == ["walk"] * 2
    adapter.set_attr("label", "stroll", indices=1)
    assert adapter.get_attr("label") == ["walk", "stroll"]
    adapter.close()


def test_the_metadata_are_the_environments(tmp_path):
    pytest.importorskip("moviepy")
    balls = BouncingBallsVectorEnv(2, preset="stove", render_mode="rgb_array")
    for mode in MODES:
        vector = wrappers.RecordEpisodeStatistics(SyncVectorEnv([make_walk()] * 2, autoreset_mode=mode))
        adapter = VectorEnvAdapter(vector)
        assert adapter.metadata == DummyVecEnv([make_walk()] * 2).metadata
        assert "autoreset_mode" in vector.metadata
    for adapted, fps in ((adapter, 1), (VectorEnvAdapter(balls), balls.metadata["render_fps"])):
        video = VecVideoRecorder(VecMonitor(adapted), str(tmp_path), lambda step: False)
        assert video.frames_per_sec == fps


def test_what_resets_all_at_once_is_refused_with_the_cure():
    def made(number, mode=AutoresetMode.NEXT_STEP):
        return wrappers.NormalizeObservation(SyncVectorEnv([make_walk()] * number, autoreset_mode=mode))

    with pytest.raises(ConfigError, match="VecNormalize"):
        VectorEnvAdapter(made(2))
    assert len(played(VectorEnvAdapter(made(1)))) > 40
    torches = wrappers.TransformObservation(SyncVectorEnv([make_walk()] * 2), torch.from_numpy)
    with pytest.raises(ConfigError, match="arrays of NumPy"):
        VectorEnvAdapter(torches).reset()


class FromOne(Walk):
    """Choices that are counted from other numbers than 0, in actions and in observations."""

    action_space = spaces.Discrete(2, start=1)

    def __init__(self):
        super().__init__(as_dict=True)
        self.observation_space = spaces.Dict(
            {
                "place": Walk.observation_space,
                "time": spaces.Discrete(99, start=-1),
                "both": spaces.MultiDiscrete([3, 3], start=[1, 2]),
            }
        )

    def shown(self):
        return {"place": self.place.copy(), "time": self.time - 1, "both": np.array([1, 4])}

    def step(self, action):
        assert self.action_space.contains(action)
        return super().step(action - 1)


@pytest.mark.parametrize("mode", MODES)
def test_choices_are_counted_from_zero(mode):
    def make():
        return gymnasium.wrappers.TimeLimit(FromOne(), 6)

    adapter = VectorEnvAdapter(SyncVectorEnv([make] * 3, autoreset_mode=mode))
    assert adapter.action_space == spaces.Discrete(2)
    assert adapter.observation_space["time"] == spaces.Discrete(99)
    assert adapter.observation_space["both"] == spaces.MultiDiscrete([3, 3])
    given = played(adapter)
    plainly = played(VectorEnvAdapter(SyncVectorEnv([make_walk(as_dict=True)] * 3, autoreset_mode=mode)))
    for one, other in zip(given[1::5], plainly[1::5], strict=True):
        np.testing.assert_array_equal(one["time"], other["time"])
        np.testing.assert_array_equal(one["both"], [[0, 2]] * 3)
    for one, other in zip(given[4::5], plainly[4::5], strict=True):
        last = [
            [info["terminal_observation"]["time"] for info in infos if "terminal_observation" in info]
            for infos in (one, other)
        ]
        assert_same(*last)
    box = VectorEnvAdapter(SyncVectorEnv([make_walk()] * 2))
    assert box.observation_space == Walk.observation_space


@pytest.mark.parametrize("wrap", [lambda env: env, wrappers.RecordEpisodeStatistics])
def test_attributes_and_methods_of_sub_environments(wrap):
    adapter = VectorEnvAdapter(wrap(SyncVectorEnv([make_walk()] * 3)))
    reference = DummyVecEnv([make_walk()] * 3)
    for env in (adapter, reference):
        env.seed(0)
        env.set_options({"how": 1})
        env.reset()
        assert env.reset_infos[0]["options"] == "{'how': 1}"
        env.reset()
        assert env.reset_infos[0]["options"] == "None"
        env.step(np.zeros(3, dtype=np.int64))
        assert env.get_attr("label") == ["walk"] * 3
        assert [method(1) for method in env.get_attr("add")] == [2, 2, 2]
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
    balls = BouncingBallsVectorEnv(3, preset="stove", render_mode="rgb_array")
    adapter = VectorEnvAdapter(wrappers.RecordEpisodeStatistics(balls))
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
    assert adapter.get_attr("episode_count") == [0, 0, 0]
    assert adapter.env_is_wrapped(wrappers.RecordEpisodeStatistics) == [True] * 3
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


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e39, -1e39])
@pytest.mark.parametrize("what", ["observations", "rewards", "last observations"])
def test_numbers_of_which_nothing_can_be_learned_are_refused(number, what, mode):
    class Broken(Walk):
        observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)

        def step(self, action):
            observation, reward, ended, *rest = super().step(action)
            if what == "rewards":
                return observation, number, ended, *rest
            ended = what == "last observations"
            return np.full(2, number), reward, ended, *rest

    adapter = VectorEnvAdapter(SyncVectorEnv([Broken] * 2, autoreset_mode=mode))
    adapter.reset()
    with pytest.raises(DivergenceError, match=what.removeprefix("last ")) as refused:
        adapter.step(np.zeros(2, dtype=np.int64))
    assert "mend the environment" in str(refused.value)


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

"""Learned worlds with what others bring: wrappers, stable-baselines3, a graphics card."""

from __future__ import annotations

import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from dreamers import write_world
from gymnasium import wrappers
from gymnasium.wrappers import vector as vector_wrappers
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException

from rnem_world.device import pack
from rnem_world.envs import world as world_module
from rnem_world.envs.dream import DreamBatch
from rnem_world.envs.learned import INFOS, LearnedVectorEnv
from rnem_world.envs.slots import SlotFilter
from rnem_world.envs.world import World
from rnem_world.models.likelihood import Likelihood
from rnem_world.models.rollout import imagine
from rnem_world.models.world_model import WorldModel
from tests.fake_cuda import Indexing, put_on_cuda


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("worlds") / "small")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: wrappers.FrameStackObservation(env, 4),
        wrappers.FlattenObservation,
        wrappers.RecordEpisodeStatistics,
        lambda env: wrappers.ResizeObservation(env, (16, 16)) if pytest.importorskip("cv2") else env,
        lambda env: wrappers.RescaleObservation(env, np.float32(0.0), np.float32(1.0)),
        wrappers.NormalizeReward,
        lambda env: wrappers.TransformReward(env, lambda reward: -reward),
        lambda env: wrappers.MaxAndSkipObservation(env, 2),
        wrappers.AddRenderObservation,
    ],
)
def test_wrappers(world, wrap):
    env = wrap(gymnasium.make("RNEM-Balls-v0", checkpoint=world, render_mode="rgb_array"))
    env.reset(seed=0)
    for _ in range(4):
        observation, *_ = env.step(1)
    assert env.observation_space.contains(observation)


@pytest.mark.parametrize(
    "wrap",
    [
        vector_wrappers.RecordEpisodeStatistics,
        vector_wrappers.FlattenObservation,
        vector_wrappers.NormalizeObservation,
        vector_wrappers.NormalizeReward,
        lambda envs: vector_wrappers.ClipReward(envs, -1.0, 1.0),
        lambda envs: vector_wrappers.DtypeObservation(envs, np.float32),
        vector_wrappers.DictInfoToList,
    ],
)
def test_vector_wrappers(world, wrap):
    made = gymnasium.make_vec(
        "RNEM-Balls-v0", num_envs=3, checkpoint=world, details=("centroids",), max_episode_steps=4
    )
    envs = wrap(made)
    envs.reset(seed=0)
    actions = np.array([1, 2, 3])
    for _ in range(6):
        observations, rewards, *_ = envs.step(actions)
    assert len(observations) == len(rewards) == 3


def test_videos_are_recorded(world, tmp_path):
    pytest.importorskip("moviepy")
    env = gymnasium.make("RNEM-Balls-v0", checkpoint=world, render_mode="rgb_array", max_episode_steps=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = wrappers.RecordVideo(env, str(tmp_path / "videos"), disable_logger=True)
    env.reset(seed=0)
    for _ in range(5):
        env.step(1)
    env.close()
    assert list((tmp_path / "videos").glob("*.mp4"))


def test_people_can_play(world, monkeypatch):
    pygame = pytest.importorskip("pygame")
    from gymnasium.utils import play

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = gymnasium.make("RNEM-Balls-v0", checkpoint=world, render_mode="rgb_array")
    seen = []

    def callback(before, after, action, *rest) -> None:
        seen.append(action)
        if len(seen) == 3:
            pygame.event.post(pygame.event.Event(pygame.QUIT))

    play.play(env, fps=1000, keys_to_action={"w": 1}, noop=0, callback=callback)
    assert seen[:3] == [0, 0, 0]


@pytest.mark.parametrize("size", ["balls", "slots"])
def test_stable_baselines3_has_nothing_to_complain_about(world, size):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    options = {"checkpoint": "balls"} if size == "balls" else {"checkpoint": world, "obs_type": "slots"}
    env = gymnasium.make("RNEM-Balls-v0", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if size == "balls":
            # Frames below 36 pixels are too small for its own convolutions, whoever draws them.
            warnings.filterwarnings("ignore", message=".*minimal resolution for an image")
        else:
            # It would rather have slots as one row; FlattenObservation makes them so.
            env = wrappers.FlattenObservation(env)
        checker.check_env(env)


def fake_world(real: World) -> World:
    """The same world on a graphics card that isn't there: tensors know their shape and device, and nothing else."""
    model = WorldModel(real.config.model)
    put_on_cuda(model)
    return World(model.eval(), real.config, real.folder, real.fingerprint)


@pytest.mark.parametrize("imagination", ["latent", "pixels"])
def test_nothing_leaves_a_graphics_card_but_in_one_transfer(world, imagination, monkeypatch):
    n = 6
    real = World.load(world)
    with FakeTensorMode(), Indexing():
        # The one draw of random numbers is made by a generator, which can't be faked.
        def initial_gamma(likelihood, batch_size, slots, size, generator, device):
            return torch.rand(batch_size, slots, 1, *size, device="cuda")

        monkeypatch.setattr(Likelihood, "initial_gamma", initial_gamma)
        monkeypatch.setattr(world_module, "torch_generator", lambda *keys, **options: None)
        fake = fake_world(real)
        assert fake.device.type == "cuda"
        worlds = DreamBatch(fake, n, None, imagination, measures_uncertainty=True)
        frames = torch.zeros(n, 3, 1, 32, 32, device="cuda")
        actions = torch.zeros(n, 2, dtype=torch.int64, device="cuda")
        dreams = fake.encode(frames, actions, worlds.slots)
        everyone = torch.arange(n, device="cuda")
        worlds.begin(everyone, dreams)
        for _ in range(2):
            outcome = worlds.step(actions[:, 0])
            shown = [worlds.frames(), worlds.outputs(), *outcome]
            details = worlds.details([name for name in INFOS if name not in ("uncertainty", "disagreement")])
            worlds.begin(everyone[:2], dreams.map(lambda tensor: tensor[:2]))
            worlds.set_state(everyone[3:], worlds.get_state(everyone[:3]))
        for tensor in (*shown, *details.values()):
            assert tensor.device.type == "cuda"
        packed = pack([*shown, *details.values()])
        assert packed.device.type == "cuda"
        watching = SlotFilter(fake, n)
        watching.reset(everyone, frames[:, 0].permute(0, 2, 3, 1) > 0)
        watching.step(actions[:, 0], frames[:, 0].permute(0, 2, 3, 1) > 0)
        assert watching.start_imagination().theta.device.type == "cuda"
        state = fake.empty_slots(n, worlds.slots)
        rolled = list(
            imagine(fake.model, state, 3, actions.repeat(1, 2), imagination, first_frame=frames[:, 0])
        )
        assert rolled[-1][1].prediction.device.type == "cuda"
        with pytest.raises(AssertionError, match="hidden transfer"):
            worlds.frames().cpu()
        with pytest.raises(DataDependentOutputException):
            outcome.rewards.sum().item()


def test_slots_before_the_first_frame_are_made_once(world, monkeypatch):
    """They are the same for all, and drawn on the host: a reset of `SlotFilter` would copy them to the device."""
    real = World.load(world)
    before = real.empty_slots(2, 4)
    monkeypatch.setattr(Likelihood, "initial_gamma", lambda *_: pytest.fail("they were made anew"))
    again = real.empty_slots(3, 4)
    assert torch.equal(again.gamma[:2], before.gamma)
    assert not again.gamma.is_inference()


def test_no_python_loop_over_sub_environments(world):
    """A step of 250 environments calls as many Python functions as one of 234, in which layers take the same ways."""
    import sys

    def calls(n: int) -> int:
        envs = LearnedVectorEnv(n, world, obs_type="slots", imagination="latent")
        envs.reset(seed=0)
        envs.step(np.zeros(n, dtype=int))
        count = 0

        def count_calls(frame, event, argument) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(count_calls)
        try:
            envs.step(np.zeros(n, dtype=int))
        finally:
            sys.setprofile(None)
        return count

    assert abs(calls(250) - calls(234)) <= 8

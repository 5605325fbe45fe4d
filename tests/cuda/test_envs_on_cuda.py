"""Learned worlds on a graphics card: equal to the processor's, batched as single, and never waiting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rnem_world.envs.balls import BouncingBallsVectorEnv
from rnem_world.envs.dream import DreamBatch
from rnem_world.envs.learned import INFOS, LearnedEnv, LearnedVectorEnv
from rnem_world.envs.slots import SlotFilter, SlotVectorObservation
from rnem_world.envs.world import World
from rnem_world.physics import preset

pytestmark = pytest.mark.cuda
STEPS = 20
WAYS = ["latent", "pixels"]


def alike(one: np.ndarray, other: np.ndarray, sees_pixels: bool = False) -> None:
    """Other kernels round otherwise: floats differ a little, and a pixel near the threshold may flip.

    Slots that see their own pixels see that; those of a dream or two then lie a little apart.
    """
    if one.dtype == np.uint8:
        assert (one != other).mean() < (0.005 if sees_pixels else 0.001)
    elif sees_pixels:
        apart = np.abs(one - other)
        assert np.quantile(apart, 0.8) < 2e-3
        assert apart.max() < 0.1
    else:
        np.testing.assert_allclose(one, other, atol=2e-3)


def observations(checkpoint, n: int, rows: list[int], **options) -> list[np.ndarray]:
    """What n environments show that begin at the starts of these numbers."""
    envs = LearnedVectorEnv(n, checkpoint, max_episode_steps=None, **options)
    shown = [envs.reset(seed=1, options={"start": np.array(rows)})[0]]
    for actions in np.random.default_rng(0).integers(envs.world.number_of_actions, size=(STEPS, 20)):
        shown.append(envs.step(actions[rows])[0])
    return shown


@pytest.mark.parametrize("obs_type", ["frame", "slots"])
@pytest.mark.parametrize("imagination", WAYS)
@pytest.mark.parametrize("name", ["small", "balls"])
def test_dreams_are_the_processors_and_batched_as_single(device, small_world, name, imagination, obs_type):
    checkpoint = small_world if name == "small" else name
    options = {"imagination": imagination, "obs_type": obs_type}
    rows = [0, 3, 5, 6, 9, 12, 19]
    there = observations(checkpoint, len(rows), rows, device=device, **options)
    here = observations(checkpoint, len(rows), rows, device="cpu", engine="torch", **options)
    alone = observations(checkpoint, 1, [5], device=device, **options)
    for on_device, on_cpu, single in zip(there, here, alone, strict=True):
        alike(on_device, on_cpu, imagination == "pixels")
        alike(on_device[2:3], single, imagination == "pixels")


@pytest.mark.parametrize("imagination", WAYS)
def test_a_state_that_is_put_back_goes_on_bit_for_bit(device, small_world, imagination):
    envs = LearnedVectorEnv(5, small_world, device=device, imagination=imagination, obs_type="slots")
    envs.reset(seed=0)
    state, actions = envs.get_state(), np.array([1, 2, 3, 4, 5])
    first = [envs.step(actions)[0] for _ in range(5)]
    envs.set_state(state)
    for before in first:
        np.testing.assert_array_equal(envs.step(actions)[0], before)


@pytest.mark.parametrize("imagination", WAYS)
def test_dreaming_never_waits_for_the_card(device, small_world, imagination, never_waiting):
    n, world = 6, World.load(small_world, device)
    dreams = DreamBatch(world, n, None, imagination, measures_uncertainty=True)
    frames = torch.zeros(n, 3, 1, 32, 32, device=device)
    actions = torch.zeros(n, 2, dtype=torch.int64, device=device)
    everyone = torch.arange(n, device=device)
    begun = world.encode(frames, actions, dreams.slots)
    dreams.begin(everyone, begun)
    dreams.step(actions[:, 0])
    white = frames[:, 0].permute(0, 2, 3, 1) > 0
    watching = SlotFilter(world, n)
    names = [name for name in INFOS if name not in ("uncertainty", "disagreement")]
    with never_waiting():
        for _ in range(3):
            outcome = dreams.step(actions[:, 0])
            shown = [dreams.frames(), dreams.outputs(), *outcome, *dreams.details(names).values()]
            dreams.begin(everyone[:2], begun.map(lambda tensor: tensor[:2]))
            dreams.set_state(everyone[3:], dreams.get_state(everyone[:3]))
            watching.reset(everyone, white)
            watching.step(actions[:, 0], white)
    assert {tensor.device for tensor in shown} == {device}


@pytest.mark.parametrize("details", [(), ("gamma", "centroids", "slot_rewards")])
def test_a_step_makes_one_transfer_to_the_host(device, small_world, details):
    if device.type != "cuda":
        pytest.skip("there are transfers only from a graphics card")
    envs = LearnedVectorEnv(8, small_world, device=device, details=details)
    envs.reset(seed=0)
    actions = np.zeros(8, dtype=np.int64)
    envs.step(actions)
    kinds = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CPU, kinds.CUDA]) as profile:
        envs.step(actions)
        torch.cuda.synchronize()
    copies = [event.name for event in profile.events() if event.name.startswith("Memcpy")]
    assert sum("DtoH" in name for name in copies) == 1, copies


def test_single_environments_edits_and_pictures(device, small_world):
    from rnem_world.envs.editing import Swap

    env = LearnedEnv(
        small_world, device=str(device), render_mode="rgb_array", details=("attention", "masses")
    )
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert info["attention"].shape == (4, 4)
    env.edit(Swap(0, 1))
    observation, reward, *_ = env.step(1)
    assert env.observation_space.contains(observation)
    assert np.isfinite(reward)
    assert env.render().shape == (256, 512, 3)


def test_real_frames_are_watched(device):
    shown = []
    for place in (device, torch.device("cpu")):
        envs = SlotVectorObservation(BouncingBallsVectorEnv(3, preset("avoid")), "balls", device=str(place))
        shown.append([envs.reset(seed=0)[0]])
        shown[-1] += [envs.step(np.array([1, 2, 3]))[0] for _ in range(5)]
    for one, other in zip(*shown, strict=True):
        alike(one, other)


def test_many_dreams_go_by_chunks(device, small_world, monkeypatch):
    world = World.load(small_world, device)
    rows = torch.arange(40, device=device) % 20
    actions = torch.arange(40, device=device) % 9
    envs = LearnedVectorEnv(20, small_world, device=device, obs_type="slots", max_episode_steps=None)
    envs.reset(seed=0)
    outputs = []
    for chunk in (7, world.chunk):
        monkeypatch.setattr(world, "chunk", chunk)
        dreams = DreamBatch(world, 40)
        dreams.set_state(torch.arange(40, device=device), envs.dreams.get_state(rows))
        for _ in range(5):
            dreams.step(actions)
        outputs.append(dreams.outputs())
    torch.testing.assert_close(*outputs, atol=2e-3, rtol=0)

"""Learned worlds with actions of every kind: environments, starts, copies, slots, graphs, and bad input."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from dreamers import balls_starts, write_graphs, write_world
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from rnem_world.actions import ActionSpace
from rnem_world.agents.dynamics import LearnedDynamics
from rnem_world.envs.editing import Swap, compare_futures
from rnem_world.envs.learned import LearnedEnv, LearnedVectorEnv
from rnem_world.envs.slots import SlotFilter, SlotObservation, SlotVectorObservation
from rnem_world.envs.starts import STARTS_FILE, Starts, read_starts, write_starts
from rnem_world.envs.world import World
from rnem_world.errors import ConfigError
from rnem_world.models.config import ActionsConfig
from rnem_world.models.rollout import imagine, observe
from rnem_world.training.checkpoint import load_model, save_checkpoint

KINDS: dict[str, tuple[dict[str, Any], spaces.Space[Any]]] = {
    "discrete": ({"number_of_actions": 9}, spaces.Discrete(9)),
    "multi_discrete": (
        {"actions": ActionsConfig("multi_discrete", (3, 2, 4))},
        spaces.MultiDiscrete([3, 2, 4]),
    ),
    "multi_binary": ({"actions": ActionsConfig("multi_binary", (2, 2))}, spaces.MultiBinary(2)),
    "box": (
        {"actions": ActionsConfig("box", low=(-2.0, 0.0), high=(2.0, 1.0))},
        spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32)),
    ),
}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("worlds")
    return {kind: write_world(place / kind, **options) for kind, (options, _) in KINDS.items()}


def drawn(space: spaces.Space[Any], *shape: int, seed: int = 0) -> np.ndarray:
    space.seed(seed)
    actions = np.stack([space.sample() for _ in range(int(np.prod(shape)))])
    return actions.reshape(*shape, *space.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_a_world_has_the_action_space_of_its_environment(worlds, kind):
    env = gymnasium.make("RNEM-World-v0", checkpoint=worlds[kind])
    assert env.action_space == KINDS[kind][1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The bounds are those of the real environment.
        warnings.filterwarnings("ignore", message=".*we recommend using a symmetric and normalized space")
        check_env(env.unwrapped)
    envs = gymnasium.make_vec("RNEM-World-v0", num_envs=3, checkpoint=worlds[kind])
    assert envs.single_action_space == KINDS[kind][1]
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("imagination", ["latent", "pixels"])
def test_a_dream_is_what_the_model_imagines_under_these_actions(worlds, kind, imagination):
    env = LearnedEnv(worlds[kind], imagination=imagination, details=("prediction",), engine="torch")
    env.reset(seed=0, options={"start": 7})
    world = World.load(worlds[kind])
    starts = read_starts(worlds[kind] / STARTS_FILE)
    frames = torch.from_numpy(starts.frames([7])).permute(0, 1, 4, 2, 3).float()
    actions = drawn(KINDS[kind][1], 5)
    with torch.no_grad():
        state, done = world.empty_slots(1, 4), torch.from_numpy(starts.actions[[7]])
        *_, (_, state) = observe(world.model, state, frames, frames[:, 1:], done)
        stored = torch.from_numpy(world.actions.encode(actions))[None]
        expected = imagine(world.model, state, 5, stored, imagination, first_frame=frames[:, -1])
        for action, (_, transition, _) in zip(actions, expected, strict=True):
            *_, info = env.step(action)
            np.testing.assert_allclose(info["prediction"], transition.prediction[0], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_other_actions_lead_elsewhere_and_a_batch_goes_as_one_does(worlds, kind):
    space = KINDS[kind][1]
    envs = LearnedVectorEnv(
        3, worlds[kind], obs_type="slots", max_episode_steps=None, autoreset_mode=AutoresetMode.DISABLED
    )
    envs.reset(options={"start": 2})
    actions = drawn(space, 4, 3)
    actions[:, 1] = actions[:, 0]
    for row in actions:
        slots, *_ = envs.step(row)
    np.testing.assert_array_equal(slots[0], slots[1])
    assert np.abs(slots[0] - slots[2]).max() > 1e-3
    alone = LearnedEnv(worlds[kind], obs_type="slots")
    alone.reset(options={"start": 2})
    for row in actions:
        observation, *_ = alone.step(row[2])
    np.testing.assert_allclose(observation, slots[2], atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_users_own_context_equals_the_start_it_was_taken_from(worlds, kind):
    env = LearnedEnv(worlds[kind], obs_type="slots")
    expected, _ = env.reset(seed=0, options={"start": 3})
    starts = read_starts(worlds[kind] / STARTS_FILE)
    frames, actions = starts.frames([3])[0], env.batch.world.actions.decode(starts.actions[3])
    observation, _ = env.reset(options={"frames": frames, "actions": actions})
    np.testing.assert_array_equal(observation, expected)
    envs = LearnedVectorEnv(2, worlds[kind], obs_type="slots")
    both = {"frames": np.stack([frames] * 2), "actions": np.stack([actions] * 2)}
    np.testing.assert_array_equal(envs.reset(options=both)[0], np.stack([expected] * 2))
    for bad in (actions[:-1], actions[..., None], actions.astype(complex), None):
        with pytest.raises(ConfigError, match="actions"):
            env.reset(options={"frames": frames, "actions": bad})


@pytest.mark.parametrize("kind", KINDS)
def test_starts_are_written_and_read_as_they_were(worlds, kind, tmp_path):
    starts = read_starts(worlds[kind] / STARTS_FILE)
    assert starts.actions.dtype == (np.float32 if kind == "box" else np.int64)
    write_starts(tmp_path / "starts.npz", starts)
    again = read_starts(tmp_path / "starts.npz")
    np.testing.assert_array_equal(again.actions, starts.actions)
    assert again.digest == starts.digest


@pytest.mark.parametrize("kind", KINDS)
def test_starts_of_another_kind_of_actions_are_refused(worlds, kind):
    for other in KINDS:
        starts = read_starts(worlds[other] / STARTS_FILE)
        if other != kind:
            with pytest.raises(ConfigError, match="give starts of this world"):
                LearnedEnv(worlds[kind], starts=starts)
    own = read_starts(worlds[kind] / STARTS_FILE)
    if kind != "box":
        high = Starts(own.packed, own.actions + 9, own.shape)
        with pytest.raises(ConfigError, match="give starts of this world"):
            LearnedEnv(worlds[kind], starts=high)


@pytest.mark.parametrize("kind", KINDS)
def test_slots_watch_an_environment_with_these_actions(worlds, kind):
    space = KINDS[kind][1]
    watched = SlotObservation(LearnedEnv(worlds[kind]), worlds[kind])
    batched = SlotVectorObservation(LearnedVectorEnv(2, worlds[kind]), worlds[kind])
    watched.reset(seed=1)
    batched.reset(seed=[1, 2])
    for row in drawn(space, 3, 2):
        one, *_ = watched.step(row[0])
        both, *_ = batched.step(row)
    np.testing.assert_allclose(both[0], one, atol=2e-3)
    for other in KINDS:
        if other != kind:
            with pytest.raises(ConfigError, match="the environment's actions are"):
                SlotObservation(LearnedEnv(worlds[other]), worlds[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_futures_are_compared_under_these_actions(worlds, kind):
    env, space = LearnedEnv(worlds[kind]), KINDS[kind][1]
    env.reset(seed=0)
    actions, others = drawn(space, 4), drawn(space, 4, seed=9)
    assert not compare_futures(env, actions).divergence.any()
    assert compare_futures(env, actions, other_actions=others).divergence[-1].max() > 0
    assert compare_futures(env, [], Swap(0, 1)).rewards.shape == (2, 0)


BAD = {
    "discrete": (9, -1, 0.5, [0, 1], True),
    "multi_discrete": ([3, 0, 0], [0, -1, 0], [0, 0], [0.0, 0.0, 0.0], 1),
    "multi_binary": ([2, 0], [-1, 0], [1], [0.5, 0.5]),
    "box": ([np.nan, 0.5], [np.inf, 0.5], [0.0], 0.0, [True, False]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_actions_that_cannot_be_are_refused_in_one_line(worlds, kind):
    env, envs = LearnedEnv(worlds[kind]), LearnedVectorEnv(2, worlds[kind])
    env.reset(seed=0)
    envs.reset(seed=0)
    for bad in BAD[kind]:
        with pytest.raises(ConfigError, match="actions") as caught:
            env.step(bad)
        assert "\n" not in str(caught.value)
        with pytest.raises(ConfigError, match="actions"):
            envs.step(np.array([bad, bad]))
    with pytest.raises(ConfigError, match="actions"):
        envs.step(np.asarray(KINDS[kind][1].sample()))


def test_real_numbers_beyond_their_bounds_count_as_the_bound(worlds):
    one, two = (LearnedEnv(worlds["box"], obs_type="slots") for _ in range(2))
    one.reset(options={"start": 0})
    two.reset(options={"start": 0})
    np.testing.assert_array_equal(one.step([5.0, -7.0])[0], two.step([2.0, 0.0])[0])


@pytest.fixture(scope="module")
def with_graphs(tmp_path_factory) -> dict[str, Path]:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    place = tmp_path_factory.mktemp("graphs")
    folders = {kind: write_world(place / kind, **KINDS[kind][0]) for kind in KINDS if kind != "discrete"}
    write_graphs(*folders.values())
    return folders


@pytest.mark.parametrize("kind", ["multi_discrete", "multi_binary", "box"])
def test_graphs_take_these_actions(with_graphs, kind):
    # Of a world that has learned nothing, differences of rounding grow with every step.
    folder, actions = with_graphs[kind], drawn(KINDS[kind][1], 1, 2)

    def dreamt(engine: str) -> list[np.ndarray]:
        envs = LearnedVectorEnv(2, folder, obs_type="slots", engine=engine)
        return [envs.reset(seed=0)[0], *(envs.step(row)[0] for row in actions)]

    def watched(engine: str) -> list[np.ndarray]:
        world, seen = World.load(folder), LearnedVectorEnv(2, folder, engine="torch")
        slots = SlotFilter(world, 2, engine=engine)
        slots.reset(torch.arange(2), world.frames_for_model(seen.reset(seed=0)[0]))
        for row in actions:
            slots.step(world.encoded(row), world.frames_for_model(seen.step(row)[0]))
        return [slots.outputs().numpy()]

    for find, tolerance in ((dreamt, 1e-4), (watched, 1e-2)):
        for one, other in zip(find("onnx"), find("torch"), strict=True):
            np.testing.assert_allclose(one, other, atol=tolerance)


def test_members_of_an_ensemble_have_the_same_actions(worlds):
    LearnedVectorEnv(2, worlds["box"], ensemble=worlds["box"])
    with pytest.raises(ConfigError, match="the ensemble's world multi_binary has"):
        LearnedVectorEnv(2, worlds["box"], ensemble=worlds["multi_binary"])


def test_kinds_are_told_apart_by_what_they_are_and_not_by_their_width(worlds):
    assert World.load(worlds["multi_binary"]).actions == ActionSpace.of(spaces.MultiBinary(2))
    assert World.load(worlds["discrete"]).number_of_actions == 9
    assert World.load(worlds["box"]).number_of_actions == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_world_that_was_trained_without_actions_has_the_environments_and_heeds_none(tmp_path, kind):
    space = KINDS[kind][1]
    folder = write_world(tmp_path / "world", number_of_actions=0)
    model, config = load_model(folder)
    known = replace(config, action_space=ActionSpace.of(space))
    save_checkpoint(folder, model, known)
    write_starts(folder / STARTS_FILE, balls_starts())
    env = LearnedEnv(folder, obs_type="slots")
    assert env.action_space == space
    shown = []
    for action in drawn(space, 2):
        env.reset(options={"start": 0})
        shown.append(env.step(action)[0])
    np.testing.assert_array_equal(*shown)
    frames = balls_starts().frames([3])[0]
    expected, _ = env.reset(options={"start": 3})
    np.testing.assert_array_equal(env.reset(options={"frames": frames})[0], expected)
    if kind != "discrete":
        with pytest.raises(ConfigError, match="trained without actions"):
            LearnedDynamics(World.load(folder))

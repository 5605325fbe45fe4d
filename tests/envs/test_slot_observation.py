"""Real frames filtered through the model to slots."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from dreamers import write_world, write_world_of
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from rnem_world.envs.balls import BouncingBallsEnv, BouncingBallsVectorEnv
from rnem_world.envs.learned import LearnedEnv
from rnem_world.envs.slots import SlotFilter, SlotObservation, SlotVectorObservation
from rnem_world.envs.world import World
from rnem_world.errors import ConfigError
from rnem_world.evaluation.metrics import foreground_ari
from rnem_world.training.checkpoint import load_model, save_checkpoint


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("worlds") / "small")


def test_gymnasium_has_nothing_to_complain_about(world):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")  # it is a wrapper
        check_env(SlotObservation(BouncingBallsEnv(), world), skip_render_check=True)


def test_the_spaces_are_those_of_the_learned_world(world):
    wrapped, learned = SlotObservation(BouncingBallsEnv(), world), LearnedEnv(world, obs_type="slots")
    assert wrapped.observation_space == learned.observation_space
    assert wrapped.action_space == learned.action_space


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_batched_is_equal_to_single(world, mode):
    n = 3
    batched = SlotVectorObservation(
        BouncingBallsVectorEnv(n, max_episode_steps=4, autoreset_mode=mode), world
    )
    single = [SlotObservation(gymnasium.wrappers.TimeLimit(BouncingBallsEnv(), 4), world) for _ in range(n)]
    slots, _ = batched.reset(seed=7)
    expected = np.stack([env.reset(seed=7 + index)[0] for index, env in enumerate(single)])
    np.testing.assert_allclose(slots, expected, atol=5e-3)
    over = np.zeros(n, dtype=bool)
    for row in np.random.default_rng(0).integers(9, size=(11, n)):
        if mode is AutoresetMode.DISABLED and over.any():
            slots, _ = batched.reset(options={"reset_mask": over})
            np.testing.assert_allclose(slots, np.stack([env.reset()[0] for env in single]), atol=5e-3)
        slots, _, _, truncations, info = batched.step(row)
        if mode is AutoresetMode.NEXT_STEP and over.any():
            expected = np.stack([env.reset()[0] for env in single])
            over = np.zeros(n, dtype=bool)
        else:
            stepped = [env.step(action) for env, action in zip(single, row, strict=True)]
            expected, over = np.stack([one[0] for one in stepped]), np.array([one[3] for one in stepped])
            if mode is AutoresetMode.SAME_STEP and over.any():
                np.testing.assert_allclose(np.stack(list(info["final_obs"])), expected, atol=5e-3)
                expected = np.stack([env.reset()[0] for env in single])
        np.testing.assert_allclose(slots, expected, atol=5e-3)
        np.testing.assert_array_equal(truncations, over)


def test_slots_of_the_shipped_world_find_the_balls_within_three_frames():
    n, world = 16, World.load("balls")
    env = BouncingBallsVectorEnv(n, ground_truth=True)
    frames, _ = env.reset(seed=0)
    watching = SlotFilter(world, n)
    watching.reset(torch.arange(n), torch.from_numpy(frames > 0))
    for _ in range(3):
        frames, *_, infos = env.step(np.zeros(n, dtype=int))
        watching.step(torch.zeros(n, dtype=torch.int64), torch.from_numpy(frames > 0))
    groups = torch.from_numpy(infos["groups"][:, None, ..., 0])
    assert foreground_ari(watching.gamma()[:, None], groups).mean() > 0.9
    dreams = watching.start_imagination()
    assert dreams.theta.shape[0] == n
    torch.testing.assert_close(dreams.output, watching.outputs())


def test_environments_of_other_worlds_are_refused(world):
    with pytest.raises(ConfigError, match=r"frames \(32, 32, 1\)"):
        SlotObservation(BouncingBallsEnv("control"), world)
    with pytest.raises(ConfigError, match=r"Discrete\(1\).*expected Discrete\(9\)"):
        SlotVectorObservation(BouncingBallsVectorEnv(2, preset="balls3small32"), world)
    with pytest.raises(ConfigError, match="settle_steps is -1"):
        SlotObservation(BouncingBallsEnv(), world, settle_steps=-1)


@pytest.mark.parametrize(
    ("found", "watched"), [(None, [0, 0, 0, 0]), ((3,), [3, 3, 3, 3]), ((-1,), [0, 1, 2, 3])]
)
def test_first_frames_are_watched_under_actions_that_move_nothing(
    world, tmp_path, monkeypatch, found, watched
):
    model, config = load_model(world)
    save_checkpoint(tmp_path / "world", model, replace(config, still_actions=found))
    slots = SlotFilter(World.load(tmp_path / "world"), 2, engine="torch")
    engine, given = type(slots.world.engine("torch")), []
    observe = engine.observe

    def recorded(self, state, frame, actions, following):
        given.append(actions.tolist())
        return observe(self, state, frame, actions, following)

    monkeypatch.setattr(engine, "observe", recorded)
    frame = BouncingBallsEnv().reset(seed=0)[0][None].repeat(2, axis=0)
    slots.reset(torch.arange(2), slots.world.frames_for_model(frame))
    assert given == [[action] * 2 for action in watched]


@pytest.mark.parametrize("kind", ["binary", "grey"])
def test_slots_that_see_a_first_frame_once_are_those_that_dreams_begin_with(world, tmp_path, kind):
    """Without a second look a filter knows after every frame what a dream knows that begins with these frames."""
    n, folder = 3, world
    if kind == "grey":
        folder = write_world(tmp_path / "grey", likelihood="mixture", initial_prediction=0.5)
    known = World.load(folder)
    env = BouncingBallsVectorEnv(n)
    seen, actions = [env.reset(seed=3)[0]], np.random.default_rng(0).integers(9, size=(3, n))
    watching = SlotFilter(known, n, settle_steps=0, engine="torch")
    watching.reset(torch.arange(n), known.frames_for_model(seen[0]))
    once = SlotFilter(known, n, settle_steps=1, engine="torch")
    once.reset(torch.arange(n), known.frames_for_model(seen[0]))
    torch.testing.assert_close(watching.outputs(), once.outputs())
    assert watching.start_imagination().theta.eq(0.0).all()
    for number, row in enumerate(actions, 1):
        seen.append(env.step(row)[0])
        watching.step(torch.from_numpy(row), known.frames_for_model(seen[-1]))
        frames = known.inputs(known.frames_for_model(np.stack(seen, axis=1)))
        wanted = known.encode(frames, torch.from_numpy(actions[:number]).T, watching.slots)
        got = watching.start_imagination()
        torch.testing.assert_close(got.theta, wanted.theta)
        torch.testing.assert_close(got.code, wanted.code)


def test_each_number_of_an_action_has_its_turn(tmp_path):
    folder = write_world_of(tmp_path / "masks", "own_environments:Own/Masks-v0")
    model, config = load_model(folder)
    save_checkpoint(tmp_path / "other", model, replace(config, still_actions=(1, -1)))
    masks = World.load(tmp_path / "other")
    assert [masks.still_actions(1, step).tolist() for step in range(4)] == [
        [[1, 0]],
        [[1, 1]],
        [[1, 2]],
        [[1, 0]],
    ]

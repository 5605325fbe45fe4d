"""Objects edited, futures compared, uncertainty measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from dreamers import write_world

from rnem_world.envs.calibration import calibrate, fit_calibration
from rnem_world.envs.editing import Copy, Remove, Swap, Transplant, compare_futures
from rnem_world.envs.learned import LearnedEnv, LearnedVectorEnv
from rnem_world.envs.uncertainty import Calibration, read_calibration, write_calibrations
from rnem_world.envs.world import World
from rnem_world.errors import ConfigError, DataError

WAYS = ["latent", "pixels"]
CURVE = Calibration((1.0, 0.5, 0.0), (0.0, 1.0, 4.0), (0.0, 2.0, 3.0), "latent", 0.5)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = write_world(tmp_path_factory.mktemp("worlds") / "small")
    write_calibrations(folder, [CURVE, Calibration(*list(vars(CURVE).values())[:3], "pixels", 0.5)])
    return folder


@pytest.mark.parametrize("imagination", WAYS)
def test_swapping_changes_the_order_and_nothing_else(world, imagination):
    env = LearnedEnv(world, imagination=imagination, obs_type="slots", details=("gamma", "slot_rewards"))
    slots, info = env.reset(seed=0)
    swapped, other = env.reset(seed=0, options={"edits": [Swap(0, 2)]})
    order = [2, 1, 0, 3]
    np.testing.assert_array_equal(swapped, slots[order])
    env.reset(seed=0)
    env.edit(Swap(0, 2))
    for action in (1, 2, 3):
        swapped, reward, *_, other = env.step(action)
    twin = LearnedEnv(world, imagination=imagination, obs_type="slots", details=("gamma", "slot_rewards"))
    twin.reset(seed=0)
    for action in (1, 2, 3):
        slots, expected, *_, info = twin.step(action)
    np.testing.assert_allclose(swapped, slots[order], atol=1e-4)
    np.testing.assert_allclose(other["slot_rewards"], info["slot_rewards"][order], atol=1e-4)
    assert reward == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("imagination", WAYS)
def test_copies_and_transplants_bring_the_slot_along(world, imagination):
    env = LearnedEnv(world, imagination=imagination, obs_type="slots")
    slots, _ = env.reset(seed=0)
    source = LearnedEnv(world, imagination=imagination, obs_type="slots")
    foreign, _ = source.reset(seed=1)
    edited, _ = env.reset(seed=0, options={"edits": [Copy(1, to=3), Transplant(source.get_state(), 2, to=0)]})
    np.testing.assert_array_equal(edited, np.stack([foreign[2], slots[1], slots[2], slots[1]]))
    envs = LearnedVectorEnv(3, world, imagination=imagination, obs_type="slots")
    before, _ = envs.reset(seed=0)
    envs.edit([Transplant(source.get_state(), 2, to=1)], rows=[1])
    after = envs.observe()[0]
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    np.testing.assert_array_equal(after[1], np.stack([before[1, 0], foreign[2], *before[1, 2:]]))


def test_a_removed_ball_is_gone_and_the_others_stay():
    env = LearnedEnv("balls", details=("masses", "centroids"))
    for seed in range(3):
        frame, before = env.reset(seed=seed)
        slot = int(before["masses"].argmax())
        removed, after = env.reset(seed=seed, options={"edits": [Remove(slot)]})
        assert before["masses"][slot] > 15
        assert after["masses"][slot] < 5
        assert (removed > frame).sum() <= 2
        others = (np.arange(5) != slot) & (before["masses"] > 15)
        np.testing.assert_allclose(after["centroids"][others], before["centroids"][others], atol=1.0)
        for _ in range(5):
            *_, later = env.step(0)
        assert (later["masses"] > 15).sum() == (before["masses"] > 15).sum() - 1


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([Remove(4)], "0 to 3"),
        ([Swap(0, -1)], "0 to 3"),
        ([Copy(0, to=4)], "0 to 3"),
        (["remove"], "expected Remove"),
        ("remove", "expected a list"),
        ([Transplant("state", 0)], "get_state"),
    ],
)
def test_bad_edits_change_nothing(world, edits, message):
    env = LearnedEnv(world, obs_type="slots")
    slots, _ = env.reset(seed=0)
    with pytest.raises(ConfigError, match=message):
        env.reset(options={"edits": edits})
    if not isinstance(edits, str | list) or not isinstance(edits[0], str):
        with pytest.raises(ConfigError, match=message):
            env.edit(edits)
    np.testing.assert_array_equal(env.batch.observe()[0][0], slots)


def test_objects_of_other_worlds_are_refused(world, tmp_path):
    other = LearnedEnv(write_world(tmp_path / "other", seed=1))
    other.reset(seed=0)
    env = LearnedEnv(world)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="another world"):
        env.edit(Transplant(other.get_state(), 0))
    full = LearnedEnv(world, starts=None)
    full.reset(seed=0)
    with pytest.raises(ConfigError, match=r"no empty slot.*num_slots=5"):
        full.edit(Remove(0))  # random weights: every slot claims pixels


@pytest.mark.parametrize("imagination", WAYS)
def test_futures_differ_by_what_is_changed_and_by_nothing_else(world, imagination):
    env = LearnedEnv(world, imagination=imagination, obs_type="slots", details=("centroids",))
    env.reset(seed=0)
    state = env.get_state()
    actions = [1, 2, 3, 4]
    same = compare_futures(env, actions)
    assert same.divergence.shape == (5, 4)
    assert not same.divergence.any()
    acted = compare_futures(env, actions, other_actions=[1, 2, 5, 4])
    assert not acted.divergence[:3].any()
    assert acted.divergence[3:].any()
    edited = compare_futures(env, actions, edits=Copy(0, to=1))
    assert edited.divergence[0, 1] > 0
    np.testing.assert_array_equal(edited.centroids[0], same.centroids[0])
    for action, expected in zip(actions, same.centroids[0, 1:], strict=True):
        *_, info = env.step(action)
        np.testing.assert_array_equal(info["centroids"], expected)
    env.set_state(state)
    for bad in ([9], np.array([0.5]), np.array([[1]])):
        with pytest.raises(ConfigError, match="actions"):
            compare_futures(env, bad)
    with pytest.raises(ConfigError, match="as many"):
        compare_futures(env, [1], other_actions=[1, 2])


def test_a_curve_is_looked_up_linearly():
    unexplained, doubled = torch.tensor([0.0, 0.25, 0.5, 3.0, 9.0]), torch.tensor([0.0, 0.5, 1.0, -1.0, 0.0])
    expected = [0.0, 1.0, 2.0, 2.5, 3.0]
    found = CURVE.curve("cpu")(torch.stack([unexplained, doubled, torch.full((5,), 7.0)], dim=1))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_calibration_finds_what_the_error_comes_from(tmp_path):
    rng = np.random.default_rng(0)
    signs = rng.random((2000, 3))
    errors = 3 * signs[:, 0] + 0.1 * rng.random(2000)
    fitted = fit_calibration(signs[:1000], errors[:1000], "latent", (signs[1000:], errors[1000:]))
    assert fitted.weights[0] > 10 * max(fitted.weights[1:])
    assert fitted.rank_correlation > 0.95
    found = fitted.curve("cpu")(torch.from_numpy(signs).float())
    assert np.abs(found.numpy() - errors).mean() < 0.1
    write_calibrations(tmp_path, [fitted])
    assert read_calibration(tmp_path, "latent") == fitted
    with pytest.raises(DataError, match="pixels"):
        read_calibration(tmp_path, "pixels")
    (tmp_path / "uncertainty.json").write_text(json.dumps({"latent": {**vars(fitted), "knots": [1, 1]}}))
    with pytest.raises(DataError, match="rise"):
        read_calibration(tmp_path, "latent")


@pytest.mark.parametrize("imagination", WAYS)
@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_uncertainty_grows_and_truncates(world, imagination, mode):
    options = {"imagination": imagination, "details": ("unexplained", "doubled", "lost")}
    env = LearnedEnv(world, **options, truncate_on_uncertainty=2.2)
    _, info = env.reset(seed=0)
    assert info["lost"] == 0
    total, counted = 0.0, []
    truncated = False
    while not truncated and len(counted) < 60:
        _, _, _, truncated, info = env.step(len(counted) % 9)
        total += info["unexplained"] + 0.5 * info["doubled"]
        expected = float(CURVE.curve("cpu")(torch.tensor([[total, 0.0, 0.0]])))
        assert info["uncertainty"] == pytest.approx(expected, abs=1e-3)
        counted.append(info["uncertainty"])
    assert truncated
    assert counted[-1] > 2.2
    assert len(counted) == 1 or counted[-2] <= 2.2
    envs = LearnedVectorEnv(
        2, world, **options, truncate_on_uncertainty=2.2, max_episode_steps=None, autoreset_mode=mode
    )
    envs.reset(seed=0)
    for step in range(len(counted)):
        *_, truncations, infos = envs.step(np.full(2, step % 9))
    assert truncations[0]
    state = envs.get_state()
    first = [envs.step(np.full(2, step))[4]["uncertainty"] for step in range(5)]
    envs.reset()
    envs.set_state(state)
    second = [envs.step(np.full(2, step))[4]["uncertainty"] for step in range(5)]
    np.testing.assert_array_equal(first, second)
    if mode == "SameStep":
        assert infos["final_info"]["uncertainty"][0] > 2.2
        assert infos["uncertainty"][0] < infos["final_info"]["uncertainty"][0]


def test_an_ensemble_disagrees_where_its_worlds_do(world, tmp_path):
    other = write_world(tmp_path / "other", seed=1)
    env = LearnedEnv(world, ensemble=[other], details=("disagreement",))
    _, info = env.reset(seed=0)
    assert info["disagreement"] > 0
    state = env.get_state()
    first = [env.step(2)[4]["disagreement"] for _ in range(4)]
    env.set_state(state)
    assert [env.step(2)[4]["disagreement"] for _ in range(4)] == first
    same = LearnedVectorEnv(2, world, ensemble=world, details=("disagreement",))
    _, infos = same.reset(seed=0)
    assert not infos["disagreement"].any()
    assert not same.step(np.array([1, 2]))[4]["disagreement"].any()
    with pytest.raises(ConfigError, match="an ensemble of 2 worlds, expected 1"):
        LearnedEnv(world).set_state(state)
    with pytest.raises(ConfigError, match="disagreement needs"):
        LearnedEnv(world, details=("disagreement",))
    small = write_world(tmp_path / "actions", number_of_actions=3)
    with pytest.raises(ConfigError, match="the ensemble's world"):
        LearnedEnv(world, ensemble=[small])


def test_uncertainty_wants_a_calibration(world, tmp_path):
    plain = write_world(tmp_path / "plain")
    with pytest.raises(DataError, match=r"no uncertainty\.json"):
        LearnedEnv(plain, truncate_on_uncertainty=3)
    with pytest.raises(ConfigError, match="above 0"):
        LearnedEnv(world, truncate_on_uncertainty=-1.0)


def test_calibrating_on_real_balls(world, tmp_path, rnem):
    data = tmp_path / "data.h5"
    rnem(
        "collect",
        "--preset",
        "avoid",
        "--num-train",
        0,
        "--num-valid",
        0,
        "--num-test",
        4,
        "--frames",
        27,
        "--out",
        data,
    )
    found = calibrate(World.load(world), data)
    assert [each.imagination for each in found] == ["latent", "pixels"]
    assert all(np.diff(each.errors).min() >= 0 for each in found)
    outcome = rnem("export", world, "--out", tmp_path / "out", "--starts", data, "--number-of-starts", 3)
    assert outcome.code == 0, outcome.err
    assert "3 starts of 16 frames" in outcome.out
    assert LearnedEnv(tmp_path / "out", truncate_on_uncertainty=3.0).batch.starts.number_of_starts == 3
    for bad in (tmp_path / "nowhere.h5", world / "config.json"):
        outcome = rnem("export", world, "--out", tmp_path / "bad", "--starts", bad)
        assert outcome.code == 2
        assert not (tmp_path / "bad").exists()

"""Learned worlds as environments: single and batched, starts, resets, copies, bad input."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import threading
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from dreamers import STARTS, balls_starts, write_world
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rnem_world.device import pack, unpack
from rnem_world.envs.learned import LearnedEnv, LearnedVectorEnv
from rnem_world.envs.start_source import EncodedStarts
from rnem_world.envs.starts import STARTS_FILE, Starts, read_starts, starts_from_dataset, write_starts
from rnem_world.envs.world import MOST_POOLS, World
from rnem_world.errors import CheckpointError, ConfigError, DataError, DependencyError
from rnem_world.models.rollout import imagine, observe
from rnem_world.training.checkpoint import find_checkpoint, load_model, save_checkpoint

DETAILS = ("gamma", "prediction", "attention", "centroids", "masses", "slot_rewards")
WAYS = [("latent", "frame"), ("latent", "slots"), ("pixels", "frame"), ("pixels", "slots")]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("worlds") / "small")


@pytest.fixture(scope="module")
def ending(tmp_path_factory) -> Path:
    """A world whose episodes end by themselves."""
    return write_world(tmp_path_factory.mktemp("worlds") / "ending", ends=-0.5)


def observed(env) -> np.ndarray:
    """What an environment shows, be it single or batched."""
    return getattr(env, "batch", env).observe()[0]


def assert_alike(one: np.ndarray, other: np.ndarray) -> None:
    """Batches of other sizes round otherwise: floats differ a little, and a pixel near the threshold may flip."""
    if one.dtype == np.uint8:
        assert (one != other).mean() < 0.001
    else:
        np.testing.assert_allclose(one, other, atol=2e-3)


def actions_of(steps: int, n: int) -> np.ndarray:
    return np.random.default_rng(1).integers(9, size=(steps, n))


@pytest.mark.parametrize("obs_type", ["frame", "slots"])
@pytest.mark.parametrize("name", ["small", "balls"])
def test_gymnasium_has_nothing_to_complain_about(world, name, obs_type):
    checkpoint = world if name == "small" else "balls"
    env = gymnasium.make("RNEM-Balls-v0", checkpoint=checkpoint, obs_type=obs_type, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


def test_slots_stay_within_their_bounds():
    envs = LearnedVectorEnv(8, obs_type="slots")
    observations, _ = envs.reset(seed=0)
    for row in actions_of(10, 8):
        assert envs.observation_space.contains(observations)
        observations, *_ = envs.step(row)
    space = envs.single_observation_space
    assert (observations - space.low).min() < 0.9 * (space.high - space.low).max()


@pytest.mark.parametrize(("imagination", "obs_type"), WAYS)
@pytest.mark.parametrize("n", [1, 3, 64])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_batched_goes_as_single_does_over_episodes(ending, imagination, obs_type, n, mode):
    options = {"checkpoint": ending, "imagination": imagination, "obs_type": obs_type, "details": DETAILS}
    batched = LearnedVectorEnv(n, max_episode_steps=6, autoreset_mode=mode, **options)

    def make() -> gymnasium.Env:
        return gymnasium.wrappers.TimeLimit(LearnedEnv(**options), 6)

    chosen = min(n, 3)
    single = SyncVectorEnv([make] * chosen, autoreset_mode=mode)
    observations, infos = batched.reset(seed=5)
    expected, expected_infos = single.reset(seed=[5 + n - chosen + index for index in range(chosen)])
    ended = []
    for row in actions_of(20, n):
        assert_alike(observations[n - chosen :], expected)
        assert expected_infos.keys() <= infos.keys()
        for name in DETAILS:
            assert_alike(infos[name][n - chosen :], expected_infos[name])
        assert n > chosen or infos.keys() == expected_infos.keys()
        if "final_obs" in expected_infos:
            for index in np.flatnonzero(expected_infos["_final_obs"]).tolist():
                assert_alike(infos["final_obs"][n - chosen + index], expected_infos["final_obs"][index])
        observations, *ends, infos = batched.step(row)
        expected, *expected_ends, expected_infos = single.step(row[n - chosen :])
        ended.append(ends[1])
        for end, expected_end in zip(ends, expected_ends, strict=True):
            assert_alike(end[n - chosen :], expected_end)
    if n == 64:
        assert 0 < np.mean(ended) < 0.9
        assert len(np.unique(observations.reshape(n, -1), axis=0)) > 10


@pytest.mark.parametrize(
    ("checkpoint", "imagination"), [("ending", "latent"), ("ending", "pixels"), ("balls", None)]
)
def test_a_copy_goes_on_alike_in_any_other_sub_environment(ending, checkpoint, imagination):
    world = ending if checkpoint == "ending" else checkpoint
    options = {"checkpoint": world, "imagination": imagination, "obs_type": "slots"}
    envs = LearnedVectorEnv(7, max_episode_steps=6, **options)
    envs.reset(seed=2)
    for row in actions_of(3, 7):
        envs.step(row)
    before = envs.get_state()
    actions = actions_of(12, 7)
    first = [envs.step(row) for row in actions]
    envs.set_state(before)
    for one, row in zip(first, actions, strict=True):
        again = envs.step(row)  # in the same batch and the same places: bit for bit
        for left, right in zip(one[:4], again[:4], strict=True):
            np.testing.assert_array_equal(left, right)
    envs.reset(seed=99)
    order = np.array([3, 0, 6, 1, 5, 2, 4])
    envs.set_state(before.pick(order))
    second = [envs.step(row[order]) for row in actions]
    for one, two in zip(first, second, strict=True):
        for left, right in zip(one[:4], two[:4], strict=True):
            assert_alike(left[order], right)
    alone = LearnedEnv(**options)
    alone.set_state(before.pick([5]))
    for (observations, rewards, terminations, truncations, _), row in zip(first, actions, strict=True):
        if truncations[5] or alone.batch.episodes.finished[0]:
            break
        observation, reward, terminated, *_ = alone.step(row[5])
        assert_alike(observation, observations[5])
        assert terminated == terminations[5]
        assert reward == pytest.approx(rewards[5], abs=1e-3)
    envs.set_state(alone.get_state(), [2])
    assert envs.episodes.elapsed[2] == alone.batch.episodes.elapsed[0]


@pytest.mark.parametrize("imagination", ["latent", "pixels"])
def test_a_dream_is_what_the_model_imagines(world, imagination):
    env = LearnedEnv(world, imagination=imagination, details=("prediction", "slot_rewards"))
    env.reset(seed=0, options={"start": 7})
    starts = read_starts(world / "starts.npz")
    model = World.load(world).model
    frames = torch.from_numpy(starts.frames([7])).permute(0, 1, 4, 2, 3).float()
    done = torch.from_numpy(starts.actions[[7]])
    actions = torch.from_numpy(actions_of(4, 1)).T
    with torch.no_grad():
        state = World.load(world).empty_slots(1, 4)
        *_, (_, state) = observe(model, state, frames, frames[:, 1:], done)
        expected = list(imagine(model, state, 4, actions, imagination, first_frame=frames[:, -1]))
    for action, (_, transition, _) in zip(actions[0], expected, strict=True):
        frame, reward, *_, info = env.step(int(action))
        np.testing.assert_allclose(info["prediction"], transition.prediction[0], atol=1e-4)
        np.testing.assert_allclose(info["slot_rewards"], transition.heads.rewards[0], atol=1e-5)
        assert reward == pytest.approx(float(transition.heads.rewards.sum()), abs=1e-4)
        np.testing.assert_array_equal(frame[..., 0] == 255, info["prediction"].sum(axis=(0, 1)) > 0.4)


def test_the_users_own_context_equals_the_start_it_was_taken_from(world):
    env = LearnedEnv(world, obs_type="slots")
    expected, _ = env.reset(seed=0, options={"start": 3})
    starts = read_starts(world / "starts.npz")
    frames, actions = starts.frames([3])[0], starts.actions[3]
    for given in (frames, frames.astype(np.uint8) * 255, frames.astype(np.float32)):
        observation, _ = env.reset(options={"frames": given, "actions": actions})
        np.testing.assert_array_equal(observation, expected)
    envs = LearnedVectorEnv(3, world, obs_type="slots")
    envs.reset(seed=0)
    mask = np.array([True, False, True])
    observations, _ = envs.reset(options={"frames": frames, "actions": actions, "reset_mask": mask})
    np.testing.assert_array_equal(observations[[0, 2]], np.stack([expected] * 2))
    assert not np.array_equal(observations[1], expected)


def test_resets_draw_from_all_starts_and_repeat_with_the_seed(world):
    envs = LearnedVectorEnv(50, world, obs_type="slots")
    drawn = []
    take = EncodedStarts.take

    def spy(pool, chosen):
        drawn.append(chosen)
        return take(pool, chosen)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EncodedStarts, "take", spy)
        for seed in (4, *[None] * 39):
            envs.reset(seed=seed)
        counts = np.bincount(np.concatenate(drawn), minlength=STARTS)
        assert len(counts) == STARTS
        assert counts.min() > 60
        first, drawn[:] = np.stack(drawn), []
        for seed in (4, *[None] * 4):
            envs.reset(seed=seed)
        np.testing.assert_array_equal(np.stack(drawn), first[:5])
    assert len(read_starts(find_checkpoint("balls") / STARTS_FILE)) >= 1000


@pytest.mark.parametrize("imagination", ["latent", "pixels"])
def test_masked_resets_leave_the_others_alone(world, imagination):
    envs = LearnedVectorEnv(3, world, imagination=imagination, autoreset_mode="Disabled", max_episode_steps=2)
    envs.reset(seed=0)
    envs.step(np.zeros(3, dtype=int))
    frames, *_ = envs.step(np.zeros(3, dtype=int))
    with pytest.raises(ResetNeeded, match=r"\[0, 1, 2\]"):
        envs.step(np.zeros(3, dtype=int))
    after, _ = envs.reset(options={"reset_mask": np.array([False, True, False])})
    np.testing.assert_array_equal(after[[0, 2]], frames[[0, 2]])
    assert (after[1] != frames[1]).any()
    with pytest.raises(ResetNeeded, match=r"\[0, 2\]"):
        envs.step(np.zeros(3, dtype=int))
    envs.reset(options={"reset_mask": np.array([True, False, True])})
    *_, truncations, _ = envs.step(np.zeros(3, dtype=int))
    assert not truncations.any()


def test_clones_and_pickles_go_on_alike(world):
    for make in (lambda: LearnedEnv(world), lambda: LearnedVectorEnv(3, world)):
        env = make()
        env.reset(seed=1)
        shape = env.action_space.shape
        env.step(np.full(shape, 2))
        copies = [env.clone(), pickle.loads(pickle.dumps(env))]
        for _ in range(3):
            expected = env.step(np.full(shape, 3))
            for copy in copies:
                np.testing.assert_array_equal(copy.step(np.full(shape, 3))[0], expected[0])
        expected, _ = env.reset()
        for copy in copies:
            np.testing.assert_array_equal(copy.reset()[0], expected)
        pickle.loads(pickle.dumps(make()))


def test_environments_share_weights_and_nothing_else(world):
    one, two = LearnedEnv(world), LearnedEnv(world)
    assert one.batch.world is two.batch.world
    one.reset(seed=0)
    two.reset(seed=1)
    shown = one.reset(seed=0)[0]
    shown[:] = 7
    np.testing.assert_array_equal(one.step(0)[0], one.clone().batch.observe()[0][0])


def test_two_threads_step_two_environments(world):
    results: dict[int, list] = {}

    def run(number: int) -> None:
        env = LearnedEnv(world, obs_type="slots")
        env.reset(seed=number)
        results[number] = [env.step(int(action))[0] for action in actions_of(30, 1)[:, 0]]

    threads = [threading.Thread(target=run, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in (0, 1):
        together = results[number]
        run(number)
        np.testing.assert_array_equal(together, results[number])


def test_spawned_workers(world):
    def make() -> gymnasium.Env:
        return gymnasium.make("rnem_world:RNEM-Balls-v0", checkpoint=str(world))

    envs = gymnasium.vector.AsyncVectorEnv([make] * 2, context="spawn")
    try:
        observations, _ = envs.reset(seed=3)
        observations, *_ = envs.step(np.array([1, 2]))
    finally:
        envs.close()
    batched = LearnedVectorEnv(2, world)
    batched.reset(seed=3)
    np.testing.assert_array_equal(observations, batched.step(np.array([1, 2]))[0])
    assert not multiprocessing.active_children()


def test_rendering_shows_the_frame_beside_its_grouping(world):
    env = LearnedEnv(world, render_mode="rgb_array")
    frame, _ = env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (256, 512, 3)
    np.testing.assert_array_equal(picture[4::8, 4:256:8, :1], frame)
    coloured = picture[4::8, 260::8].max(axis=2) > 0
    np.testing.assert_array_equal(coloured, frame[..., 0] > 0)
    assert LearnedEnv(world).render() is None


def test_soft_frames_show_means(world):
    env = LearnedEnv(world, soft_frames=True, details=("prediction",))
    frame, info = env.reset(seed=0)
    expected = info["prediction"].sum(axis=(0, 1)).clip(max=1.0) * 255
    np.testing.assert_allclose(frame[..., 0], expected, atol=0.51)


@pytest.mark.parametrize("core", ["rnn", "lstm", "relational_no_attention"])
def test_other_cores_dream_too(tmp_path, core):
    folder = write_world(tmp_path / core, core=core, theta_update="sigmoid", slot_inputs="error")
    envs = LearnedVectorEnv(2, folder, obs_type="slots", imagination="pixels", details=DETAILS)
    observations, infos = envs.reset(seed=0)
    assert envs.observation_space.contains(observations)
    assert "attention" not in infos
    observations, *_ = envs.step(np.array([1, 2]))
    assert envs.observation_space.contains(observations)


def test_worlds_of_84_pixels_and_colours_without_positions(tmp_path):
    folder = write_world(tmp_path / "atari", architecture="conv84", channels=3, number_of_actions=4)
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match=r"frames \(32, 32, 1\).*\(84, 84, 3\)"):
        LearnedEnv(folder, starts=balls_starts())
    starts = Starts.pack(rng.random((6, 3, 84, 84, 3)) < 0.1, rng.integers(4, size=(6, 2)))
    for imagination in ("latent", "pixels"):
        env = LearnedEnv(folder, starts=starts, imagination=imagination, render_mode="rgb_array")
        frame, _ = env.reset(seed=0)
        assert env.observation_space.contains(frame)
        assert frame.shape == (84, 84, 3)
        assert env.step(3)[0].shape == (84, 84, 3)
        assert env.render().shape == (336, 672, 3)


def test_starts_survive_their_file_and_come_from_datasets(tmp_path, make_discs):
    starts = balls_starts(3, 4)
    write_starts(tmp_path / "s.npz", starts)
    again = read_starts(tmp_path / "s.npz")
    np.testing.assert_array_equal(again.frames(slice(None)), starts.frames(slice(None)))
    np.testing.assert_array_equal(again.actions, starts.actions)
    from rnem_world.data.dataset import Dataset

    path = make_discs(tmp_path / "d.h5", actions=3)
    found = starts_from_dataset(path, 10, 4)
    assert len(found) == 10
    with Dataset.open(path) as dataset:
        read = dataset.read("test", [1], ["features", "actions"], 4, 4)
    np.testing.assert_array_equal(found.frames([7])[0], read["features"][:, 0] > 0)
    np.testing.assert_array_equal(found.actions[7], read["actions"][:3, 0])
    with pytest.raises(DataError, match="starts of 9 frames"):
        starts_from_dataset(path, 10, 9)


@pytest.mark.parametrize("name", ["real", "real:stove"])
def test_starts_are_simulated_on_request(world, name):
    env = LearnedEnv(world, starts=name, obs_type="slots")
    first, _ = env.reset(seed=0)
    second, _ = env.reset()
    assert (first != second).any()
    np.testing.assert_array_equal(env.reset(seed=0)[0], first)
    envs = LearnedVectorEnv(2, world, starts=name, obs_type="slots")
    np.testing.assert_array_equal(envs.reset(seed=0)[0][0], first)
    with pytest.raises(ConfigError, match="simulated here"):
        env.reset(options={"start": 0})


BAD_ARGUMENTS = [
    ({"checkpoint": "bals"}, CheckpointError, "did you mean 'balls'"),
    ({"num_slots": 1}, ConfigError, "at least 2 slots"),
    ({"obs_type": "frames"}, ConfigError, "did you mean 'frame'"),
    ({"imagination": "pixel"}, ConfigError, "did you mean 'pixels'"),
    ({"device": "cuda:99"}, ConfigError, "no device 'cuda:99'"),
    ({"starts": "nowhere.npz"}, DataError, "nowhere.npz"),
    ({"starts": "nowhere.h5"}, DataError, "nowhere.h5"),
    ({"starts": "real:stov"}, ConfigError, "did you mean 'stove'"),
    ({"details": ("gama",)}, ConfigError, "did you mean 'gamma'"),
    ({"render_mode": "ansi"}, ConfigError, "rgb_array"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_ARGUMENTS)
def test_bad_arguments(world, arguments, error, message):
    for make in (LearnedEnv, lambda **given: LearnedVectorEnv(2, **given)):
        with pytest.raises(error, match=message):
            make(**{"checkpoint": world, **arguments})


def test_a_prior_code_that_has_not_learned_is_used_only_by_those_who_ask(tmp_path):
    folder = write_world(tmp_path / "early")
    assert LearnedEnv(folder).batch.dreams.imagination == "latent"
    model, config = load_model(folder)
    torch.nn.init.zeros_(model.prior_code.code_norm.bias)
    save_checkpoint(tmp_path / "none", model, config)
    shutil.copy(folder / "starts.npz", tmp_path / "none")
    assert LearnedEnv(tmp_path / "none").batch.dreams.imagination == "pixels"
    assert LearnedEnv(tmp_path / "none", imagination="latent").batch.dreams.imagination == "latent"


def test_a_checkpoint_without_heads_or_prior_code_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="no heads"):
        LearnedEnv(write_world(tmp_path / "headless", heads=False))
    folder = write_world(tmp_path / "plain", prior_code=False)
    with pytest.raises(ConfigError, match="no prior code"):
        LearnedEnv(folder, imagination="latent")
    assert LearnedEnv(folder).batch.dreams.imagination == "pixels"
    (folder / "starts.npz").unlink()
    with pytest.raises(DataError, match="has no starts"):
        LearnedEnv(folder)


FRAMES = np.zeros((4, 32, 32, 1), dtype=np.uint8)
DONE = np.zeros(3, dtype=np.int64)
BAD_OPTIONS = [
    ({"frames": FRAMES}, "no actions"),
    ({"actions": DONE}, "no frames"),
    ({"frames": FRAMES[:1], "actions": DONE[:0]}, "at least 2"),
    ({"frames": FRAMES[:, :16], "actions": DONE}, r"expected \(T, 32, 32, 1\)"),
    ({"frames": FRAMES[..., 0], "actions": DONE}, r"expected \(T, 32, 32, 1\)"),
    ({"frames": FRAMES + np.nan, "actions": DONE}, "NaN"),
    ({"frames": FRAMES + 2.0, "actions": DONE}, r"expected \[0, 1\]"),
    ({"frames": FRAMES + 1, "actions": DONE}, "multiply them by 255"),
    ({"frames": FRAMES.astype(int), "actions": DONE}, "dtype int64"),
    ({"frames": FRAMES, "actions": DONE[:2]}, r"expected \(3,\)"),
    ({"frames": FRAMES, "actions": DONE + 9}, "expected 0 to 8"),
    ({"frames": FRAMES, "actions": DONE + 0.5}, "integers"),
    ({"start": STARTS}, f"0 to {STARTS - 1}"),
    ({"start": 0.5}, "expected a number"),
    ({"strat": 1}, "did you mean 'start'"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options_change_nothing(world, options, message):
    for env in (LearnedEnv(world, obs_type="slots"), LearnedVectorEnv(2, world, obs_type="slots")):
        observation, _ = env.reset(seed=0)
        with pytest.raises(ConfigError, match=message):
            env.reset(options=options)
        np.testing.assert_array_equal(observed(env).reshape(observation.shape), observation)
        env.step(np.zeros(env.action_space.shape, dtype=int))


@pytest.mark.parametrize("action", [9, -1, 0.5, np.array([1, 2]), np.nan])
def test_bad_actions_change_nothing(world, action):
    env, envs = LearnedEnv(world, obs_type="slots"), LearnedVectorEnv(3, world, obs_type="slots")
    with pytest.raises(ResetNeeded):
        env.step(0)
    for made, given in ((env, action), (envs, np.full(3, action) if np.ndim(action) == 0 else action)):
        before, _ = made.reset(seed=0)
        with pytest.raises(ConfigError, match="actions"):
            made.step(given)
        np.testing.assert_array_equal(observed(made).reshape(before.shape), before)
        made.step(np.zeros(made.action_space.shape, dtype=int))


def test_states_of_other_worlds_are_refused(world, ending):
    env, other = LearnedEnv(world), LearnedEnv(ending)
    with pytest.raises(ResetNeeded):
        env.get_state()
    env.reset(seed=0)
    other.reset(seed=0)
    with pytest.raises(ConfigError, match="another world"):
        env.set_state(other.get_state())
    fewer = LearnedEnv(world, num_slots=3)
    fewer.reset(seed=0)
    with pytest.raises(ConfigError, match=r"3 slots.*expected 4"):
        env.set_state(fewer.get_state())
    envs = LearnedVectorEnv(3, world)
    envs.reset(seed=0)
    with pytest.raises(ConfigError, match="holds 3 environments, expected 1"):
        env.set_state(envs.get_state())
    for rows in ([3], [0, 0], np.array([0.5]), [-1]):
        with pytest.raises(ConfigError, match="sub-environments"):
            envs.get_state(rows)
    env.step(0)


def test_files_that_are_no_starts(tmp_path, world):
    path = tmp_path / "broken.npz"
    whole = (world / "starts.npz").read_bytes()
    for content in (b"", b"no zip", whole[:100], whole[:-400]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"broken\.npz"):
            read_starts(path)
    np.savez(path, frames=np.zeros((2, 3, 5), np.uint8), actions=np.zeros((2, 2), int), shape=[32, 32, 1])
    with pytest.raises(DataError, match="no starts"):
        read_starts(path)
    np.savez(path, frames=np.array([{}], dtype=object), actions=np.zeros((2, 2)), shape=[1])
    with pytest.raises(DataError, match=r"broken\.npz"):
        read_starts(path)


def test_one_transfer_carries_everything():
    tensors = [
        torch.arange(7, dtype=torch.uint8).view(7, 1),
        torch.tensor([True, False, True]),
        torch.randn(3, 2),
        torch.arange(5),
    ]
    row = pack(tensors)
    assert row.dtype == torch.uint8
    for array, tensor in zip(unpack(row.numpy(), tensors), tensors, strict=True):
        np.testing.assert_array_equal(array, tensor.numpy())


def test_repositories_of_the_hub(monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    assert huggingface_hub
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises((CheckpointError, DependencyError), match="someone/world"):
        find_checkpoint("someone/world")


def test_only_so_many_sets_of_encoded_starts_are_kept(world, monkeypatch):
    loaded = World.load(world)
    loaded._pools.clear()
    for number in range(MOST_POOLS + 3):
        env = LearnedEnv(world, starts=balls_starts(2 + number))
        env.reset(seed=0)
    assert len(loaded._pools) == MOST_POOLS
    oldest = LearnedEnv(world, starts=balls_starts(2), obs_type="slots")  # encoded anew, and nothing breaks
    assert oldest.reset(seed=0)[0].shape == (4, 24)


def test_a_name_with_a_slash_does_not_go_to_the_hub(monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_: pytest.fail("nobody asked for it"))
    with pytest.raises(CheckpointError, match=r"hf://worlds/mine"):
        LearnedEnv("worlds/mine")


def colour_starts(number: int = 6, frames: int = 4, channels: int = 3) -> Starts:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (number, frames, 32, 32, channels), np.uint8)
    return Starts.pack(pixels, rng.integers(9, size=(number, frames - 1)))


@pytest.mark.parametrize("channels", [1, 3])
def test_worlds_in_greys_and_colours(tmp_path, channels):
    options = {"likelihood": "mixture", "channels": channels}
    folder = write_world(tmp_path / "colour", **options)
    starts = colour_starts(channels=channels)
    write_starts(folder / STARTS_FILE, starts)
    assert read_starts(folder / STARTS_FILE).digest == starts.digest
    np.testing.assert_array_equal(read_starts(folder / STARTS_FILE).frames([2])[0], starts.frames([2])[0])
    for imagination in ("latent", "pixels"):
        env = LearnedEnv(
            folder, imagination=imagination, render_mode="rgb_array", details=("masses", "prediction")
        )
        frame, info = env.reset(seed=0)
        assert frame in env.observation_space
        assert frame.shape == (32, 32, channels)
        assert len(np.unique(frame)) > 2  # greys, not only black and white
        assert info["prediction"].shape == (4, channels, 32, 32)
        assert env.step(2)[0] in env.observation_space
        assert env.render().shape == (256, 512, 3)
    named = env.reset(options={"start": 3})[0]
    frames = starts.frames([3])[0]
    for given in (frames, frames.astype(np.float64) / 255):
        own = env.reset(options={"frames": given, "actions": starts.actions[3]})[0]
        np.testing.assert_array_equal(own, named)
    with pytest.raises(ConfigError, match="greys or colours"):
        LearnedEnv(folder, details=("lost",))
    copy = env.clone()
    np.testing.assert_array_equal(copy.step(1)[0], env.step(1)[0])


def test_grey_starts_become_black_and_white_where_the_world_is(world):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (3, 4, 32, 32, 1), np.uint8)
    actions = rng.integers(9, size=(3, 3))
    one = LearnedEnv(world, obs_type="slots", starts=Starts.pack(grey, actions))
    other = LearnedEnv(world, obs_type="slots", starts=Starts.pack(grey > 127, actions))
    np.testing.assert_array_equal(one.reset(seed=0)[0], other.reset(seed=0)[0])


def test_any_checkpoint_is_an_environment(world):
    env = gymnasium.make("RNEM-World-v0", checkpoint=world)
    check_env(env.unwrapped, skip_render_check=True)
    envs = gymnasium.make_vec("RNEM-World-v0", num_envs=3, checkpoint=world, obs_type="slots")
    assert isinstance(envs.unwrapped, LearnedVectorEnv)
    assert envs.reset(seed=0)[0].shape == (3, 4, 24)
    for make in (gymnasium.make, lambda name: gymnasium.make_vec(name, num_envs=2)):
        with pytest.raises(ConfigError, match="none is named"):
            make("RNEM-World-v0")

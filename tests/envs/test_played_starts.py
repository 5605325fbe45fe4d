"""Dreams of worlds that know their environment begin in what is played there."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import own_environments
import pytest
from dreamers import write_world_of

from rnem_world.envs import played_starts as module
from rnem_world.envs.learned import LearnedEnv, LearnedVectorEnv
from rnem_world.envs.played_starts import played_starts
from rnem_world.envs.world import World
from rnem_world.errors import ConfigError, DataError


class Walk(own_environments.Wide):
    """Goes on for ever; the square moves a little further with every step, and a number counts them."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros((36, 64, 3), np.uint8), {}

    def step(self, action):
        self.time += 1
        frame = np.zeros((36, 64, 3), np.uint8)
        frame[0, 0] = (self.time % 256, self.time // 256, 0)
        return frame, 0.0, False, False, {}


class Short(own_environments.Masks):
    """Is over with its first step."""

    def __init__(self):
        super().__init__(length=1)


for name, kind in (("Walk", Walk), ("Short", Short)):
    gymnasium.register(f"Own/{name}-v0", kind)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "NUMBER_OF_PLAYED_STARTS", 24)
    module._kept.cache_clear()
    yield
    module._kept.cache_clear()


def world_of(tmp_path: Path, name: str) -> World:
    return World.load(write_world_of(tmp_path / name, f"own_environments:Own/{name}-v0"))


def test_short_episodes_give_their_first_frames(tmp_path):
    world = world_of(tmp_path, "Masks")
    starts = played_starts(world)
    # A quarter of an episode of 8 frames.
    assert starts.packed.shape[:2] == (24, 2)
    assert starts.shape == (5, 5, 5)
    assert starts.is_binary
    assert starts.actions.shape == (24, 1, 2)
    frames = starts.frames(slice(None))
    assert frames.sum(axis=(2, 3)).min() == frames.sum(axis=(2, 3)).max() == 1
    columns = frames[:, 0].any(axis=1).argmax(axis=1)
    np.testing.assert_array_equal(columns, np.tile(np.arange(5), (24, 1)))
    rows, after = (frames[:, time].any(axis=2).argmax(axis=1)[:, :2] for time in (0, 1))
    np.testing.assert_array_equal((rows + starts.actions[:, 0] - 1) % 5, after)
    assert len(np.unique(rows, axis=0)) > 5


def test_actions_are_those_between_the_frames_and_held(tmp_path):
    world = world_of(tmp_path, "Wide")
    starts = played_starts(world)
    assert starts.packed.shape[1] == 3  # a quarter of 13 frames
    assert starts.actions.dtype == np.float32
    frames = starts.frames(slice(None))
    for frame, action in zip(frames[:, 1], starts.actions[:, 0], strict=True):
        row, column = int(16 + 10 * action[0]), int(28 + 12 * action[1])
        assert frame[row, column].tolist() == [250, 180, 20]
    np.testing.assert_array_equal(starts.actions[:, 0], starts.actions[:, 1])
    assert len(np.unique(starts.actions[:, 0], axis=0)) > 10


def test_long_episodes_give_pieces_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "NUMBER_OF_PLAYED_STARTS", 64)
    starts = played_starts(world_of(tmp_path, "Walk"))
    assert starts.packed.shape[1] == 16
    pixels = starts.frames(slice(None))[:, :, 0, 0].astype(int)
    times = pixels[..., 0] + 256 * pixels[..., 1]
    np.testing.assert_array_equal(np.diff(times, axis=1), 1)
    assert times[:, 0].max() > 200
    assert times[:, 0].min() == 0


def test_an_environment_is_played_once(tmp_path, monkeypatch):
    world = world_of(tmp_path, "Masks")
    first = played_starts(world)
    module._kept.cache_clear()
    monkeypatch.setattr(module, "_played", lambda world: pytest.fail("they were kept"))
    assert played_starts(world).digest == first.digest


def test_the_same_starts_are_played_anywhere(tmp_path, monkeypatch):
    world = world_of(tmp_path, "Wide")
    first = played_starts(world)
    module._kept.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert played_starts(world).digest == first.digest


def test_episodes_that_are_over_at_once_are_refused(tmp_path):
    world = world_of(tmp_path, "Short")
    with pytest.raises(DataError, match="over within 2 frames"):
        played_starts(world)


def test_an_environment_that_was_changed_is_played_anew(tmp_path, monkeypatch):
    own = tmp_path / "my_changing.py"
    own.write_text("import own_environments\nclass Mine(own_environments.Masks): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    world = World.load(write_world_of(tmp_path / "world", "my_changing:Mine"))

    def kept_after_playing():
        module._kept.cache_clear()
        played_starts(world)
        return len(list((tmp_path / "cache").rglob("*.npz")))

    assert kept_after_playing() == kept_after_playing() == 1
    own.write_text(own.read_text() + "# otherwise\n")
    assert kept_after_playing() == 2


class Boundless(Walk):
    """Takes any real number."""

    action_space = gymnasium.spaces.Box(-np.finfo(np.float32).max, np.finfo(np.float32).max, (2,), np.float32)


gymnasium.register("Own/Boundless-v0", Boundless)


def test_actions_without_bounds_are_of_the_size_of_one(tmp_path):
    world = world_of(tmp_path, "Boundless")
    actions = played_starts(world).actions
    assert 0.5 < actions.std() < 2.0
    env = gymnasium.make("Own/Boundless-v0")
    world.check_spaces(gymnasium.spaces.Box(0, 255, (36, 64, 3), np.uint8), env.action_space)


def test_dreams_begin_there(tmp_path):
    folder = write_world_of(tmp_path / "world", "own_environments:Own/Masks-v0")
    for starts in (None, "real"):
        env = LearnedEnv(folder, starts=starts)
        assert env.batch.starts.number_of_starts == 24
        frame, _ = env.reset(seed=0)
        assert frame.shape == (5, 5, 5)
        env.step(env.action_space.sample())
    envs = LearnedVectorEnv(3, folder)
    envs.reset(seed=1)
    envs.step(envs.action_space.sample())
    with pytest.raises(ConfigError, match="give starts='real'"):
        LearnedEnv(folder, starts="real:avoid")

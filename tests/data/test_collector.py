from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from counting import Clock, Counter

from rnem_world.actions import ActionSpace
from rnem_world.agents.base import baseline
from rnem_world.agents.collecting import collect
from rnem_world.agents.collection import BallsCollection
from rnem_world.data.collector import CollectorConfig, Source, collect_dataset
from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import DatasetAttributes
from rnem_world.envs.balls import BouncingBallsVectorEnv
from rnem_world.errors import ConfigError, DataError, OutputError
from rnem_world.physics import DIRECTIONS, preset

SMALL = {"num_train": 7, "num_valid": 3, "num_test": 2, "frames": 6, "shard_size": 3}


def make_clock(env, generator) -> Clock:
    return Clock()


def failing_env(num_envs: int) -> Counter:
    return Counter(num_envs, length=3)


def read_all(path: Path, split: str = "training") -> dict[str, np.ndarray]:
    with Dataset.open(path) as dataset:
        info = dataset.info(split)
        return dataset.read(split, range(info.number_of_sequences), info.arrays)


def test_the_players_ball_moves_by_the_recorded_action(tmp_path):
    path = collect(
        "balls",
        tmp_path / "c.h5",
        preset="control",
        **SMALL | {"num_train": 40, "frames": 12, "shard_size": 40},
        progress=False,
    )
    data = read_all(path)
    rules = preset("control")
    positions, groups = data["positions"], data["groups"][..., 0]
    undisturbed = (data["rewards"] == 0)[:-1]
    moved = positions[1:, :, 0] - positions[:-1, :, 0]
    wanted = rules.player_speed * DIRECTIONS[data["actions"][:-1]]
    inside = (np.abs(positions[:-1, :, 0] + wanted - 5.0) < 4.0).all(axis=2) & undisturbed
    assert inside.mean() > 0.5
    np.testing.assert_allclose(moved[inside], wanted[inside], atol=1e-5)
    # The same in the frames: the centroid of the ring, in pixels.
    ring = groups == 1
    index = np.arange(64)
    weight = ring / ring.sum(axis=(2, 3), keepdims=True)
    centroid = np.stack(
        [(weight.sum(axis=2) * index).sum(axis=2), (weight.sum(axis=3) * index).sum(axis=2)], axis=2
    )
    seen = (centroid[1:] - centroid[:-1])[inside]
    np.testing.assert_allclose(seen, 6.4 * wanted[inside], atol=0.5)


def test_rewards_and_collisions_are_those_of_the_next_move(tmp_path):
    path = collect(
        "balls",
        tmp_path / "c.h5",
        preset="control",
        **SMALL | {"num_train": 60, "frames": 20, "shard_size": 60},
        progress=False,
    )
    data = read_all(path)
    marked = (data["collisions"].astype(bool) & (data["groups"] == 1)).any(axis=(2, 3, 4))
    np.testing.assert_array_equal(data["rewards"] == -1.0, marked)
    assert marked.any()
    assert not (data["collisions"] > (data["groups"] > 0)).any()
    # A ball (not the player's) whose velocity jumps has met something: another ball or a wall.
    jump = np.abs(np.diff(data["velocities"][:, :, 1:], axis=0)).sum(axis=3) > 1e-4
    near_wall = (np.abs(data["positions"][:, :, 1:] - 5.0) > 3.2).any(axis=3)
    inner = jump & ~near_wall[1:] & ~near_wall[:-1]
    assert inner.sum() > 30
    for ball in range(3):
        touched = (data["collisions"].astype(bool) & (data["groups"] == ball + 2)).any(axis=(2, 3, 4))[:-1]
        assert touched[inner[..., ball]].all()


def test_the_frames_are_those_of_the_groups_and_nothing_needless_is_stored(tmp_path):
    data = read_all(collect("balls", tmp_path / "b.h5", preset="balls678mass64", **SMALL, progress=False))
    np.testing.assert_array_equal(data["features"], data["groups"] > 0)
    assert set(data) == {"features", "groups", "collisions", "positions", "velocities"}
    assert data["features"].shape == (6, 7, 64, 64, 1)
    assert data["groups"].max() >= 6


def test_the_file_says_where_it_comes_from(tmp_path):
    path = collect("balls", tmp_path / "s.h5", preset="stove", **SMALL, seed=4, policy="stay", progress=False)
    with Dataset.open(path) as dataset:
        attributes = dataset.attributes
        assert [dataset.info(split).number_of_sequences for split in dataset.splits] == [7, 3, 2]
    assert attributes.settings["preset"] == "stove"
    assert attributes.settings["policy"] == "stay"
    assert (attributes.seed, attributes.number_of_actions, attributes.maximum_value) == (4, 9, 1)
    assert not read_all(path)["actions"].any()


def test_splits_shards_and_seeds_differ(tmp_path):
    settings = SMALL | {"num_valid": 7, "num_test": 7, "num_train": 7}
    path = collect("balls", tmp_path / "a.h5", preset="balls3small32", **settings, progress=False)
    other = collect("balls", tmp_path / "b.h5", preset="balls3small32", **settings, seed=1, progress=False)
    starts = [read_all(path, split)["positions"][0] for split in ("training", "validation", "test")]
    starts.append(read_all(other)["positions"][0])
    flat = np.concatenate(starts).reshape(28, -1)
    assert len(np.unique(flat, axis=0)) == 28


def test_no_sequence_comes_twice_in_a_shard_of_several_batches(tmp_path):
    config = CollectorConfig(9, 0, 0, number_of_frames=3, shard_size=9, batch_size=2)
    make_env = partial(BouncingBallsVectorEnv, preset="stove", ground_truth=True)
    make_agent = partial(draw_agent, policy="random")
    attributes = DatasetAttributes(number_of_actions=9)
    collect_dataset(Source(make_env, make_agent, attributes), config, tmp_path / "x.h5", progress=False)
    data = read_all(tmp_path / "x.h5")
    assert len(np.unique(data["positions"][0].reshape(9, -1), axis=0)) == 9
    assert len(np.unique(data["actions"].T, axis=0)) > 5


def draw_agent(env, generator, policy: str):
    return baseline(policy, ActionSpace.of(env.single_action_space), generator)


def test_any_number_of_workers_gives_the_same_file_and_shards_the_same_data(tmp_path):
    alone = collect("balls", tmp_path / "1.h5", preset="stove", **SMALL, progress=False)
    together = collect("balls", tmp_path / "2.h5", preset="stove", **SMALL, workers=2, progress=False)
    shards = collect("balls", tmp_path / "shards", preset="stove", **SMALL, keep_shards=True, progress=False)
    assert alone.read_bytes() == together.read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["1.h5", "2.h5", "shards"]
    assert [entry.name for entry in sorted(shards.iterdir())] == [
        "test-00000.h5",
        "training-00000.h5",
        "training-00001.h5",
        "training-00002.h5",
        "validation-00000.h5",
    ]
    for name, array in read_all(alone).items():
        np.testing.assert_array_equal(array, read_all(shards)[name])


def interrupted(tmp_path: Path, monkeypatch) -> Path:
    """Leaves the parts of a collection that ended just before they were joined."""

    def fail(paths, out):
        raise OutputError("no space")

    with monkeypatch.context() as patch:
        patch.setattr("rnem_world.data.collector.merge_shards", fail)
        with pytest.raises(OutputError, match="no space"):
            collect("balls", tmp_path / "x.h5", preset="stove", **SMALL, progress=False)
    parts = tmp_path / "x.h5.parts"
    assert len(list(parts.glob("[!.]*.h5"))) == 5
    assert not (tmp_path / "x.h5").exists()
    return parts


def test_a_rerun_makes_only_what_is_missing_or_damaged(tmp_path, monkeypatch):
    whole = collect("balls", tmp_path / "whole.h5", preset="stove", **SMALL, progress=False).read_bytes()
    parts = interrupted(tmp_path, monkeypatch)
    (parts / "training-00001.h5").unlink()
    damaged = parts / "validation-00000.h5"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    (parts / ".training-00001.somewhere-1-2.tmp.h5").write_bytes(b"half")
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("[!.]*.h5")}
    written = []
    from rnem_world.data import collector

    real = collector.write_shard

    def spy(path, splits, attributes):
        written.append(path.name)
        real(path, splits, attributes)

    monkeypatch.setattr(collector, "write_shard", spy)
    path = collect("balls", tmp_path / "x.h5", preset="stove", **SMALL, progress=False)
    assert sorted(written) == ["training-00001.h5", "validation-00000.h5"]
    assert len(kept) == 4
    assert path.read_bytes() == whole
    assert not parts.exists()


def test_parts_of_other_settings_are_left_alone(tmp_path, monkeypatch):
    parts = interrupted(tmp_path, monkeypatch)
    before = {path: path.read_bytes() for path in parts.iterdir()}
    with pytest.raises(DataError, match="other settings"):
        collect("balls", tmp_path / "x.h5", preset="stove", **SMALL, seed=1, progress=False)
    assert {path: path.read_bytes() for path in parts.iterdir()} == before


def test_a_killed_collection_goes_on(tmp_path):
    whole = collect(
        "balls",
        tmp_path / "whole.h5",
        preset="balls3small32",
        num_train=120,
        num_valid=0,
        num_test=0,
        frames=12,
        shard_size=5,
        progress=False,
    )
    code = (
        "from pathlib import Path; from rnem_world.agents.collecting import collect\n"
        "if __name__ == '__main__':\n"
        "    collect('balls', 'x.h5', preset='balls3small32', num_train=120, num_valid=0, num_test=0, frames=12,\n"
        "            shard_size=5, workers=2)\n"
    )
    (tmp_path / "run.py").write_text(code)
    process = subprocess.Popen([sys.executable, "run.py"], cwd=tmp_path)
    parts = tmp_path / "x.h5.parts"
    deadline = time.monotonic() + 30
    while len(list(parts.glob("[!.]*.h5"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # its workers notice that it is gone
    assert not (tmp_path / "x.h5").exists()
    finished = len(list(parts.glob("[!.]*.h5")))
    assert 3 <= finished < 24
    path = collect(
        "balls",
        tmp_path / "x.h5",
        preset="balls3small32",
        num_train=120,
        num_valid=0,
        num_test=0,
        frames=12,
        shard_size=5,
        progress=False,
    )
    assert path.read_bytes() == whole.read_bytes()


def test_nothing_is_overwritten_unless_asked(tmp_path):
    path = tmp_path / "x.h5"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already"):
        collect("balls", path, preset="stove", **SMALL, progress=False)
    assert path.read_bytes() == b"precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.h5"]
    collect("balls", path, preset="stove", **SMALL, overwrite=True, progress=False)
    assert read_all(path)["features"].shape[1] == 7
    collect("balls", path, preset="stove", **SMALL, overwrite=True, keep_shards=True, progress=False)
    assert path.is_dir()
    (path / "settings.json").write_text("{}")  # a process that was killed with its last step leaves it
    collect("balls", path, preset="stove", **SMALL, overwrite=True, progress=False)
    assert path.is_file()
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.h5"]


def test_a_folder_with_other_things_is_never_replaced(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "another.h5").write_bytes(b"precious")
    for keep_shards in (False, True):
        with pytest.raises(OutputError, match="another"):
            collect(
                "balls",
                folder,
                preset="stove",
                **SMALL,
                overwrite=True,
                keep_shards=keep_shards,
                progress=False,
            )
    assert (folder / "another.h5").read_bytes() == b"precious"


@pytest.mark.parametrize("workers", [1, 2])
def test_an_episode_that_ends_too_soon_is_named_and_leaves_nothing(tmp_path, workers):
    config = CollectorConfig(4, 0, 0, number_of_frames=5, shard_size=2)
    attributes = DatasetAttributes(number_of_actions=3, maximum_value=255)
    with pytest.raises(DataError, match="ended after 3 steps"):
        collect_dataset(
            Source(failing_env, make_clock, attributes),
            config,
            tmp_path / "x.h5",
            workers=workers,
            progress=False,
        )
    assert not list(tmp_path.iterdir())


def test_two_collections_dont_share_a_folder(tmp_path):
    config = CollectorConfig(2, 0, 0, number_of_frames=3)
    attributes = DatasetAttributes(number_of_actions=3, maximum_value=255)

    def call(make_agent):
        collect_dataset(Source(Counter, make_agent, attributes), config, tmp_path / "x.h5", progress=False)

    def make_agent(env, generator):
        with pytest.raises(OutputError, match=r"x\.h5 is being collected by process \d+ on "):
            call(make_clock)
        return Clock()

    call(make_agent)
    assert read_all(tmp_path / "x.h5")["features"].shape == (3, 2, 4, 4, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"num_train": -1},
        {"num_train": 0},
        {"number_of_frames": 1},
        {"seed": -1},
        {"shard_size": 0},
        {"batch_size": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        CollectorConfig(**{"num_train": 1, "num_valid": 0, "num_test": 0} | change)


def test_wrong_names_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'stove'"):
        collect("balls", tmp_path / "x.h5", preset="stov")
    with pytest.raises(ConfigError, match="did you mean 'random'"):
        collect("balls", tmp_path / "x.h5", preset="stove", policy="randm")
    with pytest.raises(ConfigError, match="in balls3small32 nobody plays: leave it out"):
        collect("balls", tmp_path / "x.h5", preset="balls3small32", policy="random")
    with pytest.raises(ConfigError, match="no environment 'ball' to collect from: did you mean 'balls'"):
        collect("ball", tmp_path / "x.h5")
    with pytest.raises(ConfigError, match="unknown option 'pressed': did you mean 'preset'"):
        collect("balls", tmp_path / "x.h5", pressed="stove")
    with pytest.raises(ConfigError, match="beside it num_train: put them into it"):
        collect(BallsCollection(), tmp_path / "x.h5", num_train=3)
    with pytest.raises(ConfigError, match="workers"):
        collect("balls", tmp_path / "x.h5", preset="stove", **SMALL, workers=0)
    assert not list(tmp_path.iterdir())

"""Dreams of worlds whose data says where episodes begin start as real episodes do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dreamers import write_world
from gymnasium import spaces

from rnem_world.actions import ActionSpace
from rnem_world.data.dataset import Dataset
from rnem_world.envs.learned import LearnedEnv
from rnem_world.envs.starts import Starts, starts_from_dataset
from rnem_world.errors import DataError
from rnem_world.models.config import ActionsConfig
from tests.streams import write_streams


@pytest.fixture(scope="module")
def streams(tmp_path_factory) -> Path:
    return write_streams(tmp_path_factory.mktemp("streams") / "discs.h5")


def first_frames(path: Path, frames: int) -> set[bytes]:
    """All beginnings of episodes that are whole in a sequence, as bytes of their frames and actions."""
    found = set()
    with Dataset.open(path) as dataset:
        for split in dataset.splits:
            names = ["features", "actions", "is_first"]
            rows = range(dataset.info(split).number_of_sequences)
            read = dataset.read(split, rows, names)
            for begin, row in zip(*np.nonzero(read["is_first"]), strict=True):
                pixels = read["features"][begin : begin + frames, row] > 0
                found.add(pixels.tobytes() + read["actions"][begin : begin + frames - 1, row].tobytes())
    return found


def as_bytes(starts: Starts) -> list[bytes]:
    pairs = zip(starts.frames(slice(None)), starts.actions, strict=True)
    return [frames.tobytes() + actions.tobytes() for frames, actions in pairs]


@pytest.mark.parametrize("frames", [None, 5])
def test_starts_are_the_first_frames_of_episodes(streams, frames):
    starts = starts_from_dataset(streams, context_frames=frames)
    length = 2 if frames is None else frames  # a quarter of an episode of 11
    assert starts.packed.shape[1] == length
    assert set(as_bytes(starts)) <= first_frames(streams, length)
    # Of 24 sequences of 40 frames, each with 3 or 4 beginnings.
    assert len(starts) > 70
    assert len(starts_from_dataset(streams, 7, frames)) == 7


def test_the_test_split_comes_first(streams):
    few = starts_from_dataset(streams, 10)
    with Dataset.open(streams) as dataset:
        frames = dataset.read("test", range(6), ["features"])["features"].swapaxes(0, 1)
    shown = {frame.tobytes() for sequence in frames for frame in sequence > 0}
    assert all(start[0].tobytes() in shown for start in few.frames(slice(None)))


def test_data_without_a_beginning_gives_pieces_of_episodes(tmp_path):
    path = write_streams(tmp_path / "late.h5", length=500, frames=20, sizes={"training": 3})
    with Dataset.open(path) as dataset:
        assert dataset.read("training", range(3), ["is_first"])["is_first"][0].tolist() == [
            True,
            False,
            False,
        ]
    assert len(starts_from_dataset(path)) == 1
    path = write_streams(
        tmp_path / "later.h5", length=500, frames=20, sizes={"training": 1, "test": 2}, offset=1
    )
    starts = starts_from_dataset(path, context_frames=4)
    assert starts.packed.shape[:2] == (3, 4)
    with pytest.raises(DataError, match="no episode of"):
        starts_from_dataset(write_streams(tmp_path / "short.h5", length=3), context_frames=9)


KINDS = {
    "multi_discrete": ActionSpace.of(spaces.MultiDiscrete([3, 2])),
    "box": ActionSpace.of(spaces.Box(-1.0, 1.0, (2,))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_dreams_begin_with_actions_of_any_kind(tmp_path, kind):
    path = write_streams(tmp_path / "data.h5", actions=KINDS[kind])
    bounds = ((-1.0, -1.0), (1.0, 1.0)) if kind == "box" else ((), ())
    world = write_world(tmp_path / "world", actions=ActionsConfig(kind, KINDS[kind].sizes, *bounds))
    starts = starts_from_dataset(path, context_frames=4)
    assert starts.actions.dtype == KINDS[kind].stored_dtype
    env = LearnedEnv(world, starts=str(path))
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert env.batch.starts.number_of_starts == len(starts_from_dataset(path))

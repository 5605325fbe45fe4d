"""Where episodes lie in recorded sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rnem_world.data.dataset import Dataset
from rnem_world.data.episodes import Windows, find_windows, typical_length, usual_context
from rnem_world.data.schema import DatasetAttributes, EpisodeBatch
from rnem_world.data.writer import write_shard
from tests.streams import marks


def write(path: Path, sequences: list[dict[str, np.ndarray]]) -> Dataset:
    arrays = {name: np.stack([each[name] for each in sequences], axis=1) for name in sequences[0]}
    frames, n = arrays["is_first"].shape
    features = np.zeros((frames, n, 4, 4, 1), np.uint8)
    features[..., 0, 0, 0] = np.arange(frames)[:, None] % 2
    episodes = EpisodeBatch(features, **arrays)
    write_shard(path, {"training": episodes, "test": episodes}, DatasetAttributes("Steps-v0"))
    return Dataset.open(path)


def pairs(windows: Windows) -> list[tuple[int, int]]:
    return list(zip(windows.sequences.tolist(), windows.begins.tolist(), strict=True))


@pytest.mark.parametrize("truncated", [False, True])
def test_windows_begin_within_one_episode_that_goes_on(tmp_path, truncated):
    sequences = [marks([3, 9], 12, truncated), marks([12], 12, truncated), marks([2] * 6, 12, truncated)]
    dataset = write(tmp_path / "a.h5", sequences)
    # The third sequence has no three frames with another behind them.
    assert pairs(find_windows(dataset, "training", 3, 6, 10)) == [(0, 3), (1, 0)]
    assert pairs(find_windows(dataset, "training", 2, 6, 10)) == [(0, 0), (1, 0)]
    assert pairs(find_windows(dataset, "training", 2, 6, 1)) == [(0, 0)]
    assert pairs(find_windows(dataset, "training", 3, 13, 10)) == []


def test_windows_at_first_frames_are_all_that_there_are(tmp_path):
    dataset = write(tmp_path / "a.h5", [marks([4, 4, 4], 12), marks([5, 7], 12)])
    assert pairs(find_windows(dataset, "test", 2, 2, 10, at_first=True)) == [
        (0, 0),
        (0, 4),
        (0, 8),
        (1, 0),
        (1, 5),
    ]
    # In four frames the last is the terminal one, of which nothing follows.
    assert pairs(find_windows(dataset, "test", 4, 4, 10, at_first=True)) == [(1, 0), (1, 5)]


def test_an_episode_that_a_sequence_begins_with_may_have_begun_before(tmp_path):
    late = marks([6, 6], 12)
    late["is_first"][0] = False
    dataset = write(tmp_path / "a.h5", [late])
    assert pairs(find_windows(dataset, "test", 2, 2, 10)) == [(0, 0)]
    assert pairs(find_windows(dataset, "test", 2, 2, 10, at_first=True)) == [(0, 6)]


def test_the_context_follows_from_the_length_of_episodes(tmp_path):
    short = write(tmp_path / "short.h5", [marks([11, 11, 11, 11], 44)] * 3)
    assert typical_length(short) == 11
    assert usual_context(short) == 2
    assert usual_context(write(tmp_path / "middle.h5", [marks([40, 40], 80)])) == 10
    assert usual_context(write(tmp_path / "long.h5", [marks([999], 90)])) == 16
    assert usual_context(write(tmp_path / "tiny.h5", [marks([2] * 5, 10)])) == 2


def test_data_that_says_nothing_of_episodes_has_windows_at_the_beginning(discs_file):
    with Dataset.open(discs_file) as dataset:
        assert typical_length(dataset) is None
        assert usual_context(dataset) is None
        assert pairs(find_windows(dataset, "test", 3, 5, 4)) == [(0, 0), (1, 0), (2, 0), (3, 0)]
        assert pairs(find_windows(dataset, "test", 3, 9, 4)) == []

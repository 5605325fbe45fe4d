"""Windows around rare events are drawn more often, and weights undo what that does to means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rnem_world.data.dataset import Dataset
from rnem_world.data.loader import LoaderConfig, SequenceLoader
from rnem_world.data.rare import RareEvents
from rnem_world.data.schema import DatasetAttributes, EpisodeBatch
from rnem_world.data.writer import write_shard

N, T, LENGTH = 40, 30, 8


def events_of(number: int = 6) -> np.ndarray:
    events = np.zeros((N, T), np.bool_)
    generator = np.random.default_rng(0)
    events[generator.integers(N, size=number), generator.integers(T - 1, size=number)] = True
    return events


def drawn(fraction: float, number: int = 200_000, events: np.ndarray | None = None):
    events = events_of() if events is None else events
    generator = np.random.default_rng(1)
    sequences = generator.integers(N, size=number)
    starts = generator.integers(T - LENGTH + 1, size=number)
    found = RareEvents(events, LENGTH, T - LENGTH).draw(sequences, starts, fraction, generator)
    inside = np.stack([events[found.sequences, found.starts + step] for step in range(LENGTH - 1)], axis=1)
    return found, inside


def test_windows_with_events_are_drawn_more_often_and_lie_within_their_sequences():
    _, usual = drawn(0.0)
    found, inside = drawn(0.5)
    assert inside.any(axis=1).mean() > 0.5 > 3 * usual.any(axis=1).mean()
    assert found.starts.min() == 0
    assert found.starts.max() == T - LENGTH


@pytest.mark.parametrize("fraction", [0.25, 0.9])
def test_weighted_means_are_those_of_even_drawing(fraction):
    _, usual = drawn(0.0)
    found, inside = drawn(fraction)
    assert found.weights.mean() == pytest.approx(1.0, abs=0.03)
    weighted = (found.weights[:, None] * inside).mean(axis=0)
    np.testing.assert_allclose(weighted, usual.mean(axis=0), rtol=0.15)
    # Any function of a window, its place too.
    places = (found.weights * found.starts * found.sequences).mean()
    even, _ = drawn(0.0)
    assert places == pytest.approx((even.starts * even.sequences).mean(), rel=0.05)


def test_weights_are_the_same_for_the_same_window_however_it_was_drawn():
    found, _ = drawn(0.5)
    places = found.sequences * T + found.starts
    order = np.argsort(places, kind="stable")
    same = np.diff(places[order]) == 0
    assert same.sum() > 1000
    np.testing.assert_allclose(np.diff(found.weights[order])[same], 0.0, atol=1e-6)


def test_events_all_the_time_change_nothing_much():
    found, _ = drawn(0.5, events=np.ones((N, T), np.bool_))
    assert found.weights.min() > 0.5
    assert found.weights.max() < 2.0


def test_without_events_windows_stay_as_they_are():
    generator = np.random.default_rng(0)
    sequences, starts = np.arange(N), np.zeros(N, np.int64)
    found = RareEvents(np.zeros((N, T), np.bool_), LENGTH, T - LENGTH).draw(sequences, starts, 0.5, generator)
    np.testing.assert_array_equal(found.sequences, sequences)
    assert (found.weights == 1.0).all()


def shard(path: Path) -> Path:
    rewards, ends = np.ones((T, N), np.float32), np.zeros((T, N), np.bool_)
    is_first = np.zeros((T, N), np.bool_)
    ends[10, 3] = is_first[12, 3] = True
    rewards[11, 3] = 0.0  # no transition: the way to the next episode's first frame
    rewards[20, 7] = 5.0
    frames = np.zeros((T, N, 8, 8, 1), np.uint8)
    batch = EpisodeBatch(frames, rewards=rewards, terminations=ends, is_first=is_first)
    write_shard(path, {"training": batch}, DatasetAttributes())
    return path


def test_a_loader_draws_them_alike_in_every_run_and_in_several_processes(tmp_path):
    config = LoaderConfig(8, LENGTH, window="random", rare_fraction=0.5)
    with Dataset.open(shard(tmp_path / "rare.h5")) as dataset:
        batches = list(SequenceLoader(dataset, "training", config, seed=3).epoch(2))
        again = list(SequenceLoader(dataset, "training", config, seed=3).epoch(2, first_batch=2))
        half = LoaderConfig(4, LENGTH, window="random", rare_fraction=0.5)
        shares = [
            list(SequenceLoader(dataset, "training", half, seed=3, rank=rank, world_size=2).epoch(2))
            for rank in (0, 1)
        ]
        plain = next(iter(SequenceLoader(dataset, "training", LoaderConfig(8, LENGTH), seed=3).epoch(0)))
    assert plain.weights is None
    assert [batch.indices.tolist() for batch in batches[2:]] == [batch.indices.tolist() for batch in again]
    for whole, first, second in zip(batches, *shares, strict=True):
        assert whole.indices.tolist() == [*first.indices.tolist(), *second.indices.tolist()]
        assert whole.weights.tolist() == [*first.weights.tolist(), *second.weights.tolist()]
    indices = np.concatenate([batch.indices.numpy() for batch in batches])
    assert np.isin(indices, [3, 7]).mean() > 0.3
    for batch in batches:
        marked = (batch.rewards[:, :-1] == 5.0).any(dim=1) | batch.terminations[:, :-1].any(dim=1)
        assert (batch.weights[marked] < 1.0).all()
        assert (batch.weights[~marked] == 2.0).all()

from __future__ import annotations

import gc
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fabricate import ATTRIBUTES, break_file, discs, original_file
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rnem_world.data.dataset import Dataset
from rnem_world.data.loader import Batch, LoaderConfig, SequenceLoader, prefetch, read_batch
from rnem_world.data.schema import DatasetAttributes, EpisodeBatch
from rnem_world.data.writer import write_shard
from rnem_world.errors import ConfigError, DataError

N, T = 23, 9
EPISODES = discs(N, T, size=10, seed=5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    path = tmp_path_factory.mktemp("loader") / "a.h5"
    write_shard(path, {"training": EPISODES, "test": EpisodeBatch(EPISODES.features)}, ATTRIBUTES)
    with Dataset.open(path) as dataset:
        yield dataset


def loader(
    dataset: Dataset, *, seed: int = 1, rank: int = 0, world_size: int = 1, **options
) -> SequenceLoader:
    config = LoaderConfig(**{"batch_size": 4, "number_of_frames": 5, "window": "random", **options})
    return SequenceLoader(dataset, "training", config, seed, rank, world_size)


def tensors(batch: Batch) -> dict[str, Tensor]:
    return {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}


def assert_equal(one: Batch, other: Batch) -> None:
    assert tensors(one).keys() == tensors(other).keys()
    for name, value in tensors(one).items():
        assert torch.equal(value, getattr(other, name)), name


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("rnem-world-prefetch")]


class TestContent:
    @pytest.mark.parametrize("memory", [4.0, 0.0])
    def test_batches_hold_the_sequences_of_the_file(self, dataset: Dataset, memory: float) -> None:
        this = loader(dataset, window="start", memory_gigabytes=memory)
        assert this.in_memory == (memory > 0)
        for batch in this.epoch(0):
            rows = batch.indices.numpy()
            assert batch.frames.shape == (4, 5, 1, 10, 10)
            assert batch.maximum_value == 1
            for name, value in tensors(batch).items():
                if name == "indices":
                    continue
                source = getattr(EPISODES, {"frames": "features"}.get(name, name))
                expected = np.moveaxis(source[:5, rows], 1, 0)
                if name == "groups":
                    expected = expected[..., 0]
                elif name in ("frames", "collisions"):
                    expected = np.moveaxis(expected, -1, 2)
                np.testing.assert_array_equal(value.numpy(), expected)
        unread = {"features", "events", "seeds"}  # called frames; said by collisions; of no use to a model
        assert set(tensors(batch)) == {*EPISODES.arrays(), "frames", "indices"} - unread

    @pytest.mark.parametrize(("maximum", "channels"), [(1, 1), (1, 3), (255, 1), (255, 3)])
    def test_memory_and_files_give_equal_batches(self, tmp_path: Path, maximum: int, channels: int) -> None:
        episodes = discs(N, T, size=7, channels=channels, maximum=maximum)
        attributes = DatasetAttributes(number_of_actions=5, maximum_value=maximum)
        write_shard(tmp_path / "a.h5", {"training": episodes}, attributes)
        with Dataset.open(tmp_path / "a.h5") as this:
            kept, lazy = loader(this), loader(this, memory_gigabytes=0)
            assert (kept.in_memory, lazy.in_memory) == (True, False)
            for one, other in zip(kept.epoch(2), lazy.epoch(2), strict=True):
                assert_equal(one, other)
                assert one.maximum_value == maximum

    def test_memory_is_used_only_if_it_suffices(self, dataset: Dataset) -> None:
        pixels = 10 * 10
        packed = 2 * -(-pixels // 8)  # features and collisions
        # Groups, action, reward, termination, truncation, is_first, lives, positions and velocities.
        frame = packed + pixels + 8 + 4 + 1 + 1 + 1 + 1 + 2 * 3 * 2 * 4
        assert loader(dataset, memory_gigabytes=N * T * frame / 1e9).in_memory
        assert not loader(dataset, memory_gigabytes=(N * T * frame - 1) / 1e9).in_memory
        assert loader(dataset, limit=4, memory_gigabytes=4 * T * frame / 1e9).in_memory

    def test_events_stand_in_for_collisions(self, tmp_path: Path) -> None:
        path = original_file(tmp_path / "atari.h5", EPISODES, "float", with_actions=True)
        with Dataset.open(path) as this:
            batch = next(loader(this, window="start", shuffle=False).epoch(0))
        assert batch.collisions is not None
        assert batch.collisions.shape == (4, 5, 1, 1, 1)
        np.testing.assert_array_equal(batch.collisions[..., 0, 0, 0].T, EPISODES.events[:5, :4, 0, 0, 0])
        assert batch.actions is not None
        np.testing.assert_array_equal(batch.actions.T, EPISODES.actions[:5, :4])

    def test_only_the_arrays_wanted(self, dataset: Dataset) -> None:
        this = SequenceLoader(dataset, "training", LoaderConfig(4, 5), 0, arrays=("rewards",))
        assert set(tensors(next(this.epoch(0)))) == {"frames", "indices", "rewards"}

    def test_to_another_device(self, dataset: Dataset) -> None:
        moved = next(loader(dataset).epoch(0)).to("meta")
        assert {value.device.type for value in tensors(moved).values()} == {"meta"}

    def test_read_batch(self, dataset: Dataset) -> None:
        batch = read_batch(dataset, "training", [7, 2], 3, arrays=("actions",))
        np.testing.assert_array_equal(batch.frames[1, :, 0], EPISODES.features[:3, 2, ..., 0])
        assert batch.actions is not None
        np.testing.assert_array_equal(batch.actions[0], EPISODES.actions[:3, 7])
        assert batch.indices.tolist() == [7, 2]
        assert read_batch(dataset, "test", [0]).frames.shape == (1, T, 1, 10, 10)


class TestOrder:
    def test_seed_and_epoch_decide(self, dataset: Dataset) -> None:
        first = list(loader(dataset).epoch(3))
        for one, other in zip(first, loader(dataset).epoch(3), strict=True):
            assert_equal(one, other)
        for other in (loader(dataset).epoch(4), loader(dataset, seed=2).epoch(3)):
            assert not torch.equal(first[0].indices, next(other).indices)

    def test_every_sequence_once(self, dataset: Dataset) -> None:
        this = loader(dataset, drop_last=False)
        seen = torch.cat([batch.indices for batch in this.epoch(0)])
        assert sorted(seen.tolist()) == list(range(N))
        assert len(this) == 6
        dropped = torch.cat([batch.indices for batch in loader(dataset).epoch(0)])
        assert len(set(dropped.tolist())) == 20
        assert len(loader(dataset)) == 5

    def test_without_shuffling(self, dataset: Dataset) -> None:
        batches = loader(dataset, shuffle=False, limit=8).epoch(9)
        assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(8))

    def test_limit(self, dataset: Dataset) -> None:
        seen = torch.cat([batch.indices for batch in loader(dataset, limit=8).epoch(0)])
        assert sorted(seen.tolist()) == list(range(8))

    @pytest.mark.parametrize("first", [0, 1, 3, 5])
    @pytest.mark.parametrize("memory", [4.0, 0.0])
    def test_resuming_gives_the_tail(self, dataset: Dataset, first: int, memory: float) -> None:
        whole = list(loader(dataset, memory_gigabytes=memory).epoch(7))
        tail = list(loader(dataset, memory_gigabytes=memory).epoch(7, first))
        assert len(tail) == len(whole) - first
        for one, other in zip(whole[first:], tail, strict=True):
            assert_equal(one, other)

    def test_windows_stay_inside_and_go_everywhere(self, dataset: Dataset) -> None:
        this = loader(dataset, number_of_frames=5)
        positions, starts = EPISODES.positions, set()
        assert positions is not None
        for epoch in range(6):
            for batch in this.epoch(epoch):
                assert batch.positions is not None
                for row, window in zip(batch.indices.tolist(), batch.positions.numpy(), strict=True):
                    fits = [s for s in range(T - 4) if np.array_equal(positions[s : s + 5, row], window)]
                    assert len(fits) == 1
                    starts.update(fits)
        assert starts == set(range(T - 4))

    def test_the_whole_length_has_one_window(self, dataset: Dataset) -> None:
        batch = next(loader(dataset, number_of_frames=T).epoch(0))
        np.testing.assert_array_equal(batch.frames[0, :, 0], EPISODES.features[:, batch.indices[0], ..., 0])

    @given(
        batch_size=st.integers(1, 7),
        world_size=st.integers(1, 3),
        limit=st.integers(7, N),
        drop_last=st.booleans(),
        epoch=st.integers(0, 3),
    )
    @settings(max_examples=60, deadline=None)
    def test_ranks_together_are_one_process(
        self, dataset: Dataset, batch_size: int, world_size: int, limit: int, drop_last: bool, epoch: int
    ) -> None:
        if drop_last and batch_size * world_size > limit:
            return
        options = {"limit": limit, "drop_last": drop_last, "memory_gigabytes": 0.0}
        one = loader(dataset, batch_size=batch_size * world_size, **options)
        ranks = [
            loader(dataset, batch_size=batch_size, rank=rank, world_size=world_size, **options)
            for rank in range(world_size)
        ]
        parts = [rank.indices(epoch) for rank in ranks]
        assert [len(part) for part in parts] == [len(rank) for rank in ranks]
        whole = one.indices(epoch)
        for number, expected in enumerate(whole):
            pieces = [part[number] for part in parts if number < len(part)]
            np.testing.assert_array_equal(np.concatenate(pieces), expected)
            if drop_last:
                assert [len(piece) for piece in pieces] == [batch_size] * world_size

    def test_ranks_get_the_windows_of_one_process(self, dataset: Dataset) -> None:
        one = loader(dataset, batch_size=6).epoch(1)
        two = [loader(dataset, batch_size=3, rank=rank, world_size=2).epoch(1) for rank in range(2)]
        for whole, left, right in zip(one, *two, strict=True):
            for name, value in tensors(whole).items():
                assert torch.equal(value, torch.cat([getattr(left, name), getattr(right, name)]))


class TestThread:
    def test_it_ends_with_an_abandoned_epoch(self, dataset: Dataset) -> None:
        batches = loader(dataset, batch_size=1, memory_gigabytes=0).epoch(0)
        next(batches)
        assert len(prefetch_threads()) == 1
        del batches
        gc.collect()
        assert prefetch_threads() == []

    def test_it_has_ended_when_the_iterator_is_closed(self) -> None:
        def produce() -> Iterator[int]:
            for number in range(100):
                threading.Event().wait(0.2)
                yield number

        items = prefetch(produce(), 2)
        next(items)
        items.close()
        assert prefetch_threads() == []

    def test_it_ends_with_the_epoch(self, dataset: Dataset) -> None:
        assert len(list(loader(dataset).epoch(0))) == 5
        assert prefetch_threads() == []

    def test_two_epochs_side_by_side(self, dataset: Dataset) -> None:
        this = loader(dataset, memory_gigabytes=0)
        for one, other in zip(this.epoch(0), this.epoch(0), strict=True):
            assert_equal(one, other)

    def test_only_so_many_are_made_ahead(self) -> None:
        made: list[int] = []
        proceed = threading.Event()

        def produce() -> Iterator[int]:
            for number in range(10):
                made.append(number)
                if number == 3:
                    proceed.set()
                yield number

        items = prefetch(produce(), 2)
        assert next(items) == 0
        assert proceed.wait(5)  # 0 was taken, 1 and 2 wait, 3 is in the thread's hand
        assert not threading.Event().wait(0.3)
        assert made == [0, 1, 2, 3]
        items.close()
        assert made == [0, 1, 2, 3]

    def test_an_error_comes_where_its_item_would_have(self) -> None:
        def produce() -> Iterator[int]:
            yield 1
            raise DataError("broken")

        items = prefetch(produce(), 2)
        assert next(items) == 1
        with pytest.raises(DataError, match="broken"):
            next(items)
        assert prefetch_threads() == []

    def test_a_damaged_file_is_reported(self, tmp_path: Path) -> None:
        write_shard(tmp_path / "a.h5", {"training": EPISODES}, ATTRIBUTES)
        break_file(tmp_path / "a.h5", row=13)
        with Dataset.open(tmp_path / "a.h5") as this:
            with pytest.raises(DataError, match="sequences 13 to 13, can't be read"):
                list(loader(this, memory_gigabytes=0, drop_last=False).epoch(0))
            with pytest.raises(DataError, match="can't be read"):
                loader(this).epoch(0)

    def test_a_loader_can_be_pickled(self, dataset: Dataset) -> None:
        this = loader(dataset, memory_gigabytes=0)
        copy = pickle.loads(pickle.dumps(this))
        assert_equal(next(copy.epoch(0)), next(this.epoch(0)))


class TestWrongInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"number_of_frames": T + 1}, f"windows of {T + 1} frames .* have {T}; ask for fewer frames"),
            ({"batch_size": N + 1}, f"a batch of {N + 1} sequences is larger than the {N} used"),
            ({"batch_size": 5, "limit": 4}, "larger than the 4 used"),
            ({"batch_size": 12, "world_size": 2}, "12 sequences x 2 processes is larger"),
            ({"limit": N + 1}, f"limit is {N + 1}, but .* has {N} sequences"),
        ],
    )
    def test_the_file_has_less(self, dataset: Dataset, options: dict, message: str) -> None:
        with pytest.raises(DataError, match=message):
            loader(dataset, **options)

    def test_a_small_split_without_dropping(self, dataset: Dataset) -> None:
        assert len(loader(dataset, batch_size=N + 1, drop_last=False)) == 1

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"batch_size": 0}, "batch_size is 0"),
            ({"number_of_frames": 0}, "number_of_frames is 0"),
            ({"limit": 0}, "limit is 0"),
            ({"memory_gigabytes": -1.0}, "memory_gigabytes"),
            ({"memory_gigabytes": float("nan")}, "memory_gigabytes"),
            ({"rank": 2, "world_size": 2}, "rank is 2 of world_size 2"),
        ],
    )
    def test_values_that_make_no_sense(self, dataset: Dataset, options: dict, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            loader(dataset, **options)

    @pytest.mark.parametrize("first", [-1, 6])
    def test_a_batch_beyond_the_epoch(self, dataset: Dataset, first: int) -> None:
        with pytest.raises(ConfigError, match="expected 0 to 5"):
            loader(dataset).epoch(0, first)

    def test_missing_split_and_arrays(self, dataset: Dataset) -> None:
        config = LoaderConfig(4, 5)
        with pytest.raises(DataError, match="no split 'validation'"):
            SequenceLoader(dataset, "validation", config, 0)
        with pytest.raises(DataError, match=r"no array 'actions' in 'test'.*features"):
            SequenceLoader(dataset, "test", config, 0, arrays=("actions",))
        with pytest.raises(DataError, match="both asked for"):
            SequenceLoader(dataset, "training", config, 0, arrays=("events", "collisions"))

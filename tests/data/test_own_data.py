"""HDF5 files that users make by themselves."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fabricate import ATTRIBUTES, discs

from rnem_world.data.check import check_dataset
from rnem_world.data.dataset import Dataset
from rnem_world.data.loader import LoaderConfig, SequenceLoader, read_batch
from rnem_world.data.writer import write_shard
from rnem_world.errors import ConfigError, DataError
from rnem_world.models.config import ModelConfig
from rnem_world.training.config import RunConfig
from rnem_world.training.presets import check_fits


def hand_made(path: Path, attributes: dict[str, Any] | None = None, **arrays: np.ndarray) -> Path:
    """Writes a file as a user would: some arrays, h5py's own chunks, and perhaps attributes."""
    features = discs(5).features
    with h5py.File(path, "w") as file:
        for split in ("training", "validation"):
            group = file.create_group(split)
            for name, array in ({"features": features} | arrays).items():
                group[name] = array
        for name, value in (attributes or {}).items():
            file.attrs[name] = value
    return path


ACTIONS = np.random.default_rng(0).integers(0, 4, (6, 5))
ACTIONS[2, 3] = 3


class TestActionsAreCounted:
    @pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32, np.float32])
    def test_numbers(self, tmp_path: Path, dtype: type) -> None:
        with Dataset.open(hand_made(tmp_path / "a.h5", actions=ACTIONS.astype(dtype))) as dataset:
            assert dataset.info("training").number_of_actions == 4
            assert dataset.found_out == {"maximum_value", "number_of_actions"}
            actions = read_batch(dataset, "training", [0, 3]).actions
        assert actions is not None
        np.testing.assert_array_equal(actions, ACTIONS[:, [0, 3]].T)

    def test_one_hot(self, tmp_path: Path) -> None:
        with Dataset.open(hand_made(tmp_path / "a.h5", actions=np.eye(7)[ACTIONS])) as dataset:
            assert dataset.info("training").number_of_actions == 7
            assert dataset.found_out == {"maximum_value"}  # the columns say it

    @pytest.mark.parametrize("attributes", [{}, {"maximum_value": 1}, {"schema_version": 1}, {"seed": 3}])
    def test_whatever_else_is_said(self, tmp_path: Path, attributes: dict[str, int]) -> None:
        with Dataset.open(hand_made(tmp_path / "a.h5", attributes, actions=ACTIONS)) as dataset:
            assert dataset.info("training").number_of_actions == 4

    def test_what_the_file_says_holds(self, tmp_path: Path) -> None:
        path = hand_made(tmp_path / "a.h5", {"number_of_actions": 6}, actions=ACTIONS)
        with Dataset.open(path) as dataset:
            assert dataset.info("training").number_of_actions == 6
            assert "number_of_actions" not in dataset.found_out

    def test_of_all_splits_and_shards(self, tmp_path: Path) -> None:
        path = hand_made(tmp_path / "a.h5", actions=np.zeros((6, 5), int))
        with h5py.File(path, "r+") as file:
            file["validation/actions"][1, 1] = 2
        with Dataset.open(path) as dataset:
            assert dataset.info("training").number_of_actions == 3
        hand_made(tmp_path / "b.h5", actions=ACTIONS)
        with Dataset.open(tmp_path) as dataset:
            assert dataset.info("training").number_of_actions == 4

    @pytest.mark.parametrize(
        ("actions", "message"),
        [
            (ACTIONS - 1, "holds -1, expected numbers of actions, from 0"),
            (ACTIONS + 0.5, r"holds \d\.5, expected whole numbers"),
            (
                ACTIONS[:-1],
                r"where t is 6; its last entry is of the transition out of the last frame: add zeros",
            ),
        ],
    )
    def test_what_is_no_number_of_an_action(self, tmp_path: Path, actions: np.ndarray, message: str) -> None:
        path = hand_made(tmp_path / "a.h5", actions=actions)
        with pytest.raises(DataError, match=message):
            Dataset.open(path)
        assert check_dataset(path).problem is not None

    def test_a_column_of_numbers(self, tmp_path: Path) -> None:
        path = hand_made(tmp_path / "a.h5", actions=ACTIONS[..., None])
        problem = check_dataset(path).problem
        assert problem is not None
        assert "isn't one-hot" in problem.message
        assert "numbers of actions have the shape (T, N)" in problem.message


class TestWhatCheckSays:
    def test_what_will_follow(self, tmp_path: Path) -> None:
        rewards, ends = np.zeros((6, 5)), np.zeros((6, 5), bool)
        rewards[1, 1], ends[-2:, 2] = 0.5, True
        path = hand_made(tmp_path / "a.h5", actions=ACTIONS, rewards=rewards, terminations=ends)
        report = check_dataset(path)
        assert (report.problem, report.warnings) == (None, ())
        text = "\n".join(report.notes)
        for expected in (
            "training: 5 sequences of 6 frames, 12 x 12 x 1",
            "actions: 4, counted",
            "the attribute number_of_actions says it for certain",
            "rewards: in 1 of 30 transitions",
            "terminations: in 2 of 30 transitions",
            "frames: 0 and 1, as those looked at have; the attribute maximum_value",
        ):
            assert expected in text

    def test_what_will_be_missing(self, tmp_path: Path) -> None:
        path = hand_made(tmp_path / "a.h5", {"number_of_actions": 3})
        with h5py.File(path, "r+") as file:
            del file["validation"]
        text = "\n".join(check_dataset(path).notes)
        for expected in (
            "training: not possible, it needs the group 'validation'",
            "actions: none",
            "rewards: a world model won't learn them",
        ):
            assert expected in text

    def test_what_nobody_will_read(self, tmp_path: Path) -> None:
        path = hand_made(tmp_path / "a.h5", {"num_actions": 4}, reward=ACTIONS, dones=ACTIONS)
        with h5py.File(path, "r+") as file:
            file.move("validation", "val")
            file["training"].attrs["number_of_actions"] = 4
            del file["val/reward"], file["val/dones"]
        assert set(check_dataset(path).warnings) == {
            "nothing will read the attribute num_actions (is it number_of_actions?)",
            "nothing will read the attribute number_of_actions in training (it belongs to the file)",
            "nothing will read training/dones (is it terminations?)",
            "nothing will read training/reward (is it rewards?)",
            "nothing will read val (is it validation?)",
        }

    def test_nothing_of_files_that_say_it_all(self, tmp_path: Path) -> None:
        write_shard(tmp_path / "a.h5", {"training": discs(3)}, ATTRIBUTES)
        assert check_dataset(tmp_path / "a.h5").notes == ()


class TestWhatCannotBeLearned:
    @pytest.mark.parametrize("gigabytes", [0, 4])
    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("rewards", np.nan, "is nan, expected a finite number"),
            ("rewards", -np.inf, "is -inf, expected a finite number"),
            ("actions", 5, "is 5, expected 0 to 4"),
        ],
    )
    def test_is_refused_where_it_is_read(
        self, tmp_path: Path, gigabytes: int, name: str, value: float, message: str
    ) -> None:
        write_shard(tmp_path / "a.h5", {"training": discs(6)}, ATTRIBUTES)
        with h5py.File(tmp_path / "a.h5", "r+") as file:
            file["training"][name][4, 3] = value
        with Dataset.open(tmp_path / "a.h5") as dataset:
            config = LoaderConfig(2, 4, window="random", memory_gigabytes=gigabytes)
            loader = SequenceLoader(dataset, "training", config, seed=0)
            place = rf"a\.h5: training/{name}, sequence 3, frame 4: {message}.*data check"
            with pytest.raises(DataError, match=place):
                [list(loader.epoch(epoch)) for epoch in range(20)]  # windows are drawn


class TestWorkingDirectory:
    @pytest.mark.parametrize("kind", ["file", "folder", "list"])
    def test_it_may_change(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "elsewhere").mkdir()
        write_shard(tmp_path / "data" / "a.h5", {"training": discs(6)}, ATTRIBUTES)
        monkeypatch.chdir(tmp_path)
        dataset = Dataset.open({"file": "data/a.h5", "folder": "data", "list": ["data/a.h5"]}[kind])
        loader = SequenceLoader(dataset, "training", LoaderConfig(2, 4, memory_gigabytes=0), seed=0)
        monkeypatch.chdir(tmp_path / "elsewhere")
        dataset.close()  # and is opened again
        assert read_batch(dataset, "training", [0]).frames.shape == (1, 6, 1, 12, 12)
        assert len(list(loader.epoch(0))) == 3
        copy = pickle.loads(pickle.dumps(dataset))
        assert read_batch(copy, "training", [0]).frames.shape == (1, 6, 1, 12, 12)
        assert os.path.isabs(dataset.path)
        assert all(shard.is_absolute() for shard in dataset.shard_paths)
        dataset.close()
        copy.close()


class TestActionsThatDoNotOccur:
    """A count is the least that there can be: other data of the same environment may lack the highest action."""

    @pytest.mark.parametrize("given", [None, 5, 4])
    def test_a_model_may_know_more(self, tmp_path: Path, given: int | None) -> None:
        attributes = {} if given is None else {"number_of_actions": given}
        with Dataset.open(hand_made(tmp_path / "a.h5", attributes, actions=ACTIONS)) as dataset:
            info = replace(dataset.info("training"), height=32, width=32)
            assert info.actions_are_counted == (given is None)
            config = RunConfig(ModelConfig(architecture="conv32", number_of_actions=5))
            if given == 4:
                with pytest.raises(ConfigError, match="the data has 4 actions and the model was made for 5"):
                    check_fits(config, info)
            else:
                check_fits(config, info)
            with pytest.raises(ConfigError, match="made for 3"):
                check_fits(RunConfig(ModelConfig(architecture="conv32", number_of_actions=3)), info)

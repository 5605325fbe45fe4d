from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from fabricate import ACTIONS, ATTRIBUTES, break_file, discs, original_file

from rnem_world.data.check import Problem, Report, check_dataset
from rnem_world.data.schema import DatasetAttributes, EpisodeBatch
from rnem_world.data.writer import write_shard
from rnem_world.errors import DataError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_shard(tmp_path / "a.h5", {"training": discs(6), "test": discs(2, seed=1)}, ATTRIBUTES)
    return tmp_path / "a.h5"


def problem_of(path: Path) -> Problem:
    problem = check_dataset(path).problem
    assert problem is not None
    return problem


class TestFine:
    def test_our_files(self, path: Path) -> None:
        assert check_dataset(path) == Report(path, {"training": 6, "test": 2}, None, ())
        check_dataset(path).raise_problem()

    @pytest.mark.parametrize("kind", ["bool", "float"])
    @pytest.mark.parametrize("actions", [False, True])
    def test_original_files(self, tmp_path: Path, kind: str, actions: bool) -> None:
        original_file(tmp_path / "o.h5", discs(5), kind, with_actions=actions)
        report = check_dataset(tmp_path / "o.h5")
        assert (report.problem, report.warnings) == (None, ())

    def test_grey_frames(self, tmp_path: Path) -> None:
        attributes = DatasetAttributes(number_of_actions=ACTIONS, maximum_value=255)
        write_shard(tmp_path / "g.h5", {"test": discs(3, maximum=255, channels=3)}, attributes)
        assert check_dataset(tmp_path / "g.h5").problem is None

    def test_folders(self, path: Path) -> None:
        write_shard(path.with_name("b.h5"), {"training": discs(3)}, ATTRIBUTES)
        assert check_dataset(path.parent).sequences == {"training": 9, "test": 2}


class TestProblems:
    @pytest.mark.parametrize(
        ("name", "place", "value", "message"),
        [
            ("features", (4, 3, 5, 6, 0), 2, "holds 2, but the file's frames are binary"),
            ("groups", (4, 3, 5, 6, 0), 9, "has the object 9, but positions has only 3 balls"),
            ("collisions", (4, 3, 5, 6, 0), 2, "is 2, expected 0 to 1"),
            ("events", (4, 3, 0, 0, 0), 7, "is 7, expected 0 to 1"),
            ("actions", (4, 3), ACTIONS, f"is {ACTIONS}, expected 0 to {ACTIONS - 1}"),
            ("actions", (4, 3), -1, "is -1, expected 0 to"),
            ("rewards", (4, 3), np.nan, "is nan, expected a finite number"),
            ("positions", (4, 3, 1, 1), np.inf, "is inf, expected a finite number"),
            ("velocities", (4, 3, 1, 1), -np.inf, "is -inf"),
        ],
    )
    def test_values(self, path: Path, name: str, place: tuple[int, ...], value: float, message: str) -> None:
        with h5py.File(path, "r+") as file:
            file["training"][name][place] = value
        problem = problem_of(path)
        assert (problem.split, problem.array, problem.sequence, problem.frame) == ("training", name, 3, 4)
        assert message in problem.message
        assert problem.message.startswith(f"{path}: training/{name}, sequence")
        with pytest.raises(DataError, match=re.escape(problem.message)):
            check_dataset(path).raise_problem()

    @pytest.mark.parametrize("name", ["rewards", "groups", "features"])
    def test_in_a_later_block(self, path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setattr("rnem_world.data.check._BLOCK_BYTES", 1)
        with h5py.File(path, "r+") as file:
            file["training"][name][2, 4] = {"rewards": np.nan, "groups": 9, "features": 2}[name]
        problem = problem_of(path)
        assert (problem.sequence, problem.frame) == (4, 2)

    def test_the_first_of_two(self, path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file["training"]["rewards"][1, 5] = np.nan
            file["training"]["rewards"][2, 4] = np.nan
        assert problem_of(path).frame == 1

    @pytest.mark.parametrize("value", [0.0, 0.5, 2.0, np.nan])
    def test_one_hot(self, tmp_path: Path, value: float) -> None:
        path = original_file(tmp_path / "o.h5", discs(5), "bool", with_actions=True)
        with h5py.File(path, "r+") as file:
            file["test"]["actions"][3, 2] = value
        problem = problem_of(path)
        assert (problem.split, problem.array, problem.sequence, problem.frame) == ("test", "actions", 2, 3)
        assert "one-hot" in problem.message

    def test_a_float_that_is_neither_0_nor_1(self, tmp_path: Path) -> None:
        path = original_file(tmp_path / "o.h5", discs(100), "float")
        with h5py.File(path, "r+") as file:
            file["training"]["features"][2, 1, 3, 3, 0] = np.nan
        problem = problem_of(path)
        assert (problem.array, problem.sequence, problem.frame) == ("features", 1, 2)

    @pytest.mark.parametrize("name", ["features", "actions", "positions"])
    def test_a_broken_chunk(self, path: Path, name: str) -> None:
        break_file(path, name, row=4)
        problem = problem_of(path)
        assert (problem.split, problem.array, problem.sequence, problem.frame) == ("training", name, 4, None)
        assert "damaged" in problem.message

    def test_a_truncated_file(self, path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-1000])
        assert "truncated" in problem_of(path).message

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (lambda group: replace(group, "actions", np.zeros((5, 6), int)), "actions has the shape"),
            (lambda group: replace(group, "groups", np.zeros((6, 5, 12, 12, 1), np.uint8)), "where n is 6"),
            (
                lambda group: replace(group, "rewards", np.zeros((6, 6))),
                "stored as float64, expected float32",
            ),
            (
                lambda group: replace(group, "actions", np.zeros((6, 6, 3))),
                "3 columns, but the file says .* 5",
            ),
        ],
    )
    def test_shapes_and_dtypes(self, path: Path, edit: Callable[[h5py.Group], None], message: str) -> None:
        with h5py.File(path, "r+") as file:
            edit(file["training"])
        assert re.search(message, problem_of(path).message)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert "no such file" in problem_of(tmp_path / "x.h5").message


def replace(group: h5py.Group, name: str, values: np.ndarray) -> None:
    del group[name]
    group[name] = values


class TestWarnings:
    def test_black_sequences(self, tmp_path: Path) -> None:
        episodes = discs(9)
        episodes.features[:, [1, 7]] = 0
        episodes.features[:-1, 4] = 0  # one frame has something
        write_shard(tmp_path / "a.h5", {"training": episodes}, ATTRIBUTES)
        report = check_dataset(tmp_path / "a.h5")
        assert report.problem is None
        assert report.warnings == ("training: 2 of 9 sequences are all black (1, 7)",)

    def test_black_sequences_in_a_later_block(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rnem_world.data.check._BLOCK_BYTES", 1)
        self.test_black_sequences(tmp_path)

    def test_other_sequences_with_nothing_to_see(self, tmp_path: Path) -> None:
        features = np.zeros((5, 7, 40, 40, 1), np.uint8)
        features[:, :, 3:9, 3:9] = 255
        for frame in range(5):
            features[frame, :, 20, frame] = 255
        features[:, 1] = 255
        features[:, 2] = 99
        features[:, 3] = 0
        features[2, 3, 0, 0] = 1
        features[:, 4] = 255 - features[:, 4]
        features[:, 5] = features[:1, 5]
        attributes = DatasetAttributes(maximum_value=255)
        write_shard(tmp_path / "a.h5", {"training": EpisodeBatch(features)}, attributes)
        assert check_dataset(tmp_path / "a.h5").warnings == (
            "training: 1 of 7 sequences are all white (1): for dark objects on a white ground import with --invert",
            "training: 1 of 7 sequences have the same value in all pixels (2)",
            "training: 1 of 7 sequences are nearly all black (3): is the threshold of --binarise right?",
            "training: 1 of 7 sequences are nearly all white (4): for dark objects on a white ground import with "
            "--invert",
            "training: 1 of 7 sequences don't move, all their frames are the same (5)",
        )

    def test_several_episodes_in_a_sequence(self, tmp_path: Path) -> None:
        episodes = discs(4)
        assert episodes.terminations is not None
        episodes.terminations[...] = False
        episodes.terminations[-2:, 0] = True  # as a recording ends
        episodes.terminations[-3, 1] = True
        episodes.terminations[1:3, 2] = True
        episodes = dataclasses.replace(episodes, is_first=None)  # which would say where the next begins
        write_shard(tmp_path / "a.h5", {"training": episodes}, ATTRIBUTES)
        (warning,) = check_dataset(tmp_path / "a.h5").warnings
        assert warning.startswith("training: 2 of 4 sequences go on after the end of an episode")

    def test_single_frames_and_different_sizes(self, tmp_path: Path) -> None:
        splits = {
            "training": EpisodeBatch(discs(2, t=1).features),
            "test": EpisodeBatch(discs(2, size=10).features),
        }
        write_shard(tmp_path / "a.h5", splits, DatasetAttributes())
        one, two = check_dataset(tmp_path / "a.h5").warnings
        assert "single frame" in one
        assert "differ in height" in two


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_memory_stays_flat(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from rnem_world.data.check import check_dataset\n"
        "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024\n"
        "check_dataset(sys.argv[1]); before = peak()\n"
        "assert check_dataset(sys.argv[2]).problem is None\n"
        "print(peak() - before)\n"
    )
    for name, sequences in (("small.h5", 100), ("large.h5", 800)):
        zeros = np.ones((20, sequences, 64, 64, 1), np.uint8)
        write_shard(tmp_path / name, {"training": EpisodeBatch(zeros)}, DatasetAttributes())
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "small.h5"), str(tmp_path / "large.h5")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) < 10  # of 65 MB

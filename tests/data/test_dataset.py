from __future__ import annotations

import dataclasses
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from fabricate import ACTIONS, ATTRIBUTES, break_file, discs, original_file

from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import ARRAYS, DatasetAttributes, EpisodeBatch
from rnem_world.data.writer import merge_shards, new_hdf5, write_shard
from rnem_world.errors import ConfigError, DataError, OutputError


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    for number, size in enumerate((3, 1, 4)):
        splits = {"training": discs(size, seed=number)}
        if number != 1:
            splits["test"] = discs(2, seed=10 + number)
        write_shard(folder / f"{number:03}.h5", splits, ATTRIBUTES)
    return folder


def joined(name: str, *parts: EpisodeBatch) -> np.ndarray:
    return np.concatenate([getattr(part, name) for part in parts], axis=1)


class TestRoundTrip:
    @pytest.mark.parametrize(("maximum", "channels"), [(1, 1), (255, 3)])
    def test_everything_comes_back_as_it_was(self, tmp_path: Path, maximum: int, channels: int) -> None:
        episodes = discs(5, maximum=maximum, channels=channels)
        attributes = dataclasses.replace(ATTRIBUTES, maximum_value=maximum)
        write_shard(tmp_path / "new" / "a.h5", {"validation": episodes}, attributes)
        with Dataset.open(tmp_path / "new" / "a.h5") as dataset:
            assert dataset.attributes == attributes
            assert dataset.splits == ("validation",)
            info = dataset.info("validation")
            read = dataset.read("validation", range(5), info.arrays)
        assert info.arrays == tuple(ARRAYS)
        assert (info.number_of_sequences, info.number_of_frames) == (5, 6)
        assert (info.height, info.width, info.channels) == (12, 12, channels)
        assert info.number_of_actions == ACTIONS
        for name, array in episodes.arrays().items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name], array)

    def test_any_order_repeats_and_windows(self, tmp_path: Path) -> None:
        episodes = discs(7)
        write_shard(tmp_path / "a.h5", {"training": episodes}, ATTRIBUTES)
        indices, starts = [6, 0, 1, 2, 2, 5], [0, 1, 1, 1, 3, 2]
        with Dataset.open(tmp_path / "a.h5") as dataset:
            read = dataset.read("training", indices, tuple(ARRAYS), starts, 3)
        for name, array in episodes.arrays().items():
            for column, (index, start) in enumerate(zip(indices, starts, strict=True)):
                np.testing.assert_array_equal(read[name][:, column], array[start : start + 3, index])

    def test_one_chunk_a_sequence_and_no_modern_format(self, tmp_path: Path) -> None:
        write_shard(tmp_path / "a.h5", {"training": discs(2)}, ATTRIBUTES)
        with h5py.File(tmp_path / "a.h5") as file:
            for name in ARRAYS:
                array = file["training"][name]
                assert array.chunks == (6, 1, *array.shape[2:])
                assert (array.compression, array.compression_opts, array.shuffle) == ("gzip", 1, False)
            assert file["training"]["features"].dtype == np.uint8
            assert file.id.get_create_plist().get_version()[0] == 0  # superblock 0: libver "earliest"

    def test_the_same_data_gives_the_same_bytes(self, tmp_path: Path) -> None:
        for name in ("a.h5", "b.h5"):
            write_shard(tmp_path / name, {"training": discs(2)}, ATTRIBUTES)
        assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


class TestShards:
    def test_a_folder_reads_as_one(self, shards: Path) -> None:
        with Dataset.open(shards) as dataset:
            assert (
                dataset.info("training").number_of_sequences,
                dataset.info("test").number_of_sequences,
            ) == (8, 4)
            read = dataset.read("training", [7, 2, 3, 4, 0], ("features", "actions"))
        for name in ("features", "actions"):
            expected = joined(name, discs(3, seed=0), discs(1, seed=1), discs(4, seed=2))
            np.testing.assert_array_equal(read[name], expected[:, [7, 2, 3, 4, 0]])

    def test_merged_equals_the_shards(self, shards: Path, tmp_path: Path) -> None:
        merge_shards(shards, tmp_path / "all.h5")
        with Dataset.open(shards) as apart, Dataset.open(tmp_path / "all.h5") as merged:
            assert apart.attributes == merged.attributes
            assert apart.splits == merged.splits
            for split in apart.splits:
                info = apart.info(split)
                assert merged.info(split) == info
                rows = range(info.number_of_sequences)
                one, other = (d.read(split, rows, info.arrays) for d in (apart, merged))
                for name in info.arrays:
                    np.testing.assert_array_equal(one[name], other[name])

    def test_merging_keeps_the_order_given_and_copies_compressed_bytes(
        self, shards: Path, tmp_path: Path
    ) -> None:
        merge_shards([shards / "002.h5", shards / "000.h5"], tmp_path / "all.h5")
        with h5py.File(tmp_path / "all.h5") as merged, h5py.File(shards / "000.h5") as source:
            new = merged["training"]["features"].id.read_direct_chunk((0, 5, 0, 0, 0))
            assert new == source["training"]["features"].id.read_direct_chunk((0, 1, 0, 0, 0))

    def test_a_merged_file_may_take_the_place_of_a_shard(self, shards: Path) -> None:
        merge_shards(shards, shards / "000.h5")
        with Dataset.open(shards / "000.h5") as dataset:
            assert dataset.info("training").number_of_sequences == 8

    def test_seeds_may_differ(self, shards: Path) -> None:
        write_shard(shards / "9.h5", {"training": discs(1)}, dataclasses.replace(ATTRIBUTES, seed=4))
        with Dataset.open(shards) as dataset:
            assert dataset.attributes.seed is None

    def test_shards_of_other_versions_of_packages_are_read_together_and_all_are_named(
        self, tmp_path: Path
    ) -> None:
        def write(name: str, **versions: str) -> None:
            settings = {"recipe": {"id": "CartPole-v1", "versions": versions}}
            write_shard(
                tmp_path / name, {"training": discs(1)}, dataclasses.replace(ATTRIBUTES, settings=settings)
            )

        write("000.h5", gymnasium="1.2.0", rnem_world="0.1.0")
        write("001.h5", gymnasium="1.2.0", rnem_world="0.2.0", minatar="1.0.15")
        with Dataset.open(tmp_path) as dataset:
            recipe = dataset.attributes.settings["recipe"]
        expected = {"gymnasium": "1.2.0", "rnem_world": "0.1.0 + 0.2.0", "minatar": "1.0.15"}
        assert recipe == {"id": "CartPole-v1", "versions": expected}
        merge_shards(tmp_path, tmp_path / "002.h5")
        with Dataset.open(tmp_path) as dataset:
            assert dataset.attributes.settings["recipe"] == recipe
        other = {"recipe": {"id": "CartPole-v0", "versions": {}}}
        write_shard(
            tmp_path / "003.h5", {"training": discs(1)}, dataclasses.replace(ATTRIBUTES, settings=other)
        )
        with pytest.raises(DataError, match=r"003\.h5: settings is .*CartPole-v0"):
            Dataset.open(tmp_path)

    def test_other_settings_are_refused(self, shards: Path) -> None:
        write_shard(shards / "9.h5", {"training": discs(1)}, dataclasses.replace(ATTRIBUTES, settings={}))
        with pytest.raises(DataError, match=r"9\.h5: settings is \{\}, but .* in 000\.h5"):
            Dataset.open(shards)

    def test_other_sizes_are_refused(self, shards: Path) -> None:
        write_shard(shards / "9.h5", {"training": discs(1, size=10)}, ATTRIBUTES)
        with pytest.raises(DataError, match=r"9\.h5: 'training' has the arrays .*10.* but 000\.h5 has"):
            Dataset.open(shards)

    def test_other_arrays_are_refused(self, shards: Path) -> None:
        write_shard(shards / "9.h5", {"training": EpisodeBatch(features=discs(1).features)}, ATTRIBUTES)
        with pytest.raises(DataError, match="only equal shards"):
            Dataset.open(shards)

    def test_foreign_files_cannot_be_merged(self, tmp_path: Path) -> None:
        original_file(tmp_path / "o.h5", discs(2), "bool")
        with pytest.raises(DataError, match="can't be merged"):
            merge_shards([tmp_path / "o.h5"], tmp_path / "out.h5")
        assert [entry.name for entry in tmp_path.iterdir()] == ["o.h5"]

    def test_temporaries_and_other_files_are_no_shards(self, shards: Path) -> None:
        (shards / ".000.host-1-1.tmp.h5").write_bytes(b"half")
        (shards / ".hidden.h5").write_bytes(b"half")
        (shards / "notes.txt").write_text("x")
        with Dataset.open(shards) as dataset:
            assert len(dataset.shard_paths) == 3

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"holds no \.h5"):
            Dataset.open(tmp_path)
        with pytest.raises(DataError, match="no files were given"):
            Dataset.open([])


class TestWholeOrNotAtAll:
    def test_an_exception_leaves_the_earlier_file_and_no_temporary(self, tmp_path: Path) -> None:
        path = tmp_path / "a.h5"
        write_shard(path, {"training": discs(2)}, ATTRIBUTES)
        before = path.read_bytes()

        def interrupted() -> None:
            with new_hdf5(path) as (file, _):
                file.create_dataset("x", data=np.zeros(10))
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["a.h5"]

    def test_a_killed_writer_harms_nothing_and_is_tidied_up_after(self, tmp_path: Path) -> None:
        path = tmp_path / "a.h5"
        write_shard(path, {"training": discs(2)}, ATTRIBUTES)
        before = path.read_bytes()
        program = (
            "import sys, time, numpy as np\n"
            "from pathlib import Path\n"
            "from rnem_world.data.writer import new_hdf5\n"
            "with new_hdf5(Path(sys.argv[1])) as (file, _):\n"
            "    file.create_dataset('training/features', data=np.zeros((10, 10)))\n"
            "    file.flush()\n"
            "    print('writing', flush=True)\n"
            "    time.sleep(60)\n"
        )
        writer = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        orphan = [entry for entry in tmp_path.iterdir() if ".tmp" in entry.suffixes]
        write_shard(path, {"training": discs(2)}, ATTRIBUTES)
        assert orphan[0].exists()  # a living writer keeps its file
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        assert path.read_bytes() == before
        with Dataset.open(tmp_path) as dataset:
            assert dataset.shard_paths == (path,)
        write_shard(path, {"training": discs(2)}, ATTRIBUTES)
        assert os.listdir(tmp_path) == ["a.h5"]

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """Wherever the space ends: in the attributes, in a chunk, in the tables written at the end."""
        program = (
            "import resource, signal, sys, numpy as np\n"
            "from rnem_world.data.writer import merge_shards, write_shard\n"
            "from rnem_world.data.schema import EpisodeBatch\n"
            "from rnem_world.data.schema import DatasetAttributes\n"
            "from rnem_world.errors import OutputError\n"
            "path, source = sys.argv[1:]\n"
            "noise = np.random.default_rng(0).integers(0, 256, (10, 20, 64, 64, 1), dtype=np.uint8)\n"
            "def write(to):\n"
            "    write_shard(to, {'training': EpisodeBatch(noise)}, DatasetAttributes(maximum_value=255))\n"
            "write(source)\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "for size in (10, 3000, 5000, 300_000, 820_000):\n"
            "    resource.setrlimit(resource.RLIMIT_FSIZE, (size, 10**9))\n"
            "    for make in (lambda: write(path), lambda: merge_shards(source, path)):\n"
            "        try: make()\n"
            "        except OutputError as error: print(error)\n"
        )
        path, source = tmp_path / "a.h5", tmp_path / "source.h5"
        path.write_bytes(b"earlier")
        done = subprocess.run(
            [sys.executable, "-c", program, str(path), str(source)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        line = f"can't write {path}: File too large; free space or choose a folder that you may write to"
        assert done.stdout.splitlines() == [line] * 10
        assert path.read_bytes() == b"earlier"
        assert sorted(os.listdir(tmp_path)) == ["a.h5", "source.h5"]
        assert source.stat().st_size > 820_000

    def test_a_folder_or_a_file_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "folder.h5").mkdir()
        with pytest.raises(OutputError, match=r"can't write .*folder\.h5: it is a folder"):
            write_shard(tmp_path / "folder.h5", {"training": discs(1)}, ATTRIBUTES)
        (tmp_path / "file").write_text("x")
        with pytest.raises(OutputError, match=r"can't write .*a\.h5: .*file is a file"):
            write_shard(tmp_path / "file" / "a.h5", {"training": discs(1)}, ATTRIBUTES)

    def test_no_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("rnem_world.io.os.replace", refuse)  # root may write anywhere
        with pytest.raises(OutputError, match="Permission denied; free"):
            write_shard(tmp_path / "a.h5", {"training": discs(1)}, ATTRIBUTES)
        assert os.listdir(tmp_path) == []

    def test_a_damaged_shard_stops_a_merge_before_anything_is_replaced(
        self, shards: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out.h5"
        out.write_bytes(b"earlier")
        (shards / "001.h5").write_bytes((shards / "001.h5").read_bytes()[:-500])
        with pytest.raises(DataError, match=r"001\.h5: the file is truncated"):
            merge_shards(shards, out)
        assert out.read_bytes() == b"earlier"


class TestWrongSequences:
    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("features", np.zeros((6, 2, 12, 12), np.uint8), r"features has the shape \(6, 2, 12, 12\)"),
            ("features", np.zeros((6, 2, 12, 12, 1), np.float32), "dtype float32"),
            ("features", np.zeros((6, 0, 12, 12, 1), np.uint8), "nothing to store"),
            ("features", np.full((6, 2, 12, 12, 1), 2, np.uint8), "features is 2 in frame 0 of sequence 0"),
            ("groups", np.zeros((6, 2, 12, 12, 2), np.uint8), "groups has the shape"),
            ("collisions", np.zeros((6, 2, 12, 11, 1), np.uint8), "where w is 12"),
            ("events", np.full((6, 2, 1, 1, 1), 3, np.uint8), "events is 3"),
            ("actions", np.zeros((5, 2), np.int64), "where t is 6"),
            ("actions", np.full((6, 2), ACTIONS), f"actions is {ACTIONS}.*expected 0 to {ACTIONS - 1}"),
            ("actions", np.full((6, 2), -1), "actions is -1"),
            ("rewards", np.full((6, 2), np.nan, np.float32), "rewards is nan.*finite"),
            ("velocities", np.zeros((6, 2, 4, 2), np.float32), "where balls is 3"),
        ],
    )
    def test_the_first_thing_wrong_is_named(
        self, tmp_path: Path, name: str, value: np.ndarray, message: str
    ) -> None:
        episodes = discs(2)
        object.__setattr__(episodes, name, value)
        with pytest.raises(DataError, match=f"'training' can't be written to .*{message}"):
            write_shard(tmp_path / "a.h5", {"training": episodes}, ATTRIBUTES)
        assert os.listdir(tmp_path) == []

    def test_the_frame_and_sequence_are_named(self) -> None:
        episodes = discs(3)
        assert episodes.actions is not None
        episodes.actions[4, 2] = -7
        with pytest.raises(DataError, match="actions is -7 in frame 4 of sequence 2, expected at least 0"):
            episodes.validate()

    def test_actions_need_their_number(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="number_of_actions"):
            write_shard(tmp_path / "a.h5", {"training": discs(1)}, DatasetAttributes())

    def test_attributes_that_make_no_sense(self) -> None:
        with pytest.raises(ConfigError, match="maximum_value is 7"):
            DatasetAttributes(maximum_value=7)
        with pytest.raises(ConfigError, match="number_of_actions is 0"):
            DatasetAttributes(number_of_actions=0)
        with pytest.raises(ConfigError, match="JSON"):
            DatasetAttributes(settings={"x": np.zeros(2)})


class TestOriginalLayout:
    @pytest.mark.parametrize("kind", ["bool", "float"])
    def test_frames_groups_and_collisions(self, tmp_path: Path, kind: str) -> None:
        episodes = discs(20)
        original_file(tmp_path / "balls.h5", episodes, kind)
        with Dataset.open(tmp_path / "balls.h5") as dataset:
            assert dataset.attributes == DatasetAttributes(schema_version=0, package_version="")
            info = dataset.info("training")
            assert info.arrays == ("features", "groups", "collisions")
            assert info.number_of_actions is None
            read = dataset.read("test", [3, 19, 4, 5], info.arrays, start=1, length=4)
        for name, array in read.items():
            assert array.dtype == np.uint8
            np.testing.assert_array_equal(array, getattr(episodes, name)[1:5, [3, 19, 4, 5]])

    def test_one_hot_actions_and_events(self, tmp_path: Path) -> None:
        episodes = discs(4)
        original_file(tmp_path / "atari.h5", episodes, "float", with_actions=True)
        with Dataset.open(tmp_path / "atari.h5") as dataset:
            assert dataset.info("training").number_of_actions == ACTIONS
            read = dataset.read("training", [2, 0], ("actions", "events"))
        np.testing.assert_array_equal(read["actions"], episodes.actions[:, [2, 0]])
        assert read["actions"].dtype == np.int64
        np.testing.assert_array_equal(read["events"], episodes.events[:, [2, 0]])

    def test_a_row_that_is_not_one_hot(self, tmp_path: Path) -> None:
        path = original_file(tmp_path / "atari.h5", discs(4), "float", with_actions=True)
        with h5py.File(path, "r+") as file:
            file["training"]["actions"][3, 1] = 0
        with (
            Dataset.open(path) as dataset,
            pytest.raises(DataError, match=r"one-hot: in frame 3 the row is \[0"),
        ):
            dataset.read("training", [1], ("actions",))

    def test_grey_floats_are_scaled(self, tmp_path: Path) -> None:
        grey = np.random.default_rng(0).random((3, 2, 4, 4, 1)).astype(np.float32)
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["training/features"] = grey
        with Dataset.open(tmp_path / "a.h5") as dataset:
            assert dataset.attributes.maximum_value == 255
            read = dataset.read("training", [0, 1], ("features",))["features"]
        np.testing.assert_array_equal(read, np.rint(grey * 255))

    @pytest.mark.parametrize(("value", "named"), [(3.5, "floats from 0 to 3.5"), (np.nan, "floats from nan")])
    def test_other_floats_are_refused(self, tmp_path: Path, value: float, named: str) -> None:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["training/features"] = np.zeros((3, 2, 4, 4, 1), np.float32)
            file["training/features"][1, 1, 2, 2] = value
        with Dataset.open(tmp_path / "a.h5") as dataset, pytest.raises(DataError, match=named):
            dataset.read("training", [0, 1], ("features",))

    def test_a_grey_value_hidden_among_binary_frames(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["training/features"] = np.zeros((3, 100, 4, 4, 1), np.float32)
            file["training/features"][1, 1, 2, 2] = 0.5
        message = "sequences 1 to 1, holds 0[.]5, but the file's frames are binary"
        with Dataset.open(tmp_path / "a.h5") as dataset, pytest.raises(DataError, match=message):
            dataset.read("training", [1], ("features",))
        with h5py.File(tmp_path / "a.h5", "r+") as file:
            file.attrs["maximum_value"] = 255  # as the message says
        with Dataset.open(tmp_path / "a.h5") as dataset:
            assert dataset.read("training", [1], ("features",))["features"].max() == 128

    def test_groups_that_are_no_whole_numbers(self, tmp_path: Path) -> None:
        path = original_file(tmp_path / "a.h5", discs(2), "float")
        with h5py.File(path, "r+") as file:
            file["training"]["groups"][0, 0, 0, 0] = 1.5
        with (
            Dataset.open(path) as dataset,
            pytest.raises(DataError, match=r"training/groups.*holds 1\.5, expected"),
        ):
            dataset.read("training", [0], ("groups",))

    def test_a_grey_shard_makes_all_grey_that_say_nothing(self, tmp_path: Path) -> None:
        for name, value in (("a", 1.0), ("b", 0.5)):
            with h5py.File(tmp_path / f"{name}.h5", "w") as file:
                file["training/features"] = np.full((3, 2, 4, 4, 1), value, np.float32)
        with Dataset.open(tmp_path) as dataset:
            assert dataset.attributes.maximum_value == 255
            read = dataset.read("training", [0, 2], ("features",))["features"]
        assert read[0, :, 0, 0, 0].tolist() == [255, 128]
        with h5py.File(tmp_path / "a.h5", "r+") as file:
            file.attrs["maximum_value"] = 1
        with pytest.raises(DataError, match=r"b\.h5: maximum_value is 255, but 1 in a\.h5"):
            Dataset.open(tmp_path)


class TestMissing:
    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Dataset:
        write_shard(tmp_path / "a.h5", {"training": EpisodeBatch(discs(3).features)}, ATTRIBUTES)
        return Dataset.open(tmp_path / "a.h5")

    def test_split(self, dataset: Dataset) -> None:
        with pytest.raises(DataError, match=r"no split 'test': .*training"):
            dataset.info("test")

    def test_array(self, dataset: Dataset) -> None:
        with pytest.raises(DataError, match=r"no array 'groups' in 'training': .*features"):
            dataset.read("training", [0], ("groups",))

    @pytest.mark.parametrize("index", [-1, 3])
    def test_sequence(self, dataset: Dataset, index: int) -> None:
        with pytest.raises(DataError, match="has 3, counted from 0"):
            dataset.read("training", [0, index], ("features",))

    @pytest.mark.parametrize(("start", "length"), [(0, 7), (3, 4), (-1, 2), (6, None)])
    def test_frames(self, dataset: Dataset, start: int, length: int | None) -> None:
        with pytest.raises(DataError, match="have 6, counted from 0"):
            dataset.read("training", [0], ("features",), start, length)

    def test_file(self, dataset: Dataset) -> None:
        with pytest.raises(DataError, match=r"b\.h5: no such file; did you mean 'a\.h5'"):
            Dataset.open(dataset.path.with_name("b.h5"))


class TestDamage:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "truncated|not an HDF5 file"),
            (b"just text", "not an HDF5 file; .*data import"),
            (b"PK\3\4", "not an HDF5"),
        ],
    )
    def test_not_hdf5(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / "a.h5").write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            Dataset.open(tmp_path / "a.h5")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("fraction", [0.1, 0.5, 0.99])
    def test_truncated(self, tmp_path: Path, fraction: float) -> None:
        path = tmp_path / "a.h5"
        write_shard(path, {"training": discs(20)}, ATTRIBUTES)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * fraction)])
        with pytest.raises(DataError, match=re.escape(str(path)) + ".*truncated"):
            Dataset.open(path)

    def test_a_broken_chunk(self, tmp_path: Path) -> None:
        path = tmp_path / "a.h5"
        write_shard(path, {"training": discs(5)}, ATTRIBUTES)
        break_file(path, row=3)
        with Dataset.open(path) as dataset:
            assert dataset.read("training", [2], ("features",))
            with pytest.raises(DataError, match="training/features, sequences 3 to 3, can't be read"):
                dataset.read("training", [3], ("features",))

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (lambda file: file.move("training", "train"), "none of the groups training.*it has: train"),
            (lambda file: file.move("training/features", "training/x"), "no array 'features'; it has: .*x"),
            (
                lambda file: (
                    file["training"].__delitem__("actions") or file.__setitem__("training/actions", [1])
                ),
                "actions has the shape",
            ),
            (lambda file: file.__setitem__("test/features", [b"x"]), "test/features has the shape"),
            (lambda file: file.attrs.__setitem__("schema_version", 99), "version 99 is newer"),
            (lambda file: file.attrs.__setitem__("settings", "no json"), "attributes"),
            (lambda file: file.attrs.__setitem__("seed", "many"), "attributes"),
        ],
    )
    def test_not_a_dataset(self, tmp_path: Path, edit, message: str) -> None:
        path = tmp_path / "a.h5"
        write_shard(path, {"training": discs(2)}, ATTRIBUTES)
        with h5py.File(path, "r+") as file:
            edit(file)
        with pytest.raises(DataError, match=message):
            Dataset.open(path)


class TestSharing:
    def test_pickled_copies_read_for_themselves(self, shards: Path) -> None:
        with Dataset.open(shards) as dataset:
            expected = dataset.read("training", [5], ("features",))["features"]
            copy = pickle.loads(pickle.dumps(dataset))
        np.testing.assert_array_equal(copy.read("training", [5], ("features",))["features"], expected)
        copy.close()

    def test_a_forked_child_reads_for_itself(self, shards: Path) -> None:
        with Dataset.open(shards) as dataset:
            expected = dataset.read("training", [5], ("features",))["features"]
            child = os.fork()
            if child == 0:
                same = np.array_equal(dataset.read("training", [5], ("features",))["features"], expected)
                os._exit(0 if same else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            np.testing.assert_array_equal(dataset.read("training", [5], ("features",))["features"], expected)

    def test_a_child_forked_while_another_thread_reads(self, shards: Path) -> None:
        """The child has the lock as it was, held by a thread that it hasn't got."""
        with Dataset.open(shards) as dataset:
            dataset.read("training", [5], ("features",))
            holding, done = threading.Event(), threading.Event()

            def hold() -> None:
                with dataset._files._lock:
                    holding.set()
                    done.wait()

            thread = threading.Thread(target=hold)
            thread.start()
            holding.wait()
            child = os.fork()
            if child == 0:
                signal.alarm(5)
                dataset.read("training", [5], ("features",))
                os._exit(0)
            done.set()
            thread.join()
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def test_threads(self, shards: Path) -> None:
        with Dataset.open(shards) as dataset:
            every = dataset.read("training", range(8), ("features",))["features"]

            def same(index: int) -> bool:
                return np.array_equal(
                    dataset.read("training", [index], ("features",))["features"][:, 0], every[:, index]
                )

            with ThreadPoolExecutor(8) as pool:
                assert all(pool.map(same, [index % 8 for index in range(200)]))

    def test_only_so_many_files_are_open_at_once(self, shards: Path, tmp_path: Path) -> None:
        """A process with room for 100 files reads a dataset of 150; one without says what is the matter."""
        for number in range(150):
            shutil.copy(shards / "001.h5", tmp_path / f"{number:03}.h5")
        program = (
            "import resource, sys, numpy as np\n"
            "from rnem_world.data.dataset import Dataset\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\n"
            "with Dataset.open(sys.argv[1]) as dataset:\n"
            "    order = np.random.default_rng(0).permutation(150)\n"
            "    frames = dataset.read('training', order, ('features',))['features']\n"
            "    assert (frames == frames[:, :1]).all() and frames.any()\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (20, 100))\n"
            "try: Dataset.open(sys.argv[1])\n"
            "except Exception as error: print(type(error).__name__, error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
        )
        assert re.fullmatch(
            r"DataError .*\.h5: too many files are open already; .*ulimit.*\n", done.stdout
        ), done

    def test_threads_while_files_are_closed_and_opened(
        self, shards: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("rnem_world.data.shards.MOST_OPEN", 1)
        self.test_threads(shards)
        with Dataset.open(shards) as dataset:
            dataset.read("training", [0, 7], ("features",))
            assert len(dataset._files._files) == 1

    def test_closing_is_not_the_end(self, shards: Path) -> None:
        dataset = Dataset.open(shards)
        dataset.close()
        assert dataset.read("training", [0], ("actions",))["actions"].shape == (6, 1)
        dataset.close()

    def test_a_writer_does_not_disturb_a_reader(self, shards: Path) -> None:
        with Dataset.open(shards) as dataset:
            before = dataset.read("training", [0], ("features",))["features"]
            write_shard(shards / "000.h5", {"training": discs(3, seed=77)}, ATTRIBUTES)
            np.testing.assert_array_equal(dataset.read("training", [0], ("features",))["features"], before)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_memory_stays_flat_while_merging(tmp_path: Path) -> None:
    """Merging 40 MB of incompressible frames takes far less memory than that."""
    program = (
        "import sys\n"
        "from rnem_world.data.writer import merge_shards\n"
        "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024\n"
        "merge_shards([sys.argv[1]], sys.argv[2]); before = peak()\n"
        "merge_shards([sys.argv[1]] * 8, sys.argv[2])\n"
        "print(peak() - before)\n"
    )
    noise = np.random.default_rng(0).integers(0, 256, (10, 50, 100, 100, 1), dtype=np.uint8)
    write_shard(tmp_path / "a.h5", {"training": EpisodeBatch(noise)}, DatasetAttributes(maximum_value=255))
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.h5"), str(tmp_path / "b.h5")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (tmp_path / "b.h5").stat().st_size > 35e6
    assert float(done.stdout) < 15

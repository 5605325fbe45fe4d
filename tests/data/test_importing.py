from __future__ import annotations

import os
import pickle
from pathlib import Path

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rnem_world.data.arrays import Reading
from rnem_world.data.check import check_dataset
from rnem_world.data.dataset import Dataset
from rnem_world.data.importing import counts_by_ratio, import_frames
from rnem_world.data.schema import SPLITS
from rnem_world.data.windows import ImportConfig
from rnem_world.errors import ConfigError, DataError, OutputError

ALL_TRAINING = (1, 0, 0)


def video(t: int = 20, h: int = 16, w: int = 24, seed: int = 0) -> np.ndarray:
    """Bright squares on black, (t, h, w) in 0..255, whose first pixels tell the frame's number."""
    generator = np.random.default_rng(seed)
    frames = np.zeros((t, h, w), np.uint8)
    for frame in frames:
        y, x = generator.integers(2, h - 6), generator.integers(0, w - 6)
        frame[y : y + 6, x : x + 6] = 255
    bits = np.arange(t)[:, None] >> np.arange(8) & 1
    frames[:, 0, :8] = bits * 255
    return frames


def frame_numbers(features: np.ndarray) -> np.ndarray:
    """Reads back the numbers of the frames (t, n)."""
    return ((features[:, :, 0, :8, 0] > 0) << np.arange(8)).sum(axis=-1)


def read_all(path: Path, split: str = "training") -> dict[str, np.ndarray]:
    with Dataset.open(path) as dataset:
        info = dataset.info(split)
        return dataset.read(split, range(info.number_of_sequences), info.arrays)


class TestSources:
    @pytest.mark.parametrize("kind", ["thw", "thwc", "nthw", "nthwc"])
    @pytest.mark.parametrize("suffix", [".npy", ".npz"])
    def test_arrays(self, tmp_path: Path, kind: str, suffix: str) -> None:
        frames = video(20) if kind.startswith("t") else np.stack([video(10, seed=s) for s in range(2)])
        sequences = frames.reshape(2, 10, 16, 24)
        if kind.endswith("c"):
            frames = frames[..., None]
        if suffix == ".npy":
            np.save(tmp_path / "a.npy", frames)
        else:
            np.savez_compressed(tmp_path / "a.npz", frames=frames)
        reading = Reading(axes=kind if kind.startswith("n") else None)
        summary = import_frames(
            tmp_path / f"a{suffix}", tmp_path / "o.h5", ImportConfig(10, ratio=ALL_TRAINING, reading=reading)
        )
        assert summary.sequences == {"training": 2}
        assert (summary.height, summary.width, summary.channels) == (16, 24, 1)
        features = read_all(tmp_path / "o.h5")["features"]
        order = sorted(range(2), key=lambda n: features[:, n].tobytes())
        expected = sorted(range(2), key=lambda n: (sequences[n] > 0).astype(np.uint8).tobytes())
        for n, m in zip(order, expected, strict=True):
            np.testing.assert_array_equal(features[:, n, ..., 0], sequences[m] > 0)
        assert check_dataset(tmp_path / "o.h5").problem is None
        assert sorted(os.listdir(tmp_path)) == [f"a{suffix}", "o.h5"]

    @pytest.mark.parametrize(
        ("dtype", "top"), [(bool, 1), (np.uint8, 1), (np.float32, 1), (np.float64, 255), (np.int64, 255)]
    )
    def test_every_range_means_the_same(self, tmp_path: Path, dtype: type, top: int) -> None:
        np.save(tmp_path / "a.npy", (video(10) / 255 * top).astype(dtype))
        import_frames(
            tmp_path / "a.npy", tmp_path / "o.h5", ImportConfig(10, binarise=None, ratio=ALL_TRAINING)
        )
        np.testing.assert_array_equal(read_all(tmp_path / "o.h5")["features"][:, 0, ..., 0], video(10))

    def test_groups_and_actions_stay_beside_their_frames(self, tmp_path: Path) -> None:
        frames = np.stack([video(13, seed=seed) for seed in range(4)])
        groups = (frames > 0) * np.arange(1, 5)[:, None, None, None]
        actions = np.tile(np.arange(13), (4, 1))
        np.savez(tmp_path / "a.npz", frames=frames, groups=groups[..., None], actions=actions)
        config = ImportConfig(5, stride=4, ratio=ALL_TRAINING, reading=Reading(axes="NTHW"))
        assert import_frames(tmp_path / "a.npz", tmp_path / "o.h5", config).sequences == {"training": 12}
        read = read_all(tmp_path / "o.h5")
        np.testing.assert_array_equal(read["actions"], frame_numbers(read["features"]))
        np.testing.assert_array_equal(read["groups"] > 0, read["features"] > 0)
        assert set(np.unique(read["groups"])) == {0, 1, 2, 3, 4}
        with Dataset.open(tmp_path / "o.h5") as dataset:
            assert dataset.info("training").number_of_actions == 13

    def test_a_known_number_of_actions(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", frames=video(10), actions=np.zeros(10, int))
        import_frames(tmp_path / "a.npz", tmp_path / "o.h5", ImportConfig(10, number_of_actions=4))
        with Dataset.open(tmp_path / "o.h5") as dataset:
            assert dataset.attributes.number_of_actions == 4

    @pytest.mark.parametrize(
        ("suffix", "options"),
        [
            (".mp4", {"plugin": "FFMPEG", "fps": 10, "macro_block_size": 1}),
            (".gif", {"plugin": "pillow", "duration": 100}),
            (".webp", {"plugin": "pillow", "lossless": True}),
        ],
    )
    def test_videos(self, tmp_path: Path, suffix: str, options: dict) -> None:
        frames = video(20, 32, 48)
        iio.imwrite(tmp_path / f"v{suffix}", np.repeat(frames[..., None], 3, axis=-1), **options)
        import_frames(tmp_path / f"v{suffix}", tmp_path / "o.h5", ImportConfig(20, ratio=ALL_TRAINING))
        features = read_all(tmp_path / "o.h5")["features"][:, 0, ..., 0]
        wrong = np.mean(features != (frames > 127))
        assert wrong < (0.01 if suffix == ".mp4" else 1e-9)

    def test_a_folder_of_images_in_the_order_of_their_numbers(self, tmp_path: Path) -> None:
        folder = tmp_path / "images"
        folder.mkdir()
        for number, frame in enumerate(video(12)):
            Image.fromarray(frame).save(folder / f"frame_{number}.png")
        import_frames(folder, tmp_path / "o.h5", ImportConfig(12, ratio=ALL_TRAINING))
        assert frame_numbers(read_all(tmp_path / "o.h5")["features"])[:, 0].tolist() == list(range(12))

    def test_a_folder_of_folders_and_videos(self, tmp_path: Path) -> None:
        for clip in range(3):
            folder = tmp_path / "clips" / f"clip{clip}"
            folder.mkdir(parents=True)
            for number, frame in enumerate(video(7, seed=clip)):
                Image.fromarray(frame).save(folder / f"{number}.png")
        iio.imwrite(tmp_path / "clips" / "x.gif", video(7, seed=9), duration=100)
        summary = import_frames(tmp_path / "clips", tmp_path / "o.h5", ImportConfig(5, ratio=ALL_TRAINING))
        assert (summary.clips, summary.sequences) == (4, {"training": 4})

    def test_colours(self, tmp_path: Path) -> None:
        frames = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
        np.save(tmp_path / "a.npy", frames)
        config = ImportConfig(6, channels=3, binarise=None, ratio=ALL_TRAINING)
        import_frames(tmp_path / "a.npy", tmp_path / "o.h5", config)
        np.testing.assert_array_equal(read_all(tmp_path / "o.h5")["features"][:, 0], frames)
        with Dataset.open(tmp_path / "o.h5") as dataset:
            assert dataset.attributes.maximum_value == 255


class TestConversion:
    def test_resizing_averages_areas(self, tmp_path: Path) -> None:
        frames = np.random.default_rng(0).integers(0, 256, (4, 12, 20), dtype=np.uint8)
        np.save(tmp_path / "a.npy", frames)
        config = ImportConfig(4, size=(6, 5), binarise=None, ratio=ALL_TRAINING)
        import_frames(tmp_path / "a.npy", tmp_path / "o.h5", config)
        features = read_all(tmp_path / "o.h5")["features"][:, 0, ..., 0]
        areas = frames.reshape(4, 6, 2, 5, 4).mean(axis=(2, 4))
        np.testing.assert_allclose(features, areas, rtol=0, atol=1)  # rounded along each axis

    @pytest.mark.parametrize("threshold", [0, 0.25, 0.5])
    def test_the_threshold_is_a_part_of_full_brightness(self, tmp_path: Path, threshold: float) -> None:
        frames = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(3, axis=0)
        np.save(tmp_path / "a.npy", frames)
        import_frames(
            tmp_path / "a.npy", tmp_path / "o.h5", ImportConfig(3, binarise=threshold, ratio=ALL_TRAINING)
        )
        features = read_all(tmp_path / "o.h5")["features"][:, 0, ..., 0]
        np.testing.assert_array_equal(features, frames / 255 > threshold)

    def test_groups_keep_their_numbers_when_resized(self, tmp_path: Path) -> None:
        groups = np.kron(np.array([[0, 3], [7, 1]]), np.ones((4, 4), int))[None].repeat(3, axis=0)
        np.savez(tmp_path / "a.npz", frames=groups > 0, groups=groups)
        import_frames(tmp_path / "a.npz", tmp_path / "o.h5", ImportConfig(3, size=(2, 2), ratio=ALL_TRAINING))
        assert read_all(tmp_path / "o.h5")["groups"][0, 0, ..., 0].tolist() == [[0, 3], [7, 1]]


class TestWindows:
    @given(
        length=st.integers(1, 60),
        frames=st.integers(2, 12),
        stride=st.integers(1, 15),
    )
    @settings(max_examples=15, deadline=None)
    def test_they_are_consecutive_frames(
        self, tmp_path_factory: pytest.TempPathFactory, length: int, frames: int, stride: int
    ) -> None:
        folder = tmp_path_factory.mktemp("windows")
        np.save(folder / "a.npy", video(length))
        # Said, because a clip with as many frames as a frame has rows can be read in two ways.
        config = ImportConfig(frames, stride=stride, ratio=ALL_TRAINING, reading=Reading(axes="THW"))
        starts = range(0, length - frames + 1, stride)
        if not starts:
            with pytest.raises(DataError, match=f"no clip has {frames} frames, the longest has {length}"):
                import_frames(folder / "a.npy", folder / "o.h5", config)
            assert os.listdir(folder) == ["a.npy"]
            return
        import_frames(folder / "a.npy", folder / "o.h5", config)
        numbers = frame_numbers(read_all(folder / "o.h5")["features"]).T.tolist()
        assert sorted(numbers) == [list(range(start, start + frames)) for start in starts]

    def test_short_clips_are_counted(self, tmp_path: Path) -> None:
        (tmp_path / "clips").mkdir()
        for number, length in enumerate((3, 8, 4)):
            iio.imwrite(tmp_path / "clips" / f"{number}.gif", video(length), duration=100)
        summary = import_frames(tmp_path / "clips", tmp_path / "o.h5", ImportConfig(5, ratio=ALL_TRAINING))
        assert (summary.clips, summary.short_clips, summary.sequences) == (3, 2, {"training": 1})

    @pytest.mark.parametrize("stride", [None, 2, 5, 9])
    def test_no_frame_is_in_two_splits(self, tmp_path: Path, stride: int | None) -> None:
        np.save(tmp_path / "a.npy", video(200))
        config = ImportConfig(5, stride=stride, ratio=(0.6, 0.2, 0.2))
        summary = import_frames(tmp_path / "a.npy", tmp_path / "o.h5", config)
        assert set(summary.sequences) == set(SPLITS)
        seen = [
            set(frame_numbers(read_all(tmp_path / "o.h5", s)["features"]).ravel().tolist()) for s in SPLITS
        ]
        assert len(set.union(*seen)) == sum(len(numbers) for numbers in seen)
        windows = len(range(0, 200 - 5 + 1, stride or 5))
        assert sum(summary.sequences.values()) + summary.unused_windows == windows
        assert (summary.unused_windows > 0) == (stride == 2)

    @given(
        total=st.integers(1, 200), ratio=st.tuples(*[st.floats(0, 10)] * 3).filter(lambda r: sum(r) > 1e-3)
    )
    def test_counts(self, total: int, ratio: tuple[float, float, float]) -> None:
        counts = counts_by_ratio(total, ratio)
        assert sum(counts) == total
        assert all(count >= 0 for count in counts)
        if total >= 3:
            assert [count > 0 for count in counts] >= [part > 1e-3 for part in ratio]
        for count, part in zip(counts, ratio, strict=True):
            assert abs(count - part / sum(ratio) * total) <= 2
            assert part > 0 or count == 0

    def test_the_seed_deals_the_windows_out(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", video(200))
        found = []
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            import_frames(tmp_path / "a.npy", tmp_path / f"{name}.h5", ImportConfig(5, seed=seed))
            found.append(frame_numbers(read_all(tmp_path / f"{name}.h5", "test")["features"]).tolist())
        assert found[0] == found[1] != found[2]

    def test_many_small_files_on_the_way_change_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        np.save(tmp_path / "a.npy", video(200))
        import_frames(tmp_path / "a.npy", tmp_path / "one.h5", ImportConfig(5))
        monkeypatch.setattr("rnem_world.data.importing._SHARD_BYTES", 5000)
        import_frames(tmp_path / "a.npy", tmp_path / "many.h5", ImportConfig(5))
        for split in SPLITS:
            np.testing.assert_array_equal(
                read_all(tmp_path / "one.h5", split)["features"],
                read_all(tmp_path / "many.h5", split)["features"],
            )


class Bomb:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("exploded",))


class TestWrongInput:
    def refused(self, source: Path, message: str, **options) -> None:
        before = sorted(os.listdir(source.parent))
        with pytest.raises(DataError, match=message) as caught:
            import_frames(source, source.parent / "o.h5", ImportConfig(**{"number_of_frames": 3, **options}))
        assert "\n" not in str(caught.value)
        assert sorted(os.listdir(source.parent)) == before

    @pytest.mark.parametrize("name", ["a.npy", "a.npz"])
    def test_pickles_are_never_opened(
        self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        objects = np.array([Bomb()], dtype=object)
        np.save(tmp_path / name, objects) if name == "a.npy" else np.savez(tmp_path / name, frames=objects)
        self.refused(tmp_path / name, "pickled Python objects, which are never loaded")
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        self.refused(tmp_path / name, "pickled Python objects, which are never loaded")
        assert not (tmp_path / "exploded").exists()

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((4, 5)), r"shape \(4, 5\), expected \(T, H, W\)"),
            (np.zeros((2, 4, 5, 5, 2)), "with C 1, 3 or 4"),
            (np.zeros((0, 5, 5)), "it is empty"),
            (np.zeros((4, 5, 5), complex), "complex128, expected numbers"),
            (np.full((4, 5, 5), -0.1), "values from -0.1 to -0.1"),
            (np.full((4, 5, 5), 256), "values from 256 to 256"),
            (np.full((4, 5, 5), np.nan), "values from nan"),
            (np.array(["x"]), "expected numbers"),
        ],
    )
    def test_arrays(self, tmp_path: Path, array: np.ndarray, message: str) -> None:
        np.save(tmp_path / "a.npy", array)
        self.refused(tmp_path / "a.npy", message)

    @pytest.mark.parametrize(
        ("extra", "message"),
        [
            ({"groups": np.zeros((4, 5, 6))}, r"groups has the shape .* expected \(4, 5, 5\)"),
            ({"groups": np.full((4, 5, 5), 0.5)}, "groups holds float64, expected whole numbers"),
            ({"actions": np.zeros(2)}, r"actions has the shape .* expected \(4,\), or 3 transitions, like"),
            ({"actions": np.full(4, -1)}, "actions holds"),
        ],
    )
    def test_extras(self, tmp_path: Path, extra: dict, message: str) -> None:
        np.savez(tmp_path / "a.npz", frames=np.zeros((4, 5, 5)), **extra)
        self.refused(tmp_path / "a.npz", message)

    def test_too_few_actions_given(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", frames=np.zeros((4, 5, 5)), actions=np.arange(4))
        self.refused(tmp_path / "a.npz", "actions is 2 in frame 2", number_of_actions=2)

    @pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.mp4", "a.gif", "a.txt", "a"])
    @pytest.mark.parametrize("content", [b"", b"no frames here\n" * 50])
    def test_files_that_are_something_else(self, tmp_path: Path, name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        self.refused(tmp_path / name, "not a readable|never loaded")

    def test_a_truncated_archive(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", frames=video(20))
        (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-200])
        self.refused(tmp_path / "a.npz", "not a readable NumPy file")

    def test_an_archive_without_frames(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", actions=np.zeros(4))
        self.refused(tmp_path / "a.npz", "no frames in it")

    def test_folders(self, tmp_path: Path) -> None:
        folder = tmp_path / "f"
        folder.mkdir()
        self.refused(folder, "neither images, videos nor folders")
        (folder / "a.png").write_bytes(b"no image")
        self.refused(folder, r"a\.png: not a readable image")
        (folder / "inside").mkdir()
        self.refused(folder, r"both images \(a\.png\) and clips \(inside\)")
        (folder / "a.png").unlink()
        self.refused(folder, "inside: the folder holds no images")

    def test_different_sizes(self, tmp_path: Path) -> None:
        folder = tmp_path / "f"
        folder.mkdir()
        for number, size in enumerate((8, 8, 9)):
            Image.new("L", (size, 8)).save(folder / f"{number}.png")
        self.refused(folder, "a frame of 8 x 9 pixels, but those of .* have 8 x 8 pixels; give a size")
        summary = import_frames(folder, tmp_path / "o.h5", ImportConfig(3, size=(4, 4), ratio=ALL_TRAINING))
        assert summary.sequences == {"training": 1}

    def test_sixteen_bits(self, tmp_path: Path) -> None:
        folder = tmp_path / "f"
        folder.mkdir()
        Image.fromarray(np.zeros((4, 4), np.uint16)).save(folder / "0.png")
        self.refused(folder, "8 bits")

    def test_nothing_there(self, tmp_path: Path) -> None:
        np.save(tmp_path / "frames.npy", video(4))
        self.refused(tmp_path / "frame.npy", r"no such file or folder; did you mean 'frames\.npy'")

    def test_a_failing_import_harms_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "o.h5").write_bytes(b"earlier")
        with pytest.raises(DataError, match="no such file"):
            import_frames(tmp_path / "x.npy", tmp_path / "o.h5", overwrite=True)
        assert (tmp_path / "o.h5").read_bytes() == b"earlier"

    def test_out_is_a_folder(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", video(4))
        with pytest.raises(OutputError, match="it is a folder"):
            import_frames(tmp_path / "a.npy", tmp_path)
        with pytest.raises(OutputError, match="can't write"):
            import_frames(tmp_path / "a.npy", tmp_path / "a.npy" / "o.h5")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"number_of_frames": 1}, "number_of_frames is 1"),
            ({"size": (0, 4)}, "size is"),
            ({"binarise": 1.0}, "binarise is 1.0"),
            ({"channels": 2}, "channels is 2"),
            ({"ratio": (1, 0)}, "ratio is"),
            ({"ratio": (0, 0, 0)}, "ratio is"),
            ({"ratio": (1, -1, 1)}, "ratio is"),
            ({"seed": -1}, "seed is -1"),
            ({"stride": 0}, "stride is 0"),
            ({"number_of_actions": 0}, "number_of_actions is 0"),
        ],
    )
    def test_values_that_make_no_sense(self, options: dict, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            ImportConfig(**options)


def squares(t: int = 12, size: int = 16) -> np.ndarray:
    """A white square that moves on black, (t, h, w) in 0..255."""
    frames = np.zeros((t, size, size), np.uint8)
    for number, frame in enumerate(frames):
        place = number % (size - 6)
        frame[place : place + 6, 2:8] = 255
    return frames


class TestEverythingIsImported:
    def test_rewards_and_terminations(self, tmp_path: Path) -> None:
        frames, generator = squares(24), np.random.default_rng(0)
        actions = generator.integers(0, 3, 23)
        rewards = generator.normal(size=23).astype(np.float32)
        ends = np.arange(23) == 22
        np.savez(tmp_path / "a.npz", frames=frames, actions=actions, rewards=rewards, terminations=ends)
        summary = import_frames(tmp_path / "a.npz", tmp_path / "o.h5", ImportConfig(24, ratio=ALL_TRAINING))
        assert summary.arrays == ("features", "actions", "rewards", "terminations")
        assert (summary.number_of_actions, summary.warnings) == (3, ())
        read = read_all(tmp_path / "o.h5")
        np.testing.assert_array_equal(read["actions"][:, 0], [*actions, 0])
        np.testing.assert_array_equal(read["rewards"][:, 0], [*rewards, 0])
        np.testing.assert_array_equal(read["terminations"][:, 0], [*ends, True])
        assert check_dataset(tmp_path / "o.h5").warnings == ()

    def test_one_hot_actions_have_as_many_as_columns(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", frames=squares(12), actions=np.eye(6)[np.arange(12) % 3])
        summary = import_frames(tmp_path / "a.npz", tmp_path / "o.h5", ImportConfig(6, ratio=ALL_TRAINING))
        assert summary.number_of_actions == 6
        with Dataset.open(tmp_path / "o.h5") as dataset:
            assert dataset.info("training").number_of_actions == 6
        actions = read_all(tmp_path / "o.h5")["actions"]
        np.testing.assert_array_equal(actions, (np.arange(12) % 3).reshape(2, 6).T)

    def test_everything_else_of_a_dataset_comes_back(self, tmp_path: Path) -> None:
        generator, (t, n) = np.random.default_rng(0), (8, 3)
        arrays = {
            "features": np.stack([squares(t, 8 + 4)] * n, axis=1)[..., None] > 0,
            "groups": generator.integers(0, 3, (t, n, 12, 12, 1)),
            "collisions": generator.integers(0, 2, (t, n, 12, 12, 1)),
            "lives": generator.integers(0, 4, (t, n)),
            "positions": generator.normal(size=(t, n, 2, 2)),
            "velocities": generator.normal(size=(t, n, 2, 2)),
        }
        np.savez(tmp_path / "a.npz", **arrays)
        config = ImportConfig(t, ratio=ALL_TRAINING)
        assert import_frames(tmp_path / "a.npz", tmp_path / "o.h5", config).arrays == tuple(arrays)
        read = read_all(tmp_path / "o.h5")
        order = [
            next(m for m in range(n) if np.allclose(arrays["positions"][:, m], read["positions"][:, k]))
            for k in range(n)
        ]
        for name, array in arrays.items():
            np.testing.assert_allclose(read[name], array[:, order], rtol=1e-6, err_msg=name)

    def test_what_is_left_out_is_named(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", frames=squares(12), reward=np.zeros(12), speed=np.zeros(12))
        summary = import_frames(tmp_path / "a.npz", tmp_path / "o.h5", ImportConfig(12, ratio=ALL_TRAINING))
        path = tmp_path / "a.npz"
        assert summary.warnings == (f"left out: {path}: reward (is it rewards?), {path}: speed",)

    def test_frames_that_fill_no_sequence_are_counted(self, tmp_path: Path) -> None:
        ends = np.arange(23) == 21
        np.savez(tmp_path / "a.npz", frames=squares(23), terminations=ends)
        summary = import_frames(tmp_path / "a.npz", tmp_path / "o.h5", ImportConfig(10, ratio=ALL_TRAINING))
        (warning,) = summary.warnings
        assert "3 frames were left out" in warning
        assert "1 ends of episodes" in warning

    def test_sequences_with_several_episodes_are_counted(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", frames=squares(20), terminations=np.arange(20) == 4)
        summary = import_frames(tmp_path / "a.npz", tmp_path / "o.h5", ImportConfig(10, ratio=ALL_TRAINING))
        assert "1 of 2 sequences go on after the end of an episode" in summary.warnings[0]

    def test_a_folder_of_episodes(self, tmp_path: Path) -> None:
        (tmp_path / "episodes").mkdir()
        for number, highest in enumerate((1, 4, 2)):
            actions = np.full(11, highest)
            np.savez(tmp_path / "episodes" / f"{number}.npz", frames=squares(12), actions=actions)
        config = ImportConfig(12, ratio=ALL_TRAINING)
        summary = import_frames(tmp_path / "episodes", tmp_path / "o.h5", config)
        assert (summary.sequences, summary.number_of_actions) == ({"training": 3}, 5)
        np.savez(tmp_path / "episodes" / "4.npz", frames=squares(12))
        with pytest.raises(DataError, match=r"4\.npz.*: actions: either it or .*0\.npz.* has that"):
            import_frames(tmp_path / "episodes", tmp_path / "p.h5", config)


class TestWhatFramesMean:
    def test_the_layout_of_a_dataset(self, tmp_path: Path) -> None:
        frames = np.stack([video(20, seed=seed) for seed in range(5)], axis=1)[..., None]
        np.savez(tmp_path / "a.npz", features=frames)
        summary = import_frames(tmp_path / "a.npz", tmp_path / "o.h5", ImportConfig(20, ratio=ALL_TRAINING))
        assert summary.sequences == {"training": 5}
        assert "axes T, N, H, W, C" in summary.notes
        numbers = frame_numbers(read_all(tmp_path / "o.h5")["features"])
        np.testing.assert_array_equal(numbers, np.arange(20)[:, None].repeat(5, axis=1))

    def test_moving_mnist(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.stack([video(20, seed=seed) for seed in range(30)], axis=1))
        with pytest.raises(DataError, match="TNHW or NTHW"):
            import_frames(tmp_path / "a.npy", tmp_path / "o.h5", ImportConfig(20))
        config = ImportConfig(20, ratio=ALL_TRAINING, reading=Reading(axes="TNHW"))
        assert import_frames(tmp_path / "a.npy", tmp_path / "o.h5", config).sequences == {"training": 30}
        assert (frame_numbers(read_all(tmp_path / "o.h5")["features"])[:, 3] == np.arange(20)).all()

    def test_a_hair_outside_the_range(self, tmp_path: Path) -> None:
        frames = squares(12) / 255
        frames[3, 5, 5] = 1.0000001
        np.save(tmp_path / "a.npy", frames)
        summary = import_frames(tmp_path / "a.npy", tmp_path / "o.h5", ImportConfig(12, ratio=ALL_TRAINING))
        assert "values from 0 (black) to 1 (white)" in summary.notes
        np.testing.assert_array_equal(
            read_all(tmp_path / "o.h5")["features"][:, 0, ..., 0], np.rint(frames) > 0
        )

    @pytest.mark.parametrize("suffix", [".npy", ".png", ".gif", ".webp", ".tif", ".mov", ".webm"])
    def test_alpha(self, tmp_path: Path, suffix: str) -> None:
        """White everywhere, and opaque in one square only."""
        frames = np.full((20, 32, 32, 4), 255, np.uint8)
        frames[..., 3] = squares(20, 32)
        path = tmp_path / f"a{suffix}"
        if suffix == ".npy":
            np.save(path, frames)
        elif suffix in (".mov", ".webm"):
            codec, pixels = ("qtrle", "argb") if suffix == ".mov" else ("libvpx-vp9", "yuva420p")
            writer = imageio_ffmpeg.write_frames(
                str(path), (32, 32), "rgba", pix_fmt_out=pixels, codec=codec, fps=10, macro_block_size=1
            )
            writer.send(None)
            for frame in frames:
                writer.send(frame.tobytes())
            writer.close()
        else:
            first, *others = (Image.fromarray(frame) for frame in frames)
            options = {".webp": {"lossless": True}, ".gif": {"disposal": 2}}.get(suffix, {})
            first.save(path, save_all=True, append_images=others, duration=100, **options)
        summary = import_frames(path, tmp_path / "o.h5", ImportConfig(20, ratio=ALL_TRAINING))
        read = read_all(tmp_path / "o.h5")["features"][:, 0, ..., 0]
        if suffix == ".webm":
            assert np.mean(read != (frames[..., 3] > 0)) < 0.01
        else:
            np.testing.assert_array_equal(read, frames[..., 3] > 0)
        assert summary.warnings == (
            "transparent pixels were laid on black; --matte white lays them on white instead",
        )

    @pytest.mark.parametrize("mode", ["LA", "P", "L"])
    def test_alpha_of_other_pictures(self, tmp_path: Path, mode: str) -> None:
        (tmp_path / "f").mkdir()
        mask = squares(12)
        for number, opaque in enumerate(mask):
            path = tmp_path / "f" / f"{number}.png"
            if mode == "LA":
                Image.merge("LA", [Image.new("L", (16, 16), 255), Image.fromarray(opaque)]).save(path)
            else:  # one value or colour is transparent
                image = Image.fromarray(np.where(opaque > 0, 255, 200).astype(np.uint8))
                image.convert(mode).save(path, transparency=200)
        import_frames(tmp_path / "f", tmp_path / "o.h5", ImportConfig(12, ratio=ALL_TRAINING))
        np.testing.assert_array_equal(read_all(tmp_path / "o.h5")["features"][:, 0, ..., 0], mask > 0)

    def test_dark_objects_on_white(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", 255 - squares(12))
        summary = import_frames(tmp_path / "a.npy", tmp_path / "o.h5", ImportConfig(12, ratio=ALL_TRAINING))
        assert "nearly all white" in summary.warnings[0]
        assert "--invert" in summary.warnings[0]
        config = ImportConfig(12, ratio=ALL_TRAINING, reading=Reading(invert=True))
        assert import_frames(tmp_path / "a.npy", tmp_path / "o.h5", config, overwrite=True).warnings == ()
        np.testing.assert_array_equal(read_all(tmp_path / "o.h5")["features"][:, 0, ..., 0], squares(12) > 0)

    @pytest.mark.parametrize(
        ("frames", "message"),
        [
            (np.zeros((4, 8, 8)), "all black"),
            (np.ones((4, 8, 8)), "all white"),
            (np.ones((4, 8, 8)) * 0.4, "all black"),
            (squares(1)[0][None].repeat(4, axis=0), "don't move"),
        ],
    )
    def test_nothing_to_see(self, tmp_path: Path, frames: np.ndarray, message: str) -> None:
        np.save(tmp_path / "a.npy", frames)
        summary = import_frames(tmp_path / "a.npy", tmp_path / "o.h5", ImportConfig(4, ratio=ALL_TRAINING))
        assert message in summary.warnings[0]
        assert message in check_dataset(tmp_path / "o.h5").warnings[0]

    @pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
    def test_durations_that_differ_are_named(self, tmp_path: Path, suffix: str) -> None:
        first, *others = (Image.fromarray(frame) for frame in squares(4))
        for durations, expected in (([50, 100, 200, 50], "50 to 200 ms"), ([50] * 4, None)):
            first.save(
                tmp_path / f"a{suffix}", save_all=True, append_images=others, duration=durations, loop=0
            )
            config = ImportConfig(4, ratio=ALL_TRAINING)
            warnings = import_frames(
                tmp_path / f"a{suffix}", tmp_path / "o.h5", config, overwrite=True
            ).warnings
            assert [expected in warning for warning in warnings] == ([] if expected is None else [True])

    def test_rates_that_differ_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "v").mkdir()
        for rate in (10, 20):
            frames = np.repeat(squares(20, 32)[..., None], 3, axis=-1)
            iio.imwrite(tmp_path / "v" / f"{rate}.mp4", frames, plugin="FFMPEG", fps=rate)
        summary = import_frames(tmp_path / "v", tmp_path / "o.h5", ImportConfig(10, ratio=ALL_TRAINING))
        assert "frames are shown for 50 to 100 ms" in summary.warnings[0]

    def test_what_is_said_about_arrays_is_for_arrays(self, tmp_path: Path) -> None:
        iio.imwrite(tmp_path / "a.gif", squares(12), duration=100)
        for reading, name in ((Reading(axes="THW"), "axes"), (Reading(value_range=(0, 1)), "value_range")):
            with pytest.raises(ConfigError, match=f"{name} was given, and .*a.gif holds no arrays"):
                import_frames(tmp_path / "a.gif", tmp_path / "o.h5", ImportConfig(12, reading=reading))
        with pytest.raises(ConfigError, match=r"number_of_actions is 3, and .*a\.gif has no actions"):
            import_frames(tmp_path / "a.gif", tmp_path / "o.h5", ImportConfig(12, number_of_actions=3))


class TestNothingIsDestroyed:
    def test_what_is_there_is_kept(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", squares(12))
        (tmp_path / "o.h5").write_bytes(b"earlier")
        with pytest.raises(OutputError, match=r"o\.h5 exists already.*--overwrite"):
            import_frames(tmp_path / "a.npy", tmp_path / "o.h5", ImportConfig(12))
        assert (tmp_path / "o.h5").read_bytes() == b"earlier"
        import_frames(tmp_path / "a.npy", tmp_path / "o.h5", ImportConfig(12), overwrite=True)
        assert check_dataset(tmp_path / "o.h5").problem is None

    @pytest.mark.parametrize("kind", ["itself", "symbolic link", "hard link", "in the folder"])
    def test_never_the_source(self, tmp_path: Path, kind: str) -> None:
        source = out = tmp_path / "clips" / "film.gif"
        source.parent.mkdir()
        iio.imwrite(source, squares(12), duration=100)
        before = source.read_bytes()
        if kind == "symbolic link":
            out = tmp_path / "o.h5"
            out.symlink_to(source)
        elif kind == "hard link":
            out = tmp_path / "o.h5"
            out.hardlink_to(source)
        given = source.parent if kind == "in the folder" else source
        for overwrite in (False, True):
            with pytest.raises(OutputError, match="is what the dataset is to be made of"):
                import_frames(given, out, ImportConfig(12), overwrite=overwrite)
        assert source.read_bytes() == out.read_bytes() == before
        assert not any(entry.name.endswith(".parts") for entry in tmp_path.rglob("*"))

    def test_a_dataset_in_the_folder_of_the_source_may_be_replaced(self, tmp_path: Path) -> None:
        iio.imwrite(tmp_path / "film.gif", squares(12), duration=100)
        for _ in range(2):
            summary = import_frames(tmp_path, tmp_path / "o.h5", ImportConfig(12), overwrite=True)
            assert summary.sequences == {"training": 1}


class TestFolders:
    def test_hidden_files_are_passed_over_everywhere(self, tmp_path: Path) -> None:
        for clip in ("a", "b"):
            folder = tmp_path / "clips" / clip
            folder.mkdir(parents=True)
            for number, frame in enumerate(squares(12)):
                Image.fromarray(frame).save(folder / f"{number}.png")
                (folder / f"._{number}.png").write_bytes(b"macOS")
            (folder / "Thumbs.db").write_bytes(b"Windows")
        (tmp_path / "clips" / "__MACOSX").mkdir()
        (tmp_path / "clips" / "._a").write_bytes(b"macOS")
        summary = import_frames(tmp_path / "clips", tmp_path / "o.h5", ImportConfig(12, ratio=ALL_TRAINING))
        assert (summary.sequences, summary.warnings) == ({"training": 2}, ())

    @pytest.mark.parametrize("suffix", [".tif", ".gif", ".png", ".webp"])
    @pytest.mark.parametrize("nested", [False, True])
    def test_pages_and_animations_are_taken_whole(self, tmp_path: Path, suffix: str, nested: bool) -> None:
        folder = tmp_path / "f" / "inside" if nested else tmp_path / "f"
        folder.mkdir(parents=True)
        for number in range(2):
            first, *others = (Image.fromarray(frame) for frame in squares(12))
            first.save(folder / f"{number}{suffix}", save_all=True, append_images=others, duration=100)
        summary = import_frames(tmp_path / "f", tmp_path / "o.h5", ImportConfig(12, ratio=ALL_TRAINING))
        assert (summary.clips, summary.sequences) == (2, {"training": 2})

    @pytest.mark.parametrize("suffix", [".tif", ".gif", ".png", ".webp", ".bmp", ".jpg"])
    def test_single_pictures_are_one_clip(self, tmp_path: Path, suffix: str) -> None:
        (tmp_path / "f").mkdir()
        for number, frame in enumerate(squares(12)):
            Image.fromarray(frame).save(tmp_path / "f" / f"{number}{suffix}")
        summary = import_frames(tmp_path / "f", tmp_path / "o.h5", ImportConfig(12, ratio=ALL_TRAINING))
        assert (summary.clips, summary.sequences) == (1, {"training": 1})

    def test_pictures_and_pages_together_are_refused(self, tmp_path: Path) -> None:
        first, *others = (Image.fromarray(frame) for frame in squares(12))
        first.save(tmp_path / "0.tif")
        first.save(tmp_path / "1.tif", save_all=True, append_images=others)
        with pytest.raises(DataError, match=r"both images \(0\.tif\) and clips \(1\.tif\)"):
            import_frames(tmp_path, tmp_path / "o.h5", ImportConfig(12))

    @pytest.mark.parametrize("suffix", [".mpeg", ".wmv", ".mpg", ".avi", ".mkv", ".flv", ".ts", ".ogv"])
    def test_videos_that_import_singly_do_so_in_folders(self, tmp_path: Path, suffix: str) -> None:
        (tmp_path / "v").mkdir()
        codec = {".ogv": "libtheora"}.get(suffix, "mpeg2video" if "mp" in suffix else None)
        path = tmp_path / "v" / f"a{suffix.upper()}"
        writer = imageio_ffmpeg.write_frames(str(path), (32, 32), codec=codec, fps=25)
        writer.send(None)
        for frame in np.repeat(squares(30, 32)[..., None], 3, axis=-1):
            writer.send(np.ascontiguousarray(frame).tobytes())
        writer.close()
        for source in (path.parent, path):
            config = ImportConfig(10, ratio=ALL_TRAINING)
            assert import_frames(source, tmp_path / "o.h5", config, overwrite=True).sequences["training"] >= 2

    def test_what_is_left_out_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "f").mkdir()
        for number, frame in enumerate(squares(12)):
            Image.fromarray(frame).save(tmp_path / "f" / f"{number}.png")
        (tmp_path / "f" / "notes.txt").write_text("x")
        summary = import_frames(tmp_path / "f", tmp_path / "o.h5", ImportConfig(12, ratio=ALL_TRAINING))
        assert summary.warnings == (f"left out: {tmp_path / 'f' / 'notes.txt'}",)

    @pytest.mark.parametrize("name", ["m²{}.png", "{}².png", "²{}.png", "٣{}.png", "①{}.png"])
    def test_any_name(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "f").mkdir()
        for number, frame in enumerate(video(12)):
            Image.fromarray(frame).save(tmp_path / "f" / name.format(number))
        import_frames(tmp_path / "f", tmp_path / "o.h5", ImportConfig(12, ratio=ALL_TRAINING))
        assert frame_numbers(read_all(tmp_path / "o.h5")["features"])[:, 0].tolist() == list(range(12))

    def test_a_folder_that_holds_itself(self, tmp_path: Path) -> None:
        (tmp_path / "f").mkdir()
        (tmp_path / "f" / "again").symlink_to(tmp_path / "f")
        with pytest.raises(DataError, match="the folder holds itself"):
            import_frames(tmp_path / "f", tmp_path / "o.h5", ImportConfig(12))

"""Datasets of LeRobot: tables and videos laid out as versions 2.1 and 3.0 have them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from rnem_world.data.arrays import Reading
from rnem_world.data.dataset import Dataset
from rnem_world.data.importing import import_frames
from rnem_world.data.windows import ImportConfig
from rnem_world.errors import DataError, DependencyError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

CAMERA, LENGTHS = "observation.images.top", (5, 7, 6)
COLOURS = ImportConfig(6, channels=3, binarise=None)


def frames_of(episode: int, length: int) -> np.ndarray:
    """A square whose place and grey tell episode and time."""
    frames = np.zeros((length, 32, 48, 3), np.uint8)
    for time in range(length):
        frames[time, 8:24, 4 * time : 4 * time + 16] = 80 + 40 * episode
    return frames


def png(frame: np.ndarray) -> dict:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def rows_of(episode: int, length: int, pictures: bool, discrete: bool = False) -> dict[str, list]:
    times = np.arange(length)
    actions = (
        [int(time % 3) for time in times] if discrete else [[episode + time / 10, -1.0] for time in times]
    )
    rows = {
        "action": actions,
        "next.reward": (times / 4).tolist(),
        "next.done": (times == length - 1).tolist(),
        "episode_index": [episode] * length,
        "frame_index": times.tolist(),
    }
    if pictures:
        rows[CAMERA] = [png(frame) for frame in frames_of(episode, length)]
    return rows


def write(folder: Path, version: str, pictures: bool, discrete: bool = False) -> Path:
    """Writes three episodes: each with files of its own, or all in one as version 3 does."""
    (folder / "meta").mkdir(parents=True)
    new = version.startswith("v3")
    place = "chunk-{chunk_index:03d}/file-{file_index:03d}" if new else "chunk-{episode_chunk:03d}"
    last = "" if new else "/episode_{episode_index:06d}"
    video_place = f"{{video_key}}/{place}" if new else f"{place}/{{video_key}}"
    info = {
        "codebase_version": version,
        "total_episodes": 3,
        "chunks_size": 1000,
        "fps": 10,
        "data_path": f"data/{place}{last}.parquet",
        "video_path": f"videos/{video_place}{last}.mp4",
        "features": {
            CAMERA: {"dtype": "image" if pictures else "video", "shape": [3, 32, 48]},
            "action": {"dtype": "int64", "shape": [1]} if discrete else {"dtype": "float32", "shape": [2]},
            "next.reward": {"dtype": "float32", "shape": [1]},
            "next.done": {"dtype": "bool", "shape": [1]},
        },
    }
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    tables = [rows_of(episode, length, pictures, discrete) for episode, length in enumerate(LENGTHS)]
    films = [frames_of(episode, length) for episode, length in enumerate(LENGTHS)]
    if new:
        tables = [{name: [entry for table in tables for entry in table[name]] for name in tables[0]}]
        films = [np.concatenate(films)]
        starts = np.cumsum([0, *LENGTHS[:-1]])
        episodes = [
            {
                "episode_index": number,
                "data/chunk_index": 0,
                "data/file_index": 0,
                **{f"videos/{CAMERA}/{name}": 0 for name in ("chunk_index", "file_index")},
                f"videos/{CAMERA}/from_timestamp": float(start / 10),
            }
            for number, start in enumerate(starts)
        ]
        file = folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
        file.parent.mkdir(parents=True)
        parquet.write_table(pyarrow.Table.from_pylist(episodes), file)
    for number, (table, film) in enumerate(zip(tables, films, strict=True)):
        values = {"episode_chunk": 0, "episode_index": number, "chunk_index": 0, "file_index": 0}
        data = folder / info["data_path"].format(**values)
        data.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.table(table), data)
        if not pictures:
            video = folder / info["video_path"].format(video_key=CAMERA, **values)
            video.parent.mkdir(parents=True, exist_ok=True)
            iio.imwrite(video, film, fps=10, quality=10, macro_block_size=16)
    return folder


def stream(path: Path) -> dict[str, np.ndarray]:
    """The imported sequences one behind the other, in the order of the source, as nothing was shuffled."""
    with Dataset.open(path) as dataset:
        info = dataset.info("training")
        read = dataset.read("training", range(info.number_of_sequences), list(info.arrays))
    return {name: array.swapaxes(0, 1).reshape(-1, *array.shape[2:]) for name, array in read.items()}


@pytest.fixture(autouse=True)
def _in_order(monkeypatch):
    """Leaves sequences in the order of the source, so that they can be told."""
    from rnem_world.data import importing

    class Still:
        def shuffle(self, order):
            pass

    monkeypatch.setattr(importing, "numpy_generator", lambda *_: Still())


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("pictures", [False, True], ids=["videos", "pictures"])
def test_episodes_are_read_as_they_are(version, pictures, tmp_path):
    source = write(tmp_path / "robot", version, pictures)
    config = ImportConfig(6, channels=3, binarise=None, ratio=(1, 0, 0))
    summary = import_frames(source, tmp_path / "out.h5", config)
    assert summary.clips == 3
    assert summary.action_space.described == "2 real numbers"
    assert any("next.done left out" in note for note in summary.notes)
    found = stream(tmp_path / "out.h5")  # 18 frames are three sequences
    expected = np.concatenate([frames_of(episode, length) for episode, length in enumerate(LENGTHS)])
    if pictures:
        np.testing.assert_array_equal(found["features"], expected)
    else:  # an mp4 is not exact, but tells every frame from every other
        difference = np.abs(found["features"].astype(int) - expected).mean(axis=(1, 2, 3))
        assert difference.max() < 4
    begins = np.cumsum([0, *LENGTHS[:-1]])
    np.testing.assert_array_equal(np.flatnonzero(found["is_first"]), begins)
    lasts = np.cumsum(LENGTHS) - 1
    for episode, (begin, last) in enumerate(zip(begins, lasts, strict=True)):
        times = np.arange(last - begin)
        np.testing.assert_allclose(found["actions"][begin:last, 0], episode + times / 10, rtol=1e-6)
        np.testing.assert_allclose(found["rewards"][begin:last], times / 4)
    # Of the last action, which leads to a frame that isn't there, nothing is told.
    assert not found["actions"][lasts].any()
    assert not found["rewards"][lasts].any()
    np.testing.assert_array_equal(np.flatnonzero(found["truncations"]), lasts - 1)
    assert not found["terminations"].any()


def test_numbered_actions_are_counted(tmp_path):
    source = write(tmp_path / "robot", "v2.1", True, discrete=True)
    summary = import_frames(source, tmp_path / "out.h5", COLOURS)
    assert summary.number_of_actions == 3
    assert summary.action_space is None


def edited(folder: Path, **changes) -> Path:
    file = folder / "meta" / "info.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


def test_what_is_broken_or_leads_elsewhere_is_refused(tmp_path):
    def refused(folder: Path, message: str, reading: Reading | None = None) -> None:
        with pytest.raises(DataError, match=message):
            import_frames(folder, tmp_path / "x.h5", ImportConfig(6, reading=reading or Reading()))
        assert not (tmp_path / "x.h5").exists()

    secret = tmp_path / "secret.parquet"
    parquet.write_table(pyarrow.table(rows_of(0, 5, True)), secret)
    refused(
        edited(write(tmp_path / "b", "v3.0", True), data_path="../secret.parquet"), "leads out of the folder"
    )
    refused(edited(write(tmp_path / "c", "v2.1", False), total_episodes=4), "the dataset isn't whole")
    refused(edited(write(tmp_path / "d", "v2.1", False), features={}), "there are no pictures")
    refused(write(tmp_path / "e", "v2.1", True), "no pictures 'side': ", Reading(picture="side"))
    short = write(tmp_path / "f", "v2.1", False)
    video = next(short.rglob("*.mp4"))
    iio.imwrite(video, frames_of(0, 2), fps=10, macro_block_size=16)
    refused(short, r"the video ends after \d of an episode's \d frames")
    (write(tmp_path / "g", "v2.1", True) / "meta" / "info.json").write_text("{")
    refused(tmp_path / "g", "can't be read as a dataset of LeRobot")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    import sys

    source = write(tmp_path / "robot", "v2.1", True)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DependencyError, match=r'pip install "rnem-world\[formats\]"'):
        import_frames(source, tmp_path / "x.h5")


def test_a_folder_of_numpy_episodes_becomes_streams(tmp_path, rnem):
    """Episodes of any length, with actions that are real numbers, as one .npz each."""
    folder = tmp_path / "episodes"
    folder.mkdir()
    for episode, length in enumerate(LENGTHS):
        np.savez(
            folder / f"{episode}.npz",
            frames=frames_of(episode, length),
            actions=np.full((length - 1, 2), episode + 0.5, np.float32),
            rewards=np.arange(length - 1.0),
            terminations=np.arange(length - 1) == length - 2,
        )
    outcome = rnem(
        *("data", "import", folder, "--out", tmp_path / "out.h5", "--frames", 6, "--streams"),
        *("--channels", 3, "--grey-levels", "--splits", "1,0,0"),
    )
    assert outcome.code == 0, outcome.err
    assert "(2 real numbers)" in outcome.out
    found, lasts = stream(tmp_path / "out.h5"), np.cumsum(LENGTHS) - 1
    np.testing.assert_array_equal(np.flatnonzero(found["terminations"]), lasts - 1)
    assert not found["truncations"].any()
    assert not found["actions"][lasts].any()
    np.testing.assert_array_equal(found["actions"][:4], 0.5)
    refused = rnem("data", "import", folder, "--out", tmp_path / "y.h5", "--streams", "--stride", 3)
    assert refused.code == 2
    assert "streams are cut end to end" in refused.err

"""Datasets of LeRobot, versions 2 and 3, read as clips: tables of steps (Parquet), pictures within them or as videos.

Row t of an episode holds observation t and the action taken then. The observation after the last action isn't there, so
that nothing can be learned of the last step, its reward and ``next.done``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rnem_world.actions import ActionSpace
from rnem_world.data.arrays import Findings, Reading, lay_on
from rnem_world.data.clips import Clip
from rnem_world.errors import DataError, DependencyError, suggest

_INFO = Path("meta") / "info.json"
_PICTURES = ("video", "image")
_UNREAD = ("next.done", "next.success", "next.terminated", "next.truncated")


def is_lerobot(path: Path) -> bool:
    """Whether a path is the folder of a dataset of LeRobot."""
    return (path / _INFO).is_file()


@dataclass(frozen=True)
class _Episode:
    """Where an episode is: its number, its steps, the values of its paths, and the first frame in its video."""

    number: int
    values: dict[str, Any]
    video_values: dict[str, Any]
    video_start: int


def read_lerobot(path: Path, reading: Reading, findings: Findings) -> Iterator[Clip]:
    """Yields the episodes of a dataset; the table of one is in memory at a time, and of a video a frame.

    Raises:
        DataError: If there is no picture in it, or it is damaged or of another version.
        DependencyError: If pyarrow isn't installed.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DependencyError(
            f'{path} is a dataset of LeRobot, which pyarrow reads: pip install "rnem-world[formats]"'
        ) from error
    try:
        info = json.loads((path / _INFO).read_text())
        features = info["features"]
        camera = _camera(features, reading.picture, path)
        episodes = list(_episodes(path, info, camera, parquet))
        findings.assumed.setdefault(
            "lerobot", f"LeRobot's dataset, version {info.get('codebase_version', 'unknown')}"
        )
        findings.assumed.setdefault("picture", f"frames are those of {camera}")
        unread = [name for name in _UNREAD if name in features]
        if unread:
            findings.assumed.setdefault(
                "ends", f"{', '.join(unread)} left out: the frame after an episode's last action isn't there"
            )
        action_space = _action_space(features, findings)
        name: Path | None = None
        table: Any = None
        for episode in episodes:
            file = _inside(path, info["data_path"].format(**episode.values))
            if file != name:  # of version 3, a file has several episodes
                name, table = file, parquet.read_table(file)
            rows = table.filter(_is_episode(table, episode.number))
            if not rows.num_rows:
                raise DataError(f"{path}: episode {episode.number} isn't in {file.name}")
            arrays = _arrays(rows, action_space)
            if features[camera]["dtype"] == "video":
                video = _inside(path, info["video_path"].format(video_key=camera, **episode.video_values))
                frames = _video(video, episode.video_start, rows.num_rows)
            else:
                frames = (_picture(entry, path) for entry in rows.column(camera).to_pylist())
            yield Clip(
                name=f"{path}: episode {episode.number}",
                frames=(lay_on(frame, reading.matte, findings) for frame in frames),
                arrays=arrays,
                number_of_actions=int(arrays["actions"].max()) + 1
                if "actions" in arrays and arrays["actions"].ndim == 1
                else None,
                action_space=action_space
                if action_space is not None and not action_space.is_discrete
                else None,
            )
    except (DataError, DependencyError):
        raise
    except (ArrowException, OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{path} can't be read as a dataset of LeRobot, of version 2 or 3 ({type(error).__name__}: {reason})"
        ) from error


def _inside(folder: Path, name: str) -> Path:
    """Gives a file's path, which must not lead out of the folder."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DataError(f"{folder}: {name!r} leads out of the folder")
    if not path.is_file():
        raise DataError(f"{folder}: there is no file {name}: the dataset isn't whole")
    return path


def _camera(features: dict[str, Any], wanted: str | None, path: Path) -> str:
    names = [name for name, feature in features.items() if feature.get("dtype") in _PICTURES]
    if wanted is not None:
        if wanted not in names:
            raise DataError(f"{path}: no pictures {wanted!r}: {suggest(wanted, names)}")
        return wanted
    if not names:
        raise DataError(f"{path}: there are no pictures in it, which models here learn from")
    if len(names) > 1:
        raise DataError(f"{path}: several cameras, say which one by --picture: {', '.join(names)}")
    return names[0]


def _episodes(path: Path, info: dict[str, Any], camera: str, parquet: Any) -> Iterator[_Episode]:
    """Lists the episodes: of version 2 each has files of its own, of version 3 tables say where they are."""
    if "{episode_index" in info["data_path"]:
        for number in range(int(info["total_episodes"])):
            values = {"episode_index": number, "episode_chunk": number // int(info.get("chunks_size", 1000))}
            yield _Episode(number, values, values, 0)
        return
    is_video = info["features"][camera]["dtype"] == "video"
    for file in sorted((path / "meta" / "episodes").rglob("*.parquet")):
        for row in parquet.read_table(file).to_pylist():
            data = {name: int(row[f"data/{name}"]) for name in ("chunk_index", "file_index")}
            video, start = data, 0
            if is_video:
                video = {name: int(row[f"videos/{camera}/{name}"]) for name in data}
                start = round(float(row[f"videos/{camera}/from_timestamp"]) * float(info["fps"]))
            yield _Episode(int(row["episode_index"]), data, video, start)


def _is_episode(table: Any, number: int) -> Any:
    from pyarrow import compute

    return compute.equal(table.column("episode_index"), number)


def _action_space(features: dict[str, Any], findings: Findings) -> ActionSpace | None:
    """Says what actions are; real ones have no bounds there."""
    if "action" not in features:
        return None
    dtype, shape = str(features["action"]["dtype"]), tuple(int(size) for size in features["action"]["shape"])
    length = int(np.prod(shape, dtype=np.int64))
    if dtype.startswith("float"):
        return ActionSpace(
            "box", low=(None,) * length, high=(None,) * length, shape=(length,), dtype="float32"
        )
    if dtype.startswith(("int", "uint", "bool")) and length == 1:
        return ActionSpace.discrete(1)  # how many there are is counted
    findings.left_out.append(f"action of {dtype} and the shape {shape}")
    return None


def _arrays(rows: Any, action_space: ActionSpace | None) -> dict[str, NDArray[Any]]:
    """Reads what stands beside the frames; of the last step, whose frame is missing, zeros."""
    arrays: dict[str, NDArray[Any]] = {}
    if action_space is not None:
        actions = np.array(rows.column("action").to_pylist())
        if action_space.is_discrete:
            arrays["actions"] = actions.reshape(-1).astype(np.int64)
        else:
            arrays["actions"] = actions.reshape(len(actions), -1).astype(np.float32)
    if "next.reward" in rows.column_names:
        rewards = np.array(rows.column("next.reward").to_pylist(), np.float64).reshape(-1)
        arrays["rewards"] = rewards.astype(np.float32)
    for array in arrays.values():
        array[-1] = 0
    return arrays


def _picture(entry: Any, path: Path) -> NDArray[np.uint8]:
    content = entry["bytes"] if isinstance(entry, dict) else entry
    if content is None:
        content = _inside(path, str(entry["path"])).read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        mode = "L" if image.mode in ("1", "L") else "RGB"
        return np.asarray(image.convert(mode), np.uint8)


def _video(path: Path, start: int, length: int) -> Iterator[NDArray[np.uint8]]:
    """Yields frames of a video, from one on."""
    with closing(imageio_ffmpeg.read_frames(str(path))) as frames:
        width, height = next(frames)["size"]
        count = 0
        for number, content in enumerate(frames):
            if number < start:
                continue
            if count == length:
                return
            count += 1
            yield np.frombuffer(content, np.uint8).reshape(height, width, 3)
    if count < length:
        raise DataError(f"{path}: the video ends after {count} of an episode's {length} frames")

"""Frames from elsewhere: NumPy files, videos, folders of images, as a stream of clips."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from rnem_world.data.shards import first_line
from rnem_world.errors import DataError, RnemWorldError, suggest

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm"})
ANIMATION_SUFFIXES = frozenset({".gif", ".webp", ".apng"})
VIDEO_SUFFIXES = ANIMATION_SUFFIXES | {".mp4", ".webm", ".avi", ".mov", ".mkv", ".m4v", ".mpg"}
CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Clip:
    """One continuous sequence of frames.

    Attributes:
        name: Where it comes from, for messages.
        frames: The frames one by one, (h, w) or (h, w, c) with c in {1, 3, 4}, uint8 0..255.
        groups: Which object each pixel belongs to, (t, h, w), if known.
        actions: The action that turns frame t into frame t+1, (t,), if known.
        number_of_actions: One more than the highest action of the whole source, if there are actions.
    """

    name: str
    frames: Iterator[NDArray[np.uint8]]
    groups: NDArray[np.uint8] | None = None
    actions: NDArray[np.int64] | None = None
    number_of_actions: int | None = None


def read_clips(source: Path) -> Iterator[Clip]:
    """Finds the clips in a file or folder; frames are read while they are taken, one clip after the other.

    Args:
        source: ``.npy`` or ``.npz`` with (T, H, W), (T, H, W, C), (N, T, H, W) or (N, T, H, W, C); a video; a
            folder of images; or a folder of folders of images or of videos, each one clip.

    Yields:
        The clips; take all frames of one before asking for the next.

    Raises:
        DataError: If there is nothing of the kind, or it can't be read.
    """
    if not source.exists():
        near = [entry.name for entry in source.parent.glob("*")]
        raise DataError(f"{source}: no such file or folder; {suggest(source.name, near[:20])}")
    if source.is_dir():
        yield from _read_folder(source)
    elif source.suffix.lower() in (".npy", ".npz"):
        yield from _read_arrays(source)
    else:
        yield Clip(str(source), _read_video(source))


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts frame_2 before frame_10."""
    return [
        (int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name) if part
    ]


def _read_folder(folder: Path) -> Iterator[Clip]:
    entries = sorted((entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=_natural)
    images = [entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file()]
    videos = [entry for entry in entries if entry.suffix.lower() in VIDEO_SUFFIXES and entry.is_file()]
    folders = [entry for entry in entries if entry.is_dir()]
    if images and (videos or folders):
        other = (videos or folders)[0].name
        raise DataError(
            f"{folder}: both images ({images[0].name}) and clips ({other}); put each sequence's images into a "
            "folder of their own"
        )
    if images:
        yield Clip(str(folder), _read_images(images))
    elif not (videos or folders):
        raise DataError(f"{folder}: the folder holds neither images, videos nor folders of images")
    else:
        for entry in entries:
            if entry in videos:
                yield Clip(str(entry), _read_video(entry))
            elif entry in folders:
                inside = [image for image in entry.iterdir() if image.suffix.lower() in IMAGE_SUFFIXES]
                if not inside:
                    raise DataError(
                        f"{entry}: the folder holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})"
                    )
                yield Clip(str(entry), _read_images(sorted(inside, key=_natural)))


def _read_images(paths: list[Path]) -> Iterator[NDArray[np.uint8]]:
    for path in paths:
        try:
            with Image.open(path) as image:
                yield _to_array(image)
        except (
            OSError,
            UnidentifiedImageError,
            Image.DecompressionBombError,
            SyntaxError,
            ValueError,
        ) as error:
            raise DataError(f"{path}: not a readable image ({first_line(error)})") from error


def _to_array(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in ("I;16", "I", "F"):
        raise DataError(f"an image of mode {image.mode} (more than 8 bits a pixel); convert it to 8 bits")
    plain = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    return np.asarray(plain, dtype=np.uint8)


def _read_video(path: Path) -> Iterator[NDArray[np.uint8]]:
    # Named, for otherwise imageio tries all its plugins, deprecated ones too. Its annotations lack FFMPEG.
    plugin: Any = "pillow" if path.suffix.lower() in ANIMATION_SUFFIXES | IMAGE_SUFFIXES else "FFMPEG"
    try:
        with iio.imopen(path, "r", plugin=plugin) as video:
            for frame in video.iter():
                if frame.dtype != np.uint8:
                    raise DataError(f"{path}: the frames are {frame.dtype}, expected 8 bits a channel")
                yield frame
    except RnemWorldError:
        raise
    except Exception as error:  # each of imageio's plugins has its own errors
        raise DataError(
            f"{path}: not a readable video, image or NumPy file ({first_line(error)}); known: .npy, .npz, "
            f"{', '.join(sorted(VIDEO_SUFFIXES))}, or a folder of images"
        ) from error


def _read_arrays(path: Path) -> Iterator[Clip]:
    arrays = _load(path)
    candidates = ["features", "frames", *(key for key in arrays if key not in ("groups", "actions"))]
    name = next((key for key in candidates if key in arrays), None)
    if name is None:
        raise DataError(f"{path}: no frames in it, expected an array 'features' or 'frames'")
    place = f"{path}: {name}" if path.suffix.lower() == ".npz" else str(path)
    frames = _to_sequences(arrays[name], place)
    scale = _scale(frames, place)
    count, length, height, width = frames.shape[:4]
    groups, actions = arrays.get("groups"), arrays.get("actions")
    if groups is not None:
        groups = _whole(groups, f"{path}: groups", (count, length, height, width), 255).astype(np.uint8)
    if actions is not None:
        actions = _whole(actions, f"{path}: actions", (count, length), 2**31).astype(np.int64)
    for number in range(count):
        yield Clip(
            name=f"{place}, sequence {number}",
            frames=(_to_bytes(frame, scale) for frame in frames[number]),
            groups=None if groups is None else groups[number],
            actions=None if actions is None else actions[number],
            number_of_actions=None if actions is None else int(actions.max()) + 1,
        )


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        if path.suffix.lower() == ".npy":
            return {"frames": np.load(path, mmap_mode="r", allow_pickle=False)}
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        if "allow_pickle" in str(error) or "pickle" in str(error) or "Python objects" in str(error):
            reason = "it holds pickled Python objects, which are never loaded; save plain arrays of numbers"
        else:
            reason = f"not a readable NumPy file ({first_line(error)})"
        raise DataError(f"{path}: {reason}") from error


def _to_sequences(array: NDArray[Any], place: str) -> NDArray[Any]:
    """Turns any of the four shapes into (n, t, h, w, c)."""
    shape = array.shape
    if array.dtype.kind not in "buif":
        raise DataError(f"{place} holds {array.dtype}, expected numbers")
    if 0 in shape:
        raise DataError(f"{place} has the shape {shape}: it is empty")
    if len(shape) == 3:
        return array[None, ..., None]
    if len(shape) == 4 and shape[-1] in CHANNELS:
        return array[None]
    if len(shape) == 4:
        return array[..., None]
    if len(shape) == 5 and shape[-1] in CHANNELS:
        return array
    raise DataError(
        f"{place} has the shape {shape}, expected (T, H, W), (T, H, W, C), (N, T, H, W) or (N, T, H, W, C) with "
        "C 1, 3 or 4"
    )


def _scale(sequences: NDArray[Any], place: str) -> float:
    """Finds what frames must be multiplied with to lie in 0..255; those within [0, 1] are taken to end at 1."""
    extremes = np.array([[one.min(), one.max()] for one in sequences], dtype=np.float64)
    low, high = float(extremes[:, 0].min()), float(extremes[:, 1].max())
    if not (low >= 0 and high <= 255):
        raise DataError(f"{place} holds values from {low:g} to {high:g}, expected 0..1 or 0..255")
    return 255.0 if high <= 1 else 1.0


def _to_bytes(frame: NDArray[Any], scale: float) -> NDArray[np.uint8]:
    if frame.dtype == np.uint8 and scale == 1:
        return np.asarray(frame)
    scaled: NDArray[np.uint8] = np.rint(np.asarray(frame, np.float32) * scale).astype(np.uint8)
    return scaled


def _whole(array: NDArray[Any], place: str, shape: tuple[int, ...], upper: int) -> NDArray[Any]:
    """Checks an array of whole numbers and brings it into a shape that may differ from its own by ones."""
    if _without_ones(array.shape) != _without_ones(shape):
        raise DataError(f"{place} has the shape {array.shape}, expected {shape} like the frames")
    numbers = array.dtype.kind in "buif"
    if not numbers or not ((array >= 0) & (array <= upper) & (array == np.rint(array))).all():
        raise DataError(f"{place} holds {array.dtype}, expected whole numbers from 0 to {upper}")
    return array.reshape(shape)


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]

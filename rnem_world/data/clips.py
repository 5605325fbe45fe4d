"""Frames from elsewhere: NumPy files, videos, pictures, and folders of them, as a stream of clips."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from rnem_world.actions import ActionSpace
from rnem_world.data.arrays import (
    Findings,
    Reading,
    arrange_frames,
    find_axes,
    find_frames,
    find_range,
    lay_on,
    read_beside,
    to_bytes,
    unknown_name,
)
from rnem_world.data.schema import ARRAYS, Split
from rnem_world.data.shards import first_line
from rnem_world.errors import DataError, RnemWorldError, suggest

ARRAY_SUFFIXES = frozenset({".npy", ".npz"})
PICTURE_SUFFIXES = frozenset(
    {".png", ".apng", ".gif", ".webp", ".avif", ".jpg", ".jpeg", ".jp2", ".bmp", ".tga", ".tif", ".tiff"}
    | {".pbm", ".pgm", ".ppm", ".pnm"}
)
"""Files that hold one picture, or several: pages or an animation."""

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".divx", ".wmv", ".asf", ".flv", ".f4v", ".ogv", ".ogg"}
    | {
        ".mpg",
        ".mpeg",
        ".m2v",
        ".vob",
        ".ts",
        ".mts",
        ".m2ts",
        ".mxf",
        ".y4m",
        ".rm",
        ".rmvb",
        ".3gp",
        ".3g2",
    }
    | {".h264", ".h265", ".hevc"}
)

_READ_ERRORS = (
    OSError,
    UnidentifiedImageError,
    Image.DecompressionBombError,
    SyntaxError,
    ValueError,
    EOFError,
)
_HIDDEN = ("__MACOSX", "Thumbs.db", "desktop.ini")  # what systems leave in folders, beside names with a dot
# ffmpeg's own decoders of these drop the alpha channel.
_DECODERS_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


@dataclass(frozen=True)
class Clip:
    """One continuous sequence of frames.

    Attributes:
        name: Where it comes from, for messages.
        frames: The frames one by one, (h, w) or (h, w, c) with c 1 or 3, uint8 0..255.
        arrays: What else is known, named as in a dataset, (t, ...).
        number_of_actions: How many actions the file of this clip has, if there are any and one is a whole number.
        action_space: What its actions are, if the source says so.
        split: Which split it belongs to, if the source says so.
    """

    name: str
    frames: Iterator[NDArray[np.uint8]]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    number_of_actions: int | None = None
    action_space: ActionSpace | None = None
    split: Split | None = None


def read_clips(
    source: Path, reading: Reading | None = None, findings: Findings | None = None
) -> Iterator[Clip]:
    """Finds the clips in a file or folder; frames are read while they are taken, one clip after the other.

    Args:
        source: A dataset of Minari or of LeRobot, a folder; ``.npy`` or ``.npz``, see
            :func:`rnem_world.data.arrays.find_axes`; a video; an animation or the pages
            of a file; a folder of pictures, which are one clip; or a folder of such files or folders, each a clip.
        reading: How to read them; the defaults if None.
        findings: Receives what was left out and assumed; complete when the last frame was taken.

    Yields:
        The clips; take all frames of one before asking for the next.

    Raises:
        DataError: If there is nothing of the kind, or it can't be read.
    """
    from rnem_world.data.lerobot_files import is_lerobot, read_lerobot
    from rnem_world.data.minari_files import is_minari, read_minari

    reading, findings = reading or Reading(), findings if findings is not None else Findings()
    if not source.exists():
        near = [entry.name for entry in source.parent.glob("*")]
        raise DataError(f"{source}: no such file or folder; {suggest(source.name, near[:20])}")
    if is_minari(source):
        yield from read_minari(source, reading, findings)
    elif is_lerobot(source):
        yield from read_lerobot(source, reading, findings)
    elif source.is_dir():
        yield from _read_folder(source, reading, findings, ())
    else:
        yield from _read_file(source, reading, findings)


def _read_file(path: Path, reading: Reading, findings: Findings) -> Iterator[Clip]:
    suffix = path.suffix.lower()
    if suffix in ARRAY_SUFFIXES:
        yield from _read_arrays(path, reading, findings)
    elif suffix in PICTURE_SUFFIXES:
        yield Clip(str(path), _read_pictures([path], reading, findings))
    else:
        yield Clip(str(path), _read_video(path, reading, findings))


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts frame_2 before frame_10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name) if part
    ]


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name in _HIDDEN


def _read_folder(
    folder: Path, reading: Reading, findings: Findings, above: tuple[Path, ...]
) -> Iterator[Clip]:
    place = folder.resolve()
    if place in above:
        raise DataError(f"{folder}: the folder holds itself, by a link: remove that")
    stills: list[Path] = []
    clips: list[Path] = []
    try:
        entries = sorted((entry for entry in folder.iterdir() if not _is_hidden(entry)), key=_natural)
    except OSError as error:
        raise DataError(f"{folder}: the folder can't be read ({error.strerror})") from error
    for entry in entries:
        suffix = entry.suffix.lower()
        if entry.is_dir() or suffix in ARRAY_SUFFIXES | VIDEO_SUFFIXES:
            clips.append(entry)
        elif suffix in PICTURE_SUFFIXES:
            (clips if _has_several(entry) else stills).append(entry)
        else:
            findings.left_out.append(str(entry))
    if stills and clips:
        raise DataError(
            f"{folder}: both images ({stills[0].name}) and clips ({clips[0].name}); put each sequence's images into a "
            "folder of their own"
        )
    if not (stills or clips):
        what = (
            "holds no images, videos or arrays"
            if above
            else "holds neither images, videos nor folders of images"
        )
        known = ", ".join(sorted(PICTURE_SUFFIXES | VIDEO_SUFFIXES | ARRAY_SUFFIXES))
        raise DataError(f"{folder}: the folder {what} ({known})")
    if stills:
        yield Clip(str(folder), _read_pictures(stills, reading, findings))
    for entry in clips:
        if entry.is_dir():
            yield from _read_folder(entry, reading, findings, (*above, place))
        else:
            yield from _read_file(entry, reading, findings)


def _has_several(path: Path) -> bool:
    """Says whether a file holds an animation or several pages. A photo with other views beside it is one picture."""
    try:
        with Image.open(path) as image:
            return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except _READ_ERRORS:
        return False  # what is wrong with it will be said when it is read


def _read_pictures(paths: list[Path], reading: Reading, findings: Findings) -> Iterator[NDArray[np.uint8]]:
    """Reads all pictures of the files: pages and animations whole."""
    for path in paths:
        try:
            with Image.open(path) as image:
                several = image.format != "MPO" and getattr(image, "is_animated", False)
                # The first picture of an APNG may be there only for programs that know no animations.
                first = 1 if getattr(image, "default_image", False) else 0
                for number in range(first, image.n_frames if several else 1):
                    image.seek(number)
                    yield lay_on(_to_array(image, path), reading.matte, findings)
                    if several:
                        findings.see_duration(float(image.info.get("duration") or 0))
        except RnemWorldError:
            raise
        except _READ_ERRORS as error:
            raise DataError(
                f"{path}: not a readable image ({first_line(error)}); known: {', '.join(sorted(PICTURE_SUFFIXES))}, "
                "videos, and NumPy files"
            ) from error


def _to_array(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    """Returns the picture that an image shows now, (h, w), (h, w, 3) or with alpha (h, w, 4)."""
    if image.mode.startswith("I") or image.mode == "F":
        raise DataError(
            f"{path}: an image of mode {image.mode} (more than 8 bits a pixel): convert it to 8 bits"
        )
    if image.has_transparency_data:
        mode = "RGBA"
    else:
        mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    return np.asarray(image.convert(mode), dtype=np.uint8)


def _read_video(path: Path, reading: Reading, findings: Findings) -> Iterator[NDArray[np.uint8]]:
    try:
        if path.suffix.lower() not in VIDEO_SUFFIXES:  # ffmpeg takes text for a film of a terminal
            raise ValueError(f"unknown suffix {path.suffix!r}")
        video, meta = _open_video(path)
        rate = float(meta.get("fps") or 0)
        findings.see_duration(1000 / rate if rate else 0.0)
        width, height = meta["size"]
        try:
            for content in video:
                frame = np.frombuffer(content, np.uint8).reshape(height, width, 4)
                yield lay_on(frame, reading.matte, findings)
        finally:
            video.close()
    except Exception as error:  # the reader has no errors of its own
        known = ", ".join(sorted(PICTURE_SUFFIXES | VIDEO_SUFFIXES))
        hint = "; what is HDF5 already needs no import" if path.suffix.lower() in (".h5", ".hdf5") else ""
        raise DataError(
            f"{path}: not a readable video, image or NumPy file ({_reason(error)}){hint}; known: .npy, .npz, {known}, "
            "or a folder of images"
        ) from error


def _open_video(path: Path) -> tuple[Any, dict[str, Any]]:
    """Starts reading a video, with its alpha channel, as bytes."""
    video = imageio_ffmpeg.read_frames(str(path), pix_fmt="rgba", bits_per_pixel=32)
    meta = next(video)
    decoder = _DECODERS_WITH_ALPHA.get(str(meta.get("codec", "")).strip(", "))
    if decoder is not None:
        other = imageio_ffmpeg.read_frames(
            str(path), pix_fmt="rgba", bits_per_pixel=32, input_params=["-c:v", decoder]
        )
        try:
            meta = next(other)
        except OSError:  # an ffmpeg without it
            return video, meta
        video.close()
        return other, meta
    return video, meta


def _reason(error: Exception) -> str:
    """Returns what ffmpeg complains about: the last line that it wrote."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:160]


def _read_arrays(path: Path, reading: Reading, findings: Findings) -> Iterator[Clip]:
    arrays = _load(path)
    name = find_frames(arrays, str(path))
    place = f"{path}: {name}" if path.suffix.lower() == ".npz" else str(path)
    frames = arrays[name]
    if frames.dtype.kind not in "buif":
        raise DataError(f"{place} holds {frames.dtype}, expected numbers")
    called = name if path.suffix.lower() == ".npz" else ""
    axes = find_axes(frames.shape, called, place, reading.axes)
    ends = find_range(frames, place, reading.value_range, findings)
    findings.assumed.setdefault("axes", f"axes {', '.join(axes)}")
    beside, number_of_actions, action_space = read_beside(arrays, axes, frames.shape, str(path))
    findings.left_out += [
        f"{path}: {unknown_name(other)}" for other in arrays if other not in (*ARRAYS, name)
    ]
    sequences = arrange_frames(frames, axes)
    for number, sequence in enumerate(sequences):
        yield Clip(
            name=f"{place}, sequence {number}",
            frames=(lay_on(to_bytes(frame, ends), reading.matte, findings) for frame in sequence),
            arrays={other: array[number] for other, array in beside.items()},
            number_of_actions=number_of_actions,
            action_space=action_space,
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

"""Cutting clips into windows: frames resized, grey or coloured, binarised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from rnem_world.data.clips import Clip, read_clips
from rnem_world.errors import ConfigError, DataError
from rnem_world.types import SPLITS


@dataclass(frozen=True)
class ImportConfig:
    """How frames become sequences.

    Attributes:
        number_of_frames: The length of the sequences; longer clips are cut into windows.
        size: Height and width in pixels; None keeps that of the frames, which must all be equal then.
        binarise: A pixel brighter than this part of full brightness becomes 1, others 0: the model's pixels are
            Bernoulli variables. None keeps the brightness, 0..255.
        channels: 1 for grey, 3 for colour.
        ratio: Which parts of the sequences go to training, validation and test.
        seed: Decides which sequence goes where.
        stride: From the start of one window to that of the next; None for windows that don't overlap.
        number_of_actions: None takes one more than the highest action that occurs.

    Raises:
        ConfigError: If a value makes no sense.
    """

    number_of_frames: int = 51
    size: tuple[int, int] | None = None
    binarise: float | int | None = 0.5
    channels: int = 1
    ratio: Sequence[float | int] = (0.8, 0.1, 0.1)
    seed: int = 0
    stride: int | None = None
    number_of_actions: int | None = None

    def __post_init__(self) -> None:
        if self.number_of_frames < 2:
            raise ConfigError(f"number_of_frames is {self.number_of_frames}, expected at least 2")
        if self.size is not None and min(self.size) < 1:
            raise ConfigError(f"size is {self.size}, expected height and width of at least 1")
        if self.binarise is not None and not 0 <= self.binarise < 1:
            raise ConfigError(f"binarise is {self.binarise}, expected a threshold from 0 to below 1, or None")
        if self.channels not in (1, 3):
            raise ConfigError(f"channels is {self.channels}, expected 1 (grey) or 3 (colour)")
        if (
            len(self.ratio) != len(SPLITS)
            or not all(part >= 0 for part in self.ratio)
            or sum(self.ratio) <= 0
        ):
            raise ConfigError(
                f"ratio is {tuple(self.ratio)}, expected three parts, for example (0.8, 0.1, 0.1), none negative"
            )
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}, expected at least 0")
        for name in ("stride", "number_of_actions"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")

    @property
    def step(self) -> int:
        """The stride in frames."""
        return self.number_of_frames if self.stride is None else self.stride


@dataclass(frozen=True)
class Window:
    """One sequence.

    Attributes:
        clip: The number of its clip.
        start: Its first frame there.
        arrays: Its arrays, named as in the schema, (t, ...), without the axis of sequences.
    """

    clip: int
    start: int
    arrays: dict[str, NDArray[Any]] = field(repr=False)


@dataclass
class Progress:
    """What was met so far while cutting.

    Attributes:
        clips: How many clips.
        short_clips: How many of them are too short for a window.
        longest: The length of the longest.
        number_of_actions: As given, or as found in the source; None without actions.
    """

    clips: int = 0
    short_clips: int = 0
    longest: int = 0
    number_of_actions: int | None = None


def cut_windows(source: Path, config: ImportConfig, progress: Progress) -> Iterator[Window]:
    """Cuts the clips of a source into windows; only the frames of the current window are in memory.

    Args:
        source: See :func:`rnem_world.data.clips.read_clips`.
        config: How.
        progress: Is brought up to date meanwhile.

    Yields:
        The windows, clip by clip.

    Raises:
        DataError: If the source can't be read, or frames differ in size.
    """
    first: tuple[str, tuple[int, ...]] | None = None
    with tqdm(desc="importing", unit="frame", disable=None) as bar:
        for number, clip in enumerate(read_clips(source)):
            progress.number_of_actions = progress.number_of_actions or clip.number_of_actions
            frames: list[NDArray[np.uint8]] = []
            start = length = 0
            for frame in clip.frames:
                length += 1
                bar.update()
                if length <= start:  # between two windows, with a stride longer than a window
                    continue
                frames.append(_convert(frame, config, clip.name))
                if first is None:
                    first = (clip.name, frames[0].shape)
                if frames[-1].shape != first[1]:
                    raise DataError(
                        f"{clip.name}: a frame of {_size(frames[-1].shape)}, but those of {first[0]} have "
                        f"{_size(first[1])}; give a size that all are resized to"
                    )
                if len(frames) == config.number_of_frames:
                    yield Window(number, start, _collect(clip, frames, start, config))
                    frames = frames[config.step :]
                    start += config.step
            progress.clips += 1
            progress.longest = max(progress.longest, length)
            progress.short_clips += length < config.number_of_frames


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]} pixels"


def _collect(
    clip: Clip, frames: list[NDArray[np.uint8]], start: int, config: ImportConfig
) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"features": np.stack(frames)}
    window = slice(start, start + config.number_of_frames)
    if clip.groups is not None:
        groups = clip.groups[window]
        if config.size is not None and groups.shape[1:] != config.size:
            groups = np.stack([_resize(group, config.size, Image.Resampling.NEAREST) for group in groups])
        arrays["groups"] = groups[..., None]
    if clip.actions is not None:
        arrays["actions"] = clip.actions[window]
    return arrays


def _convert(frame: NDArray[np.uint8], config: ImportConfig, name: str) -> NDArray[np.uint8]:
    """Turns one frame into (h, w, c): channels, then size, then brightness."""
    if frame.ndim == 3 and frame.shape[-1] == 1:
        frame = frame[..., 0]
    if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[-1] not in (3, 4)):
        raise DataError(f"{name}: a frame has the shape {frame.shape}, expected (H, W) or (H, W, C)")
    image = Image.fromarray(np.ascontiguousarray(frame)).convert("RGB" if config.channels == 3 else "L")
    converted = np.asarray(image)
    if config.size is not None and converted.shape[:2] != config.size:
        converted = _resize(converted, config.size, Image.Resampling.BOX)
    if config.binarise is not None:
        converted = (converted > config.binarise * 255).astype(np.uint8)
    return converted[..., None] if converted.ndim == 2 else converted


def _resize(frame: NDArray[np.uint8], size: tuple[int, int], method: Image.Resampling) -> NDArray[np.uint8]:
    """Resizes to (height, width); BOX averages the area that a new pixel covers."""
    return np.asarray(Image.fromarray(frame).resize((size[1], size[0]), method))

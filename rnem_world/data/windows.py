"""How clips become sequences: grey or coloured, resized, binarised, and cut into windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from rnem_world.actions import ActionSpace
from rnem_world.config import check_at_least, check_types
from rnem_world.data.arrays import Findings, Reading
from rnem_world.data.clips import Clip, read_clips
from rnem_world.data.schema import ARRAYS, SPLITS, Split
from rnem_world.errors import ConfigError, DataError


@dataclass(frozen=True)
class ImportConfig:
    """How frames become sequences.

    Attributes:
        number_of_frames: The length of the sequences; longer clips are cut into windows.
        size: Height and width in pixels; None keeps that of the frames, which must all be equal then.
        binarise: A pixel brighter than this part of full brightness becomes 1, others 0: the model's pixels are
            Bernoulli variables. None keeps the brightness, 0..255.
        channels: 1 for grey, 3 for colour; None keeps those of the frames, however many.
        ratio: Which parts of the sequences go to training, validation and test.
        seed: Decides which sequence goes where.
        stride: From the start of one window to that of the next; None for windows that don't overlap.
        number_of_actions: None takes one more than the highest action that occurs, or the columns of one-hot actions.
        reading: What the axes and values of the source mean, and what its transparent pixels are laid on.
        streams: Whether sequences go on from the end of one clip with the next, as episodes, which ``is_first`` marks,
            so that clips of any length are used; None does for datasets of episodes, those of Minari and LeRobot.

    Raises:
        ConfigError: If a value makes no sense.
    """

    number_of_frames: int = 51
    size: tuple[int, int] | None = None
    binarise: float | int | None = 0.5
    channels: int | None = 1
    ratio: Sequence[float | int] = (0.8, 0.1, 0.1)
    seed: int = 0
    stride: int | None = None
    number_of_actions: int | None = None
    reading: Reading = field(default_factory=Reading)
    streams: bool | None = None

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 2, "number_of_frames")
        check_at_least(self, 1, "stride", "number_of_actions")
        check_at_least(self, 0, "seed")
        if self.size is not None and min(self.size) < 1:
            raise ConfigError(f"size is {self.size}, expected height and width of at least 1")
        if self.binarise is not None and not 0 <= self.binarise < 1:
            raise ConfigError(f"binarise is {self.binarise}, expected a threshold from 0 to below 1, or None")
        if self.channels not in (1, 3, None):
            raise ConfigError(
                f"channels is {self.channels}, expected 1 (grey), 3 (colour), or None to keep them"
            )
        if self.streams and self.stride is not None:
            raise ConfigError(
                f"stride is {self.stride}, and streams are cut end to end: leave one of them out"
            )
        if (
            len(self.ratio) != len(SPLITS)
            or not all(part >= 0 for part in self.ratio)
            or sum(self.ratio) <= 0
        ):
            raise ConfigError(
                f"ratio is {tuple(self.ratio)}, expected three parts, for example (0.8, 0.1, 0.1), none negative"
            )

    @property
    def step(self) -> int:
        """The stride in frames."""
        return self.number_of_frames if self.stride is None else self.stride

    @property
    def maximum_value(self) -> int:
        """The brightness of a white pixel, as it is stored."""
        return 255 if self.binarise is None else 1


@dataclass(frozen=True)
class Window:
    """One sequence: the number of its clip, its first frame there, and its arrays, (t, ...), named as in the schema.

    ``split`` is the one that it belongs to, if the source says so.
    """

    clip: int
    start: int
    arrays: dict[str, NDArray[Any]] = field(repr=False)
    split: Split | None = None


@dataclass
class Met:
    """What was met so far while cutting."""

    findings: Findings = field(default_factory=Findings)
    clips: int = 0
    short_clips: int = 0
    longest: int = 0
    number_of_actions: int | None = None
    action_space: ActionSpace | None = None
    unused_frames: int = 0
    unused_ends: int = 0
    crossing: int = 0


def cut_windows(source: Path, config: ImportConfig, met: Met) -> Iterator[Window]:
    """Cuts the clips of a source into windows; only the frames of the current window are in memory."""
    if config.streams:
        yield from cut_streams(source, config, met)
        return
    first: tuple[Clip, tuple[int, ...]] | None = None
    with tqdm(desc="importing", unit="frame", disable=None) as bar:
        for number, clip in enumerate(read_clips(source, config.reading, met.findings)):
            _check_actions(clip, config, met)
            frames: list[NDArray[np.uint8]] = []
            start = length = 0
            used: list[int] = []
            for frame in clip.frames:
                length += 1
                bar.update()
                if length <= start:  # between two windows, with a stride longer than a window
                    continue
                frames.append(_convert(frame, config, clip.name))
                if first is None:
                    first = (clip, frames[0].shape)
                _check_alike(clip, frames[-1].shape, *first)
                if len(frames) == config.number_of_frames:
                    yield Window(number, start, _collect(clip, frames, start, config), clip.split)
                    used.append(start)
                    frames = frames[config.step :]
                    start += config.step
            met.clips += 1
            met.longest = max(met.longest, length)
            met.short_clips += length < config.number_of_frames
            _count_unused(clip, length, used, config, met)


def cut_streams(source: Path, config: ImportConfig, met: Met) -> Iterator[Window]:
    """Cuts the clips of a source, one behind the other, into windows; a window and a clip are in memory.

    Clips of different splits are in different streams.
    """
    first: tuple[Clip, tuple[int, ...]] | None = None
    streams: dict[Split | None, _Stream] = {}
    with tqdm(desc="importing", unit="frame", disable=None) as bar:
        for clip in read_clips(source, config.reading, met.findings):
            _check_actions(clip, config, met)
            frames = [_convert(frame, config, clip.name) for frame in clip.frames]
            bar.update(len(frames))
            first = first or (clip, frames[0].shape)
            for frame in frames:
                _check_alike(clip, frame.shape, *first)
            stream = streams.setdefault(clip.split, _Stream(len(streams), clip.split))
            yield from stream.add(_episode(clip, _collect(clip, frames, 0, config, len(frames))), config)
            met.clips += 1
            met.longest += len(frames)
    met.unused_frames += sum(stream.length for stream in streams.values())


def _episode(clip: Clip, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Marks where a clip begins and, if nothing says that it ends, that it is cut off after its last transition."""
    length = len(arrays["features"])
    arrays.setdefault("is_first", np.arange(length) == 0)
    ends = arrays.get("terminations", np.zeros(length, np.bool_)).copy()
    if "truncations" not in arrays:
        arrays["truncations"] = np.zeros(length, np.bool_)
        arrays["truncations"][max(length - 2, 0)] = length > 1 and not ends[-2:].any()
    if "actions" in arrays or "rewards" in arrays:
        ends[-1] = False  # of a transition that nobody made
        arrays["terminations"] = ends
    return arrays


class _Stream:
    """What isn't yet in a window of clips that follow one another."""

    def __init__(self, number: int, split: Split | None) -> None:
        self.number, self.split, self.start = number, split, 0
        self._parts: list[dict[str, NDArray[Any]]] = []
        self.length = 0

    def add(self, arrays: dict[str, NDArray[Any]], config: ImportConfig) -> Iterator[Window]:
        """Takes the next clip and yields the windows that are full."""
        self._parts.append(arrays)
        self.length += len(arrays["features"])
        size = config.number_of_frames
        if self.length < size:
            return
        joined = {name: np.concatenate([part[name] for part in self._parts]) for name in arrays}
        whole = self.length // size * size
        for begin in range(0, whole, size):
            window = {name: array[begin : begin + size] for name, array in joined.items()}
            yield Window(self.number, self.start + begin, window, self.split)
        self.start, self.length = self.start + whole, self.length - whole
        self._parts = [{name: array[whole:] for name, array in joined.items()}]


def _check_actions(clip: Clip, config: ImportConfig, met: Met) -> None:
    """Counts the actions of all clips, and checks them against the number given."""
    if clip.action_space is not None:
        if met.action_space not in (None, clip.action_space):
            raise DataError(f"{clip.name}: actions are {clip.action_space}, and before it {met.action_space}")
        met.action_space = clip.action_space
    if clip.number_of_actions is None:
        return
    met.number_of_actions = max(met.number_of_actions or 0, clip.number_of_actions)
    if config.number_of_actions is not None:
        wrong = np.flatnonzero(clip.arrays["actions"] >= config.number_of_actions)
        if len(wrong):
            raise DataError(
                f"{clip.name}: actions is {clip.arrays['actions'][wrong[0]]} in frame {wrong[0]}, expected 0 to "
                f"{config.number_of_actions - 1}, for {config.number_of_actions} actions were said to exist"
            )


def _check_alike(clip: Clip, shape: tuple[int, ...], first: Clip, expected: tuple[int, ...]) -> None:
    """Checks that a clip is of the same kind as the first.

    Raises:
        DataError: If it isn't.
    """
    if shape != expected:
        raise DataError(
            f"{clip.name}: a frame of {_size(shape)}, but those of {first.name} have {_size(expected)}; give a size "
            "that all are resized to"
        )
    mine, theirs = clip.arrays.keys(), first.arrays.keys()
    if mine != theirs:
        names = ", ".join(sorted(mine ^ theirs))
        raise DataError(
            f"{clip.name}: {names}: either it or {first.name} has that, expected the same arrays in all files"
        )


def _count_unused(clip: Clip, length: int, starts: list[int], config: ImportConfig, met: Met) -> None:
    """Counts the frames of a clip that are in no window, and the ends of episodes among them."""
    if length < config.number_of_frames:
        return
    used = np.zeros(length, np.bool_)
    for start in starts:
        used[start : start + config.number_of_frames] = True
    met.unused_frames += int((~used).sum())
    if "terminations" in clip.arrays:
        ends = clip.arrays["terminations"]
        begins = ends & ~np.concatenate([[False], ends[:-1]])
        met.unused_ends += int((begins & ~used).sum())


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]} pixels"


def _collect(
    clip: Clip, frames: list[NDArray[np.uint8]], start: int, config: ImportConfig, length: int | None = None
) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"features": np.stack(frames)}
    window = slice(start, start + (length or config.number_of_frames))
    for name in ARRAYS:
        if name not in clip.arrays:
            continue
        array = clip.arrays[name][window]
        if name in ("groups", "collisions"):
            if config.size is not None and array.shape[1:3] != config.size:
                resized = [_resize(each[..., 0], config.size, Image.Resampling.NEAREST) for each in array]
                array = np.stack(resized)[..., None]
            if name == "collisions":
                array = np.repeat(array, frames[0].shape[-1], axis=-1)
        arrays[name] = array
    return arrays


def _convert(frame: NDArray[np.uint8], config: ImportConfig, name: str) -> NDArray[np.uint8]:
    """Turns one frame into (h, w, c): channels, then size, then brightness."""
    if config.channels is None:
        return _keep_channels(frame, config, name)
    if frame.ndim == 3 and frame.shape[-1] == 1:
        frame = frame[..., 0]
    if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[-1] != 3):
        raise DataError(f"{name}: a frame has the shape {frame.shape}, expected (H, W) or (H, W, C)")
    image = Image.fromarray(np.ascontiguousarray(frame)).convert("RGB" if config.channels == 3 else "L")
    converted = np.asarray(image)
    if config.reading.invert:
        converted = 255 - converted
    if config.size is not None and converted.shape[:2] != config.size:
        converted = _resize(converted, config.size, Image.Resampling.BOX)
    if config.binarise is not None:
        converted = (converted > config.binarise * 255).astype(np.uint8)
    return converted[..., None] if converted.ndim == 2 else converted


def _keep_channels(frame: NDArray[np.uint8], config: ImportConfig, name: str) -> NDArray[np.uint8]:
    """Turns one frame of any number of channels into (h, w, c): size, then brightness."""
    if frame.ndim not in (2, 3):
        raise DataError(f"{name}: a frame has the shape {frame.shape}, expected (H, W) or (H, W, C)")
    converted = frame if frame.ndim == 3 else frame[..., None]
    if config.reading.invert:
        converted = 255 - converted
    if config.size is not None and converted.shape[:2] != config.size:
        layers = [
            _resize(layer, config.size, Image.Resampling.BOX) for layer in np.moveaxis(converted, -1, 0)
        ]
        converted = np.stack(layers, axis=-1)
    return converted if config.binarise is None else (converted > config.binarise * 255).astype(np.uint8)


def _resize(frame: NDArray[np.uint8], size: tuple[int, int], method: Image.Resampling) -> NDArray[np.uint8]:
    """Resizes to (height, width); BOX averages the area that a new pixel covers."""
    return np.asarray(Image.fromarray(frame).resize((size[1], size[0]), method))

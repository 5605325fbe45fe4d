"""Turning frames from elsewhere into a dataset: resized, grey or coloured, binarised, cut into windows."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from rnem_world.config import check_at_least
from rnem_world.data.clips import Clip, read_clips
from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import SPLITS, DatasetAttributes, EpisodeBatch, Split
from rnem_world.data.writer import merge_sequences, write_shard
from rnem_world.errors import ConfigError, DataError, OutputError
from rnem_world.io import writing
from rnem_world.seeding import numpy_generator

_SHARD_BYTES = 2**25


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
        check_at_least(self, 2, "number_of_frames")
        check_at_least(self, 1, "stride", "number_of_actions")
        check_at_least(self, 0, "seed")
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

    @property
    def step(self) -> int:
        """The stride in frames."""
        return self.number_of_frames if self.stride is None else self.stride


@dataclass(frozen=True)
class ImportSummary:
    """What came of an import.

    Attributes:
        sequences: How many sequences each split got.
        height: In pixels.
        width: In pixels.
        channels: 1 or 3.
        clips: How many clips there were.
        short_clips: How many were too short for one sequence.
        unused_windows: Windows left out because they share frames with another split.
    """

    sequences: dict[Split, int]
    height: int
    width: int
    channels: int
    clips: int
    short_clips: int
    unused_windows: int


def import_frames(
    source: str | os.PathLike[str], out: str | os.PathLike[str], config: ImportConfig | None = None
) -> ImportSummary:
    """Makes a dataset of frames, videos or images; needs memory for a few windows only.

    Args:
        source: See :func:`rnem_world.data.clips.read_clips`.
        out: The file to write; it appears when everything is done.
        config: How; the defaults if None.

    Raises:
        DataError: If the source can't be read, or has no sequence long enough.
        OutputError: If the file can't be written.
    """
    config = config or ImportConfig()
    source, out = Path(source), Path(out)
    if out.is_dir():
        raise OutputError(f"can't write {out}: it is a folder; give the name of a file")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".parts", dir=out.parent)
    with folder as name:
        staging = Path(name)
        met = _Met(number_of_actions=config.number_of_actions)
        kept: list[tuple[int, int]] = []  # clip and start of each window, in the order of their rows
        shards: list[Path] = []
        for windows in _shards(_cut_windows(source, config, met)):
            kept += [(window.clip, window.start) for window in windows]
            arrays = {
                name: np.stack([window.arrays[name] for window in windows], axis=1)
                for name in windows[0].arrays
            }
            shards.append(staging / f"{len(shards):06}.h5")
            attributes = _attributes(source, config, met.number_of_actions)
            write_shard(shards[-1], {"training": EpisodeBatch(**arrays)}, attributes)
        if not kept:
            raise DataError(
                f"{source}: no clip has {config.number_of_frames} frames, the longest has {met.longest}; "
                "lower the number of frames of a sequence"
            )
        chosen = _split_windows(kept, config)
        with Dataset.open(shards) as staged:
            rows = staged.places("training")
            places = {split: [rows[number] for number in numbers] for split, numbers in chosen.items()}
            info = staged.info("training")
            merge_sequences(staged, places, out)
    return ImportSummary(
        sequences={split: len(numbers) for split, numbers in chosen.items() if numbers},
        height=info.height,
        width=info.width,
        channels=info.channels,
        clips=met.clips,
        short_clips=met.short_clips,
        unused_windows=len(kept) - sum(len(numbers) for numbers in chosen.values()),
    )


def _shards(windows: Iterator[_Window]) -> Iterator[list[_Window]]:
    """Gathers windows until they are worth a file."""
    gathered: list[_Window] = []
    size = 0
    for window in windows:
        gathered.append(window)
        size += sum(array.nbytes for array in window.arrays.values())
        if size >= _SHARD_BYTES:
            yield gathered
            gathered, size = [], 0
    if gathered:
        yield gathered


def _attributes(source: Path, config: ImportConfig, number_of_actions: int | None) -> DatasetAttributes:
    return DatasetAttributes(
        environment_id="import",
        settings={
            "source": source.name,
            "size": None if config.size is None else list(config.size),
            "binarise": config.binarise,
            "ratio": list(config.ratio),
            "stride": config.step,
        },
        seed=config.seed,
        number_of_actions=number_of_actions,
        maximum_value=255 if config.binarise is None else 1,
    )


@dataclass(frozen=True)
class _Window:
    """One sequence: the number of its clip, its first frame there, and its arrays, (t, ...), named as in the schema."""

    clip: int
    start: int
    arrays: dict[str, NDArray[Any]] = field(repr=False)


@dataclass
class _Met:
    """What was met so far while cutting; ``number_of_actions`` is as given, or as found in the source."""

    clips: int = 0
    short_clips: int = 0
    longest: int = 0
    number_of_actions: int | None = None


def _cut_windows(source: Path, config: ImportConfig, met: _Met) -> Iterator[_Window]:
    """Cuts the clips of a source into windows; only the frames of the current window are in memory."""
    first: tuple[str, tuple[int, ...]] | None = None
    with tqdm(desc="importing", unit="frame", disable=None) as bar:
        for number, clip in enumerate(read_clips(source)):
            met.number_of_actions = met.number_of_actions or clip.number_of_actions
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
                    yield _Window(number, start, _collect(clip, frames, start, config))
                    frames = frames[config.step :]
                    start += config.step
            met.clips += 1
            met.longest = max(met.longest, length)
            met.short_clips += length < config.number_of_frames


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


def _split_windows(windows: list[tuple[int, int]], config: ImportConfig) -> dict[Split, list[int]]:
    """Gives each split its windows, so that no frame is in two of them.

    Windows that don't overlap are shuffled; others stay in their order, and those at a border are left out.

    Args:
        windows: Clip and first frame of each.
        config: Ratio, seed, length and stride.

    Returns:
        The numbers of each split's windows.
    """
    counts = counts_by_ratio(len(windows), config.ratio)
    order = np.arange(len(windows))
    overlap = config.step < config.number_of_frames
    if not overlap:
        numpy_generator(config.seed, "import").shuffle(order)
    edges = np.cumsum([0, *counts])
    chosen: dict[Split, list[int]] = {}
    last: tuple[int, int] | None = None  # the last window of the splits before
    for split, (begin, end) in zip(SPLITS, pairwise(edges.tolist()), strict=True):
        numbers = order[begin:end].tolist()
        if overlap:
            numbers = [number for number in numbers if not _shares_frames(windows[number], last, config)]
            last = windows[numbers[-1]] if numbers else last
        chosen[split] = numbers
    return chosen


def _shares_frames(window: tuple[int, int], last: tuple[int, int] | None, config: ImportConfig) -> bool:
    return last is not None and window[0] == last[0] and window[1] < last[1] + config.number_of_frames


def counts_by_ratio(total: int, ratio: Sequence[float | int]) -> list[int]:
    """Divides sequences by the largest remainder; a split that is wanted gets at least one if there are enough."""
    wanted = np.array(ratio, dtype=np.float64) / sum(ratio) * total
    counts = np.floor(wanted + 1e-9).astype(int)
    for place in np.argsort(-(wanted - counts), kind="stable")[: total - counts.sum()]:
        counts[place] += 1
    if total >= np.count_nonzero(wanted):
        for place in np.flatnonzero((wanted > 0) & (counts == 0)):
            counts[place] += 1
            counts[np.argmax(counts)] -= 1
    return [int(count) for count in counts]

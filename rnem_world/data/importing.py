"""Turning frames from elsewhere into a dataset: read as clips, cut into windows, given to the splits."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from rnem_world.actions import ActionSpace
from rnem_world.data.blanks import BlankCounter, episode_warning, go_on_after_the_end
from rnem_world.data.collector import check_out_is_free
from rnem_world.data.dataset import Dataset
from rnem_world.data.lerobot_files import is_lerobot
from rnem_world.data.minari_files import PREFIX, find_minari, is_minari
from rnem_world.data.schema import SPLITS, DatasetAttributes, EpisodeBatch, Split
from rnem_world.data.windows import ImportConfig, Met, Window, cut_windows
from rnem_world.data.writer import merge_sequences, write_shard
from rnem_world.errors import ConfigError, DataError, OutputError
from rnem_world.io import writing
from rnem_world.seeding import numpy_generator

_SHARD_BYTES = 2**25
_NAMED = 5
_ALIKE = 1.01
"""Frames whose durations differ by no more than this factor last equally long."""


@dataclass(frozen=True)
class ImportSummary:
    """What came of an import.

    Attributes:
        sequences: How many sequences each split got.
        height: In pixels.
        width: In pixels.
        channels: Of a frame.
        clips: How many clips there were.
        short_clips: How many were too short for one sequence.
        unused_windows: Windows left out because they share frames with another split.
        number_of_actions: How many actions the dataset has, None without any, or where one is several numbers.
        action_space: What its actions are, if the source says so.
        arrays: The names of its arrays.
        notes: What was assumed about the source.
        warnings: What was left out, and what looks as if it weren't meant.
    """

    sequences: dict[Split, int]
    height: int
    width: int
    channels: int
    clips: int
    short_clips: int
    unused_windows: int
    number_of_actions: int | None
    action_space: ActionSpace | None
    arrays: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def import_frames(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: ImportConfig | None = None,
    *,
    overwrite: bool = False,
) -> ImportSummary:
    """Makes a dataset of frames, videos or images; needs memory for a few windows only.

    Args:
        source: See :func:`rnem_world.data.clips.read_clips`; or ``minari:ID`` for a dataset that Minari knows.
        out: The file to write; it appears when everything is done.
        config: How; the defaults if None.
        overwrite: Whether ``out`` may exist and be replaced; never if it is the source.

    Raises:
        ConfigError: If something was said about arrays or actions that the source doesn't have.
        DataError: If the source can't be read, or has no sequence long enough.
        OutputError: If the file can't be written, or exists.
    """
    config = config or ImportConfig()
    source, out = _found(source), Path(out).absolute()
    if config.streams is None:
        config = replace(config, streams=config.stride is None and (is_minari(source) or is_lerobot(source)))
    if out.is_dir():
        raise OutputError(f"can't write {out}: it is a folder; give the name of a file")
    check_out_is_free(out, overwrite, sources=(source,))
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".parts", dir=out.parent)
    with folder as name:
        staging = Path(name)
        met = Met()
        kept: list[tuple[int, int]] = []  # clip and start of each window, in the order of their rows
        told: list[Split | None] = []  # the split that a window belongs to
        shards: list[Path] = []
        blanks = BlankCounter(config.maximum_value)
        for windows in _shards(cut_windows(source, config, met)):
            kept += [(window.clip, window.start) for window in windows]
            told += [window.split for window in windows]
            arrays = {
                name: np.stack([window.arrays[name] for window in windows], axis=1)
                for name in windows[0].arrays
            }
            blanks.add(arrays["features"])
            if "terminations" in arrays and "is_first" not in arrays:
                met.crossing += go_on_after_the_end(arrays["terminations"])
            shards.append(staging / f"{len(shards):06}.h5")
            # How many actions there are is known in the end.
            attributes = _attributes(source, config, met.action_space)
            if met.action_space is None:
                attributes = replace(attributes, number_of_actions=np.iinfo(np.int32).max)
            write_shard(shards[-1], {"training": EpisodeBatch(**arrays)}, attributes)
        if not kept:
            raise DataError(
                f"{source}: no clip has {config.number_of_frames} frames, the longest has {met.longest}; "
                "lower the number of frames of a sequence"
            )
        number_of_actions = _number_of_actions(source, config, met)
        chosen = _split_windows(kept, config) if None in told else _as_told(told)
        with Dataset.open(shards) as staged:
            rows = staged.places("training")
            places = {split: [rows[number] for number in numbers] for split, numbers in chosen.items()}
            info = staged.info("training")
            attributes = replace(
                _attributes(source, config, met.action_space), number_of_actions=number_of_actions
            )
            merge_sequences(staged, places, out, attributes)
    return ImportSummary(
        sequences={split: len(numbers) for split, numbers in chosen.items() if numbers},
        height=info.height,
        width=info.width,
        channels=info.channels,
        clips=met.clips,
        short_clips=met.short_clips,
        unused_windows=len(kept) - sum(len(numbers) for numbers in chosen.values()),
        number_of_actions=number_of_actions,
        action_space=met.action_space,
        arrays=info.arrays,
        notes=tuple(met.findings.assumed.values()),
        warnings=(*_warnings(met, config), *blanks.warnings(), *episode_warning(met.crossing, len(kept))),
    )


def _found(source: str | os.PathLike[str]) -> Path:
    """Gives the path of a source, which may be named by its place in Minari's store."""
    if isinstance(source, str) and source.startswith(PREFIX):
        return find_minari(source)
    return Path(source).absolute()


def _as_told(splits: list[Split | None]) -> dict[Split, list[int]]:
    """Gives each split the windows that the source says are its."""
    return {split: [number for number, told in enumerate(splits) if told == split] for split in SPLITS}


def _number_of_actions(source: Path, config: ImportConfig, met: Met) -> int | None:
    """Says how many actions there are, and checks what was given against what was met.

    Raises:
        ConfigError: If something was said about what isn't there.
    """
    reading, given = config.reading, config.number_of_actions
    assumed = met.findings.assumed
    if reading.picture is not None and "picture" not in assumed:
        raise ConfigError(
            f"picture is {reading.picture!r}, and {source} has one kind of pictures: leave it out"
        )
    if "axes" not in assumed and (reading.axes or (reading.value_range and "minari" not in assumed)):
        option = "axes" if reading.axes else "value_range"
        raise ConfigError(f"{option} was given, and {source} holds no arrays: leave it out")
    if met.action_space is not None:
        if given is not None and given != met.number_of_actions:
            raise ConfigError(
                f"number_of_actions is {given}, and {source} says itself that there are {met.action_space.described}: "
                "leave it out"
            )
        return met.number_of_actions
    if given is not None and met.number_of_actions is None:
        raise ConfigError(f"number_of_actions is {given}, and {source} has no actions: leave it out")
    return met.number_of_actions if given is None else given


def _warnings(met: Met, config: ImportConfig) -> Iterator[str]:
    """Says what was left out of a source, and what can't be as it was meant."""
    findings = met.findings
    if findings.left_out:
        named = ", ".join(findings.left_out[:_NAMED])
        more = f" and {len(findings.left_out) - _NAMED} more" if len(findings.left_out) > _NAMED else ""
        yield f"left out: {named}{more}"
    if met.unused_frames:
        ends = f", with {met.unused_ends} ends of episodes in them" if met.unused_ends else ""
        yield (
            f"{met.unused_frames} frames were left out, what remains of clips after sequences of "
            f"{config.number_of_frames}{ends}"
        )
    if findings.milliseconds is not None:
        shortest, longest = findings.milliseconds
        if longest > shortest * _ALIKE:
            yield (
                f"frames are shown for {shortest:.3g} to {longest:.3g} ms: that was ignored, every frame is one step"
            )
    if findings.is_transparent:
        yield (
            f"transparent pixels were laid on {config.reading.matte}; --matte white lays them on white instead"
            if config.reading.matte == "black"
            else "transparent pixels were laid on white"
        )


def _shards(windows: Iterator[Window]) -> Iterator[list[Window]]:
    """Gathers windows until they are worth a file."""
    gathered: list[Window] = []
    size = 0
    for window in windows:
        gathered.append(window)
        size += sum(array.nbytes for array in window.arrays.values())
        if size >= _SHARD_BYTES:
            yield gathered
            gathered, size = [], 0
    if gathered:
        yield gathered


def _attributes(source: Path, config: ImportConfig, action_space: ActionSpace | None) -> DatasetAttributes:
    return DatasetAttributes(
        environment_id="import",
        settings={
            "source": source.name,
            "size": None if config.size is None else list(config.size),
            "binarise": config.binarise,
            "ratio": list(config.ratio),
            "stride": config.step,
            "invert": config.reading.invert,
        },
        seed=config.seed,
        number_of_actions=action_space.sizes[0]
        if action_space is not None and action_space.is_discrete
        else None,
        action_space=action_space,
        maximum_value=config.maximum_value,
    )


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

"""Turning frames from elsewhere into a dataset: resized, grey or coloured, binarised, cut into windows."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rnem_world.data.dealing import deal_out
from rnem_world.data.episode import EpisodeBatch
from rnem_world.data.schema import DatasetAttributes
from rnem_world.data.storage import Dataset, Pick, merge_sequences, write_shard
from rnem_world.data.windows import ImportConfig, Progress, Window, cut_windows
from rnem_world.errors import DataError, OutputError
from rnem_world.types import Split

__all__ = ["ImportConfig", "ImportSummary", "import_frames"]

_SHARD_BYTES = 2**25


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
        raise OutputError(f"{out} can't be written: it is a folder; give the name of a file")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".parts", dir=out.parent))
    except OSError as error:
        raise OutputError(f"{out} can't be written: {error.strerror or error}") from error
    try:
        progress = Progress(number_of_actions=config.number_of_actions)
        kept: list[tuple[int, int]] = []  # clip and start of each window, in the order of their rows
        shards: list[Path] = []
        for windows in _shards(cut_windows(source, config, progress)):
            kept += [(window.clip, window.start) for window in windows]
            arrays = {
                name: np.stack([window.arrays[name] for window in windows], axis=1)
                for name in windows[0].arrays
            }
            shards.append(staging / f"{len(shards):06}.h5")
            attributes = _attributes(source, config, progress.number_of_actions)
            write_shard(shards[-1], {"training": EpisodeBatch(**arrays)}, attributes)
        if not kept:
            raise DataError(
                f"{source}: no clip has {config.number_of_frames} frames, the longest has {progress.longest}; "
                "lower the number of frames of a sequence"
            )
        chosen = deal_out(kept, config)
        with Dataset.open(shards) as staged:
            rows: list[Pick] = [
                (shard, "training", row)
                for shard, size in enumerate(staged.shard_sizes("training"))
                for row in range(size)
            ]
            picks: dict[Split, list[Pick]] = {
                split: [rows[number] for number in numbers] for split, numbers in chosen.items()
            }
            info = staged.info("training")
            merge_sequences(staged, picks, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return ImportSummary(
        sequences={split: len(numbers) for split, numbers in chosen.items() if numbers},
        height=info.height,
        width=info.width,
        channels=info.channels,
        clips=progress.clips,
        short_clips=progress.short_clips,
        unused_windows=len(kept) - sum(len(numbers) for numbers in chosen.values()),
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

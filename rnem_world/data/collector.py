"""Collecting a dataset from any Gymnasium vector environment, by several processes, shard by shard.

A shard depends on the settings and its number only, so that the dataset is the same for any number of processes. The
finished shards of a collection that was interrupted wait in ``<out>.parts``, and it goes on where it was.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from tqdm import tqdm

from rnem_world.config import check_at_least, check_types
from rnem_world.data.dataset import Dataset
from rnem_world.data.recorder import RecordableAgent, Recorder
from rnem_world.data.schema import SPLITS, DatasetAttributes, Split
from rnem_world.data.shards import SUFFIXES
from rnem_world.data.writer import merge_shards, write_shard
from rnem_world.errors import ConfigError, DataError, OutputError
from rnem_world.io import Lock, put_in_place, tidy_folders, writing
from rnem_world.seeding import derive_seed, numpy_generator

MakeVectorEnv = Callable[[int], VectorEnv[Any, Any, Any]]
MakeAgent = Callable[[Any, np.random.Generator], RecordableAgent]

SETTINGS_FILE = "settings.json"
SHARD_NAME = re.compile(r"(training|validation|test)-\d{5,}\.h5")


@dataclass(frozen=True)
class Source:
    """What is recorded.

    Attributes:
        make_vector_env: Makes a vector environment of the given number; picklable. An episode must last at
            least as long as a sequence; for whole episodes the environment must not reset by itself.
        make_agent: Makes an agent for the environment, with a random generator; picklable.
        attributes: What the dataset says about itself.
    """

    make_vector_env: MakeVectorEnv
    make_agent: MakeAgent
    attributes: DatasetAttributes


@dataclass(frozen=True)
class CollectorConfig:
    """How much to collect.

    Attributes:
        num_train: Sequences for training.
        num_valid: Sequences for validation.
        num_test: Sequences for testing.
        number_of_frames: Frames of a sequence.
        seed: Seed of everything.
        shard_size: Sequences of a shard; a process holds one shard in memory.
        batch_size: Worlds that run side by side in one process.
        whole_episodes: Whether episodes run to their end and are cut into sequences, or each sequence is the
            start of an episode; see `Recorder`.
        streams: Whether sequences go on across resets, which they mark; for episodes of any length.

    Raises:
        ConfigError: If a value makes no sense.
    """

    num_train: int
    num_valid: int
    num_test: int
    number_of_frames: int = 51
    seed: int = 0
    shard_size: int = 500
    batch_size: int = 250
    whole_episodes: bool = False
    streams: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 0, "num_train", "num_valid", "num_test", "seed")
        check_at_least(self, 1, "shard_size", "batch_size")
        check_at_least(self, 2, "number_of_frames")
        if not any(self.sequences.values()):
            raise ConfigError(
                "num_train, num_valid and num_test are all 0, expected a sequence in one of them"
            )

    @property
    def sequences(self) -> dict[Split, int]:
        """The number of sequences of each split."""
        return dict(zip(SPLITS, (self.num_train, self.num_valid, self.num_test), strict=True))


@dataclass(frozen=True)
class _Job:
    """One shard to collect, with all that a process needs for it."""

    split: Split
    number: int
    size: int
    path: Path
    config: CollectorConfig
    source: Source


def collect_dataset(
    source: Source,
    config: CollectorConfig,
    out: Path,
    *,
    workers: int = 1,
    progress: bool = True,
    keep_shards: bool = False,
    overwrite: bool = False,
) -> Path:
    """Collects a dataset.

    Shards are written one by one into ``<out>.parts``, and at the end joined in ``out``. If the collection is
    interrupted, the same call later goes on with the shards that are missing.

    Args:
        source: What is recorded.
        config: How much of it.
        out: The file to write, or with ``keep_shards`` the folder.
        workers: Processes; with 1 this process does it all.
        progress: Whether to show a progress bar on a terminal.
        keep_shards: Whether to leave a folder of shards, which can be read as one dataset.
        overwrite: Whether ``out`` may exist and be replaced.

    Returns:
        ``out``.

    Raises:
        ConfigError: If ``workers`` makes no sense.
        DataError: If the environment doesn't suit, or the parts of another collection are in the way.
        OutputError: If the dataset can't be written, exists, is being collected already, or a process died.
    """
    if workers < 1:
        raise ConfigError(f"workers is {workers}, expected at least 1")
    out = Path(out).absolute()
    parts, size = out.with_name(f"{out.name}.parts"), config.shard_size
    settings = {"config": asdict(config), "attributes": source.attributes.to_hdf5()}
    with _reserved(out, parts, settings, overwrite):
        jobs = [
            _Job(
                split, number, min(size, sequences - start), parts / shard_name(split, number), config, source
            )
            for split, sequences in config.sequences.items()
            for number, start in enumerate(range(0, sequences, size))
        ]
        missing = [job for job in jobs if not _is_finished(job)]
        total = sum(job.size for job in jobs)
        done = total - sum(job.size for job in missing)
        with tqdm(total=total, initial=done, unit="sequence", disable=None if progress else True) as bar:
            for job in _run(missing, workers):
                bar.update(job.size)
        if keep_shards:
            put_in_place(parts, out)
            with writing(out):
                (out / SETTINGS_FILE).unlink()
        else:
            with writing(out):
                if out.is_dir():
                    shutil.rmtree(out)
            merge_shards([job.path for job in jobs], out)
            with writing(parts):
                shutil.rmtree(parts)
    return out


def shard_name(split: Split, number: int) -> str:
    """Returns the file name of a shard; sorted by name, the shards of a split are in their order."""
    return f"{split}-{number:05d}.h5"


def check_out_is_free(out: Path, overwrite: bool, sources: Iterable[Path] = ()) -> None:
    """Checks that a dataset may be written.

    Args:
        out: The file or folder to write.
        overwrite: Whether it may replace an earlier dataset.
        sources: Files and folders that it is made of, which are never replaced, nor what is in them but datasets.

    Raises:
        OutputError: If it exists and may not be replaced.
    """
    if not out.exists():
        return
    for source in sources:
        inside = source.is_dir() and source.resolve() in out.resolve().parents
        if source.exists() and (out.samefile(source) or (inside and out.suffix not in SUFFIXES)):
            raise OutputError(
                f"{out} is what the dataset is to be made of ({source}); choose another name with --out"
            )
    if not overwrite:
        raise OutputError(f"{out} exists already; choose another name with --out, or give --overwrite")
    if out.is_dir():
        names = [entry.name for entry in out.iterdir()]
        others = [name for name in names if not SHARD_NAME.fullmatch(name) and name != SETTINGS_FILE]
        if others:
            raise OutputError(f"{out} is a folder with {others[0]!r} in it, no shard; choose another name")


@contextmanager
def _reserved(out: Path, parts: Path, settings: Mapping[str, Any], overwrite: bool) -> Iterator[None]:
    """Holds a folder of parts for one collection alone, and sees to it that its parts are of that collection.

    What a killed process left half-written is removed. A folder without a finished part doesn't stay behind.

    Raises:
        DataError: If another collection left parts with other settings.
        OutputError: If ``out`` exists, another collection is writing there, or the folder can't be written.
    """
    text = json.dumps(settings, sort_keys=True, indent=1)
    path = parts / SETTINGS_FILE
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with Lock(out.with_name(f".{out.name}.lock"), f"{out} is being collected"):
        tidy_folders(out.parent, out.name)
        check_out_is_free(out, overwrite)
        with writing(parts):
            parts.mkdir(exist_ok=True)
            found = path.read_text() if path.exists() else ""
        if found and found != text and any(parts.glob("[!.]*.h5")):
            raise DataError(
                f"{parts} holds the parts of a collection with other settings; finish that one with its own "
                "settings, or delete the folder, or choose another name"
            )
        try:
            with writing(parts):
                if found != text:
                    for leftover in parts.glob("*.h5"):  # of no settings: they can't be trusted
                        leftover.unlink()
                    path.write_text(text)
                for orphan in parts.glob(".*.tmp*"):
                    orphan.unlink(missing_ok=True)
            yield
        finally:
            if not any(parts.glob("[!.]*.h5")):
                shutil.rmtree(parts, ignore_errors=True)


def _run(jobs: list[_Job], workers: int) -> Iterator[_Job]:
    """Does the jobs, in this process or in several, and yields each as it is finished."""
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            yield _collect_shard(job)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)), mp_context=context, initializer=_prepare_worker, initargs=(stop,)
    )
    try:
        for future in as_completed([pool.submit(_collect_shard, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise OutputError(
            "a collecting process was killed (perhaps for lack of memory); the finished shards are kept: run "
            "the same command again, perhaps with fewer workers"
        ) from error
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


_stop: Event | None = None
"""In a collecting process: set when it shall give up. The pool has no other way to hand it over."""


def _prepare_worker(stop: Event) -> None:
    """Prepares a collecting process: it ends when told to or when its parent has died, not with Ctrl-C."""
    global _stop  # noqa: PLW0603
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _stopped() -> bool:
    return _stop is not None and _stop.is_set()


def _collect_shard(job: _Job) -> _Job:
    """Collects one shard and writes it, whole or not at all."""
    config = job.config
    # All shards of a dataset use environments of one size: an agent's draws depend on it.
    num_envs = min(config.batch_size, config.shard_size, max(config.sequences.values()))
    attributes, runs_on = job.source.attributes, config.whole_episodes or config.streams
    recorder = Recorder(
        config.number_of_frames,
        job.size,
        attributes.maximum_value,
        with_actions=runs_on or (attributes.number_of_actions or 0) > 1,
        whole_episodes=config.whole_episodes,
        streams=config.streams,
        action_space=attributes.action_space,
    )
    keys = (job.split, job.number)
    with closing(job.source.make_vector_env(num_envs)) as env:
        for start in range(1) if runs_on else range(0, job.size, num_envs):
            agent = job.source.make_agent(env, numpy_generator(config.seed, "agent", *keys, start))
            seeds = [derive_seed(config.seed, *keys, start + row) for row in range(num_envs)]
            recorder.record(env, agent, seeds, _stopped)
    write_shard(job.path, {job.split: recorder.episodes()}, attributes)
    return job


def _is_finished(job: _Job) -> bool:
    """Says whether a shard is there; a damaged one is removed."""
    if not job.path.exists():
        return False
    try:
        with Dataset.open(job.path) as dataset:
            info = dataset.info(job.split)
            if (info.number_of_sequences, info.number_of_frames) == (job.size, job.config.number_of_frames):
                return True
    except DataError:
        pass
    job.path.unlink()
    return False

"""Collecting a dataset from any Gymnasium vector environment, by several processes, shard by shard.

A shard depends on the settings and its number only, so that the dataset is the same for any number of
processes, and a collection that was interrupted goes on where it was.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rnem_world.data.cutting import EpisodeCutter
from rnem_world.data.parts import become_dataset, check_free, remove, reserved, shard_name
from rnem_world.data.recording import RecordableAgent, RecordableEnv, Recorder
from rnem_world.data.schema import DatasetAttributes
from rnem_world.data.storage import Dataset, merge_shards, write_shard
from rnem_world.errors import ConfigError, DataError, OutputError
from rnem_world.seeding import derive_seed, numpy_generator
from rnem_world.types import SPLITS, Split

MakeVectorEnv = Callable[[int], RecordableEnv]
MakeAgent = Callable[[Any, np.random.Generator], RecordableAgent]


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
        whole_episodes: Whether episodes run to their end and are cut into sequences (`EpisodeCutter`), or each
            sequence is the start of an episode.

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

    def __post_init__(self) -> None:
        least = {
            "num_train": 0,
            "num_valid": 0,
            "num_test": 0,
            "number_of_frames": 2,
            "seed": 0,
            "shard_size": 1,
            "batch_size": 1,
        }
        for name, minimum in least.items():
            value = getattr(self, name)
            if value < minimum:
                raise ConfigError(f"{name} is {value}, expected at least {minimum}")
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
    attributes: DatasetAttributes
    make_vector_env: MakeVectorEnv
    make_agent: MakeAgent


def collect(
    make_vector_env: MakeVectorEnv,
    make_agent: MakeAgent,
    config: CollectorConfig,
    out: Path,
    workers: int,
    attributes: DatasetAttributes,
    progress: bool = True,
    keep_shards: bool = False,
    overwrite: bool = False,
) -> Path:
    """Collects a dataset.

    Shards are written one by one into ``<out>.parts``, and at the end joined in ``out``. If the collection is
    interrupted, the same call later goes on with the shards that are missing.

    Args:
        make_vector_env: Makes a vector environment of the given number; picklable. An episode must last at
            least ``config.number_of_frames`` steps; for ``config.whole_episodes`` the environment must not reset
            by itself.
        make_agent: Makes an agent for the environment, with a random generator; picklable.
        config: How much to collect.
        out: The file to write, or with ``keep_shards`` the folder.
        workers: Processes; with 1 this process does it all.
        attributes: What the dataset says about itself.
        progress: Whether to show a progress bar on a terminal.
        keep_shards: Whether to leave a folder of shards, which can be read as one dataset.
        overwrite: Whether ``out`` may exist and be replaced.

    Returns:
        ``out``.

    Raises:
        ConfigError: If ``workers`` makes no sense.
        DataError: If the environment doesn't suit, or the parts of another collection are in the way.
        OutputError: If the dataset can't be written, exists, or a process died.
    """
    if workers < 1:
        raise ConfigError(f"workers is {workers}, expected at least 1")
    out = Path(out)
    check_free(out, overwrite)
    parts = out.with_name(f"{out.name}.parts")
    with reserved(parts, {"config": asdict(config), "attributes": attributes.to_hdf5()}):
        jobs = _jobs(parts, config, attributes, make_vector_env, make_agent)
        missing = [job for job in jobs if not _is_finished(job)]
        total = sum(job.size for job in jobs)
        done = total - sum(job.size for job in missing)
        with tqdm(total=total, initial=done, unit="sequence", disable=None if progress else True) as bar:
            for job in _run(missing, workers):
                bar.update(job.size)
        if keep_shards:
            become_dataset(parts, out)
        else:
            if out.is_dir():
                remove(out)
            merge_shards([job.path for job in jobs], out)
            remove(parts)
    return out


def _jobs(
    parts: Path,
    config: CollectorConfig,
    attributes: DatasetAttributes,
    make_vector_env: MakeVectorEnv,
    make_agent: MakeAgent,
) -> list[_Job]:
    jobs = []
    for split, sequences in config.sequences.items():
        for number, start in enumerate(range(0, sequences, config.shard_size)):
            size = min(config.shard_size, sequences - start)
            path = parts / shard_name(split, number)
            jobs.append(_Job(split, number, size, path, config, attributes, make_vector_env, make_agent))
    return jobs


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
    recorder: Recorder | EpisodeCutter
    if config.whole_episodes:
        recorder = EpisodeCutter(config.number_of_frames, job.size, job.attributes.maximum_value)
        starts = range(1)
    else:
        recorder = Recorder(
            config.number_of_frames, job.size, job.attributes.number_of_actions, job.attributes.maximum_value
        )
        starts = range(0, job.size, num_envs)
    with closing(job.make_vector_env(num_envs)) as env:
        for start in starts:
            keys = (job.split, job.number)
            agent = job.make_agent(env, numpy_generator(config.seed, "agent", *keys, start))
            seeds = [derive_seed(config.seed, *keys, start + row) for row in range(num_envs)]
            recorder.record(env, agent, seeds, _stopped)
    write_shard(job.path, {job.split: recorder.episodes()}, job.attributes)
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

"""How fast the loader is, beside the training that it feeds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from rnem_world.data.batch import Batch
from rnem_world.data.dataset import Dataset
from rnem_world.data.loader import SequenceLoader
from rnem_world.errors import ConfigError
from rnem_world.models.world_model import WorldModel
from rnem_world.training import checkpoint
from rnem_world.training.config import RunConfig
from rnem_world.training.learner import Learner
from rnem_world.training.setup import make_loader


@dataclass(frozen=True)
class LoaderBenchmarkConfig:
    """What is measured.

    Attributes:
        batches: Batches that are read without training.
        updates: Updates that are made with each source of data.
    """

    batches: int = 50
    updates: int = 3

    def __post_init__(self) -> None:
        for name in ("batches", "updates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, it must be at least 1")


def compare_loader(
    dataset: Dataset, config: RunConfig, device: torch.device, how: LoaderBenchmarkConfig
) -> dict[str, Any]:
    """Measures the loader from memory and from files, and the training that takes its batches.

    Args:
        dataset: The data; its training split is read.
        config: The run, as :func:`rnem_world.training.setup.fit_model_to` completes it.
        device: Where to train.
        how: How much to measure.

    Returns:
        Ready for JSON. Of each source, ``memory`` (if the split fits) and ``files``: sequences a second, the loader
        alone; that as a multiple of what training takes; and the share of time that training waits. And of
        ``training``: sequences a second, the median over all updates.
    """
    model = checkpoint.to_device(WorldModel(config.model), device)
    learner = Learner(model, config)
    loaders = {
        "memory": make_loader(dataset, "training", config, config.training.train_size),
        "files": make_loader(
            dataset,
            "training",
            replace(config, training=replace(config.training, memory_gigabytes=0.0)),
            config.training.train_size,
        ),
    }
    if not loaders["memory"].in_memory:
        del loaders["memory"]
    size = config.training.batch_size
    result: dict[str, Any] = {}
    learning: list[float] = []
    learner.learn(next(_endless(next(iter(loaders.values())))), 0, False)  # the first is slower
    for name, loader in loaders.items():
        batches = _endless(loader)
        next(batches)
        started = time.perf_counter()
        for _ in range(how.batches):
            next(batches)
        rate = how.batches * size / (time.perf_counter() - started)
        waited, learned = 0.0, []
        for update in range(how.updates):
            started = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - started
            started = time.perf_counter()
            learner.learn(batch, update, False)
            learned.append(time.perf_counter() - started)
        result[name] = {"sequences_per_second": rate, "waiting": waited / (waited + sum(learned))}
        learning += learned
    training = size / statistics.median(learning)
    for name in loaders:
        result[name]["times_training"] = result[name]["sequences_per_second"] / training
    return {**result, "training": {"sequences_per_second": training}}


def _endless(loader: SequenceLoader) -> Iterator[Batch]:
    """Goes through epoch after epoch."""
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1

"""How fast training is: its step beside the plain model and a matrix product, and the loader that feeds it."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch.utils.flop_counter import FlopCounterMode

from rnem_world.benchmarks.plain import PlainModel
from rnem_world.config import Precision, check_at_least, check_one_of
from rnem_world.data.dataset import Dataset
from rnem_world.data.loader import Batch, SequenceLoader
from rnem_world.device import check_execution, execute_layers
from rnem_world.errors import ConfigError, suggest
from rnem_world.models.config import ARCHITECTURES, ImageArchitecture, LossConfig, ModelConfig
from rnem_world.models.layers import has_onednn
from rnem_world.models.world_model import WorldModel
from rnem_world.training import checkpoint
from rnem_world.training.config import HeadLossConfig, OptimizerConfig, RunConfig
from rnem_world.training.learner import Learner, make_optimizer
from rnem_world.training.losses import SequenceBatch, SequenceLoss
from rnem_world.training.presets import make_loader

Variant = Literal["plain", "ours"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
PRODUCT_SIZE = 2048


@dataclass(frozen=True)
class StepBenchmarkConfig:
    """What is measured.

    Attributes:
        architecture: A convolutional architecture.
        batch_size: Number of sequences.
        slots: Number of slots.
        steps: Predictions in a sequence.
        threads: Threads of a process.
        pairs: How often both models make a step, in turns.
        precision: Of the products and convolutions in our step, as in training; the plain one rounds nothing.

    Raises:
        ConfigError: If a value makes no sense, or this processor has no such precision.
    """

    architecture: str = "conv64"
    batch_size: int = 16
    slots: int = 5
    steps: int = 30
    threads: int = 1
    pairs: int = 3
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "batch_size", "slots", "steps", "threads", "pairs")
        known = [name for name, image in ARCHITECTURES.items() if isinstance(image, ImageArchitecture)]
        if self.architecture not in known:
            raise ConfigError(
                f"architecture {self.architecture!r} has no plain version: {suggest(self.architecture, known)}"
            )
        ModelConfig(architecture=self.architecture, slots=self.slots)
        check_one_of(self, "precision", get_args(Precision))
        check_execution(torch.device("cpu"), self.precision, compiled=False)


@contextlib.contextmanager
def running_threads(number: int) -> Iterator[None]:
    """Sets the number of threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_step(variant: Variant, config: StepBenchmarkConfig) -> Callable[[], float]:
    """Makes a whole training step: forward, backward and Adam, on random frames with noise.

    Returns:
        A function that makes a step and returns its loss. Both variants start with the same weights and see the same
        frames.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = WorldModel(ModelConfig(architecture=config.architecture, slots=config.slots))
    if variant == "ours":
        execute_layers(model.train(), config.precision, compiled=False)
    size, steps = model.config.frame_size[0], config.steps
    frames = (torch.rand(config.batch_size, steps + 1, 1, size, size, generator=generator) < 0.1).float()
    flips = torch.rand(config.batch_size, steps, 1, size, size, generator=generator) < 0.2
    state = model.initial_state(config.batch_size, generator=generator)
    plain = PlainModel(model)
    loss = SequenceLoss(model, LossConfig(), HeadLossConfig())
    batch, weights = SequenceBatch(frames, flips), torch.ones(steps)
    optimizer = make_optimizer((plain if variant == "plain" else model).parameters(), OptimizerConfig())

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        value = plain(state, frames, flips).loss if variant == "plain" else loss(state, batch, weights).loss
        value.backward()
        optimizer.step()
        return float(value.detach())

    return step


def seconds(function: Callable[[], object]) -> float:
    """Measures one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def floating_point_operations(step: Callable[[], object]) -> int:
    """Counts the operations of convolutions and matrix products in a call, two for a multiplication and addition."""
    mapping: dict[Any, Any] = {}
    if has_onednn():
        mapping[torch.ops.mkldnn._linear_pointwise] = _affine_operations
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        step()
    return int(counter.get_total_flops())


def _affine_operations(inputs: torch.Size, weight: torch.Size, *others: object, **options: object) -> int:
    return 2 * inputs.numel() * weight[0]


def peak_memory(variant: Variant, config: StepBenchmarkConfig) -> int:
    """Measures the most memory that a process holds which makes one training step, in bytes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(_peak_memory_here, variant, config).result()


def _peak_memory_here(variant: Variant, config: StepBenchmarkConfig) -> int:
    with running_threads(config.threads):
        make_step(variant, config)()
    status = Path("/proc/self/status")
    if status.exists():  # Linux: ru_maxrss would count the parent's memory too
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def compare_steps(config: StepBenchmarkConfig) -> dict[str, Any]:
    """Measures both models in turns, so that whatever else the machine does meets both.

    Returns:
        Medians over pairs, ready for JSON: per variant seconds, floating-point operations and their rate, peak memory;
        the ratio of seconds within pairs; the rate of a large float32 matrix product between the pairs; and how much
        quicker our step is with two threads than with one.
    """
    steps = {variant: make_step(variant, config) for variant in VARIANTS}
    square = torch.rand(PRODUCT_SIZE, PRODUCT_SIZE)
    times: dict[str, list[float]] = {"plain": [], "ours": [], "product": []}
    threads: dict[int, list[float]] = {1: [], 2: []}
    with running_threads(config.threads):
        operations = {variant: floating_point_operations(step) for variant, step in steps.items()}
        torch.mm(square, square)
        for pair in range(config.pairs):
            for variant in VARIANTS if pair % 2 == 0 else VARIANTS[::-1]:
                times[variant].append(seconds(steps[variant]))
            times["product"].append(seconds(lambda: torch.mm(square, square)))
    for _ in range(config.pairs):
        for number, taken in threads.items():
            with running_threads(number):
                taken.append(seconds(steps["ours"]))
    product_rate = 2 * PRODUCT_SIZE**3 / statistics.median(times["product"]) / 1e9
    result: dict[str, Any] = {}
    for variant in VARIANTS:
        median = statistics.median(times[variant])
        rate = operations[variant] / median / 1e9
        result[variant] = {
            "seconds": median,
            "gigaflop": operations[variant] / 1e9,
            "gigaflop_per_second": rate,
            "share_of_matrix_product": rate / product_rate,
            "peak_memory_bytes": peak_memory(variant, config),
        }
    return {
        **result,
        "ratio": _ratio(times["plain"], times["ours"]),
        "matrix_product_gigaflop_per_second": product_rate,
        "two_threads_ratio": _ratio(threads[1], threads[2]),
    }


def _ratio(first: list[float], second: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def compare_loader(
    dataset: Dataset, config: RunConfig, device: torch.device, batches: int = 50, updates: int = 3
) -> dict[str, Any]:
    """Measures the loader from memory and from files, and the training that takes its batches.

    Args:
        dataset: The data; its training split is read.
        config: The run, as :func:`rnem_world.training.presets.fit_model_to` completes it.
        device: Where to train.
        batches: Batches that are read without training.
        updates: Updates that are made with each source of data.

    Returns:
        Ready for JSON. Of each source, ``memory`` (if the split fits) and ``files``: sequences a second, the loader
        alone; that as a multiple of what training takes; and the share of time that training waits. And of
        ``training``: sequences a second, the median over all updates.

    Raises:
        ConfigError: If there are no batches or updates to measure.
    """
    if min(batches, updates) < 1:
        raise ConfigError(f"batches is {batches} and updates {updates}, they must be at least 1")
    model = checkpoint.to_device(WorldModel(config.model), device)
    learner = Learner(model, config)
    from_files = replace(config, training=replace(config.training, memory_gigabytes=0.0))
    loaders = {
        "memory": make_loader(dataset, "training", config, config.training.train_size),
        "files": make_loader(dataset, "training", from_files, config.training.train_size),
    }
    if not loaders["memory"].in_memory:
        del loaders["memory"]
    size = config.training.batch_size
    result: dict[str, Any] = {}
    learning: list[float] = []
    learner.learn(next(_endless(next(iter(loaders.values())))), 0, False)  # the first is slower
    for name, loader in loaders.items():
        stream = _endless(loader)
        next(stream)
        started = time.perf_counter()
        for _ in range(batches):
            next(stream)
        rate = batches * size / (time.perf_counter() - started)
        waited, learned = 0.0, []
        for update in range(updates):
            started = time.perf_counter()
            batch = next(stream)
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

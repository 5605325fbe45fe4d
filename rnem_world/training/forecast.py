"""What a training will cost on this machine, measured before it begins on the first steps of a batch, by a copy."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from rnem_world.data.loader import Batch, SequenceLoader
from rnem_world.errors import TrainingError
from rnem_world.models.world_model import WorldModel
from rnem_world.training.config import RunConfig
from rnem_world.training.learner import Learner

_PART, _WARM_UP_PART = 5, 16
"""A fifth of the steps is measured, where there are no chunks; a sixteenth of the sequences warms up before."""

_FORWARD_SHARE = 0.5
"""What an evaluation costs of an update of as many sequences."""


@dataclass(frozen=True)
class Cost:
    """What a training will cost; seconds are those of computing, without waiting for data.

    Attributes:
        batch_seconds: A batch at the beginning.
        late_batch_seconds: A batch once the model trains on its own frames or its prior code; None if it never does, or
            does from the beginning.
        late_after: Updates before that.
        batches: Batches in an epoch.
        updates_per_batch: Updates from a batch.
        validation_seconds: A validation.
        model_bytes: Weights, gradients and what the optimizer keeps.
        activation_bytes: What is kept of a forward pass for the backward pass, at most.
        data_bytes: Data that is kept in memory, of training and validation.
    """

    batch_seconds: float
    late_batch_seconds: float | None
    late_after: int
    batches: int
    updates_per_batch: int
    validation_seconds: float
    model_bytes: int
    activation_bytes: int
    data_bytes: int

    def epoch_seconds(self, late: bool = False) -> float:
        """Gives the time of an epoch and its validation."""
        batch = (
            self.late_batch_seconds if late and self.late_batch_seconds is not None else self.batch_seconds
        )
        return self.batches * batch + self.validation_seconds


def forecast(
    model: WorldModel, config: RunConfig, training: SequenceLoader, validation: SequenceLoader
) -> Cost | None:
    """Measures what a training will cost; model, random numbers and data stay as they are.

    Args:
        model: The model, on its device.
        config: The run.
        training: Gives the batches of this process.
        validation: Gives the sequences to validate on.

    Returns:
        The cost; None if the loss isn't finite, which training itself will complain of.
    """
    options = config.training
    batches = training.epoch(0)
    batch = next(batches)
    batches.close()  # type: ignore[attr-defined]  # a generator, whose thread ends now
    steps = options.chunk_steps or -(-options.sequence_steps // _PART)
    late_after = _late_after(config)
    try:
        _learn(model, config, _cut(batch, _WARM_UP_PART, steps), 0)
        part = _cut(batch, 1, steps)
        seconds, kept = _learn(model, config, part, 0)
        late_seconds = None
        if late_after:
            late_seconds, late_kept = _learn(model, config, part, late_after)
            kept = max(kept, late_kept)
    except TrainingError:
        return None
    scale = options.sequence_steps / steps
    size = batch.frames.shape[0]
    parameters = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return Cost(
        batch_seconds=seconds * scale,
        late_batch_seconds=None if late_seconds is None else late_seconds * scale,
        late_after=late_after,
        batches=len(training),
        updates_per_batch=options.sequence_steps // (options.chunk_steps or options.sequence_steps),
        validation_seconds=_FORWARD_SHARE * seconds * scale * validation.number_of_sequences / size,
        model_bytes=(4 if options.optimizer.name in ("adam", "adadelta") else 3) * parameters,
        activation_bytes=round(kept * (1 if options.chunk_steps else scale) / options.accumulate),
        data_bytes=training.bytes_in_memory + validation.bytes_in_memory,
    )


def _late_after(config: RunConfig) -> int:
    """Says after how many updates training begins to cost more; 0 if it doesn't."""
    options = config.training
    begins = [options.closed_loop.after_updates] if options.closed_loop.fraction > 0.0 else []
    begins += [options.prior_code.after_updates] if config.model.prior_code else []
    return max(begins, default=0)


def _learn(model: WorldModel, config: RunConfig, batch: Batch, updates: int) -> tuple[float, int]:
    """Lets a copy of the model learn from a batch; gives the seconds, and the bytes that were kept at most."""
    rows, frames = batch.frames.shape[:2]
    options = replace(
        config.training,
        batch_size=rows,
        accumulate=1,
        sequence_steps=frames - 1,
        step_weights="all",
        chunk_steps=None,
        execution=replace(
            config.training.execution, compile=False
        ),  # compiling takes longer than all of this
    )
    learner = Learner(copy.deepcopy(model), replace(config, training=options))
    device = next(model.parameters()).device
    _wait_for(device)
    started = time.perf_counter()
    with _counted(learner.model) as kept:
        learner.learn(batch, updates, with_score=False)
    _wait_for(device)
    return time.perf_counter() - started, kept.peak


def _cut(batch: Batch, part: int, steps: int) -> Batch:
    """Takes the first steps of a part of the sequences."""
    rows = -(-batch.frames.shape[0] // part)
    taken: dict[str, Any] = {
        entry.name: value[:rows] if value.ndim == 1 else value[:rows, : steps + 1]
        for entry in fields(batch)
        if isinstance(value := getattr(batch, entry.name), Tensor)
    }
    return replace(batch, **taken)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Kept:
    """Counts the bytes that are kept for the backward pass; a tensor that is kept several times counts once."""

    def __init__(self, model: nn.Module) -> None:
        self.peak = self._now = 0
        self._times: Counter[int] = Counter()
        self._weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def add(self, tensor: Tensor) -> _Saved:
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place in self._weights:
            size = 0
        if not self._times[place]:
            self._now += size
            self.peak = max(self.peak, self._now)
        self._times[place] += 1
        return _Saved(tensor, self, place, size)

    def remove(self, place: int, size: int) -> None:
        self._times[place] -= 1
        if not self._times[place]:
            del self._times[place]
            self._now -= size


class _Saved:
    """A tensor that is kept, until nobody needs it."""

    def __init__(self, tensor: Tensor, kept: _Kept, place: int, size: int) -> None:
        self.tensor, self._kept, self._place, self._size = tensor, kept, place, size

    def __del__(self) -> None:
        self._kept.remove(self._place, self._size)


@contextmanager
def _counted(model: nn.Module) -> Iterator[_Kept]:
    kept = _Kept(model)
    with torch.autograd.graph.saved_tensors_hooks(kept.add, lambda saved: saved.tensor):
        yield kept


def describe_cost(cost: Cost, config: RunConfig) -> Iterator[str]:
    """Says in lines for people what a training will cost."""
    options = config.training
    each = f", {cost.updates_per_batch} updates each" if cost.updates_per_batch > 1 else ""
    line = (
        f"an epoch: {cost.batches} batches of {options.batch_size} sequences{each}, about "
        f"{duration(cost.epoch_seconds())} on this machine"
    )
    if cost.late_batch_seconds is not None:
        line += f", {duration(cost.epoch_seconds(late=True))} once all parts train, after update {cost.late_after:,}"
    epochs = _epochs(cost, config)
    if epochs > 1.0:
        late = cost.late_batch_seconds is not None
        line += f"; {epochs:.3g} epochs at most: {duration(epochs * cost.epoch_seconds(late))}"
    yield line
    total = cost.model_bytes + cost.activation_bytes + cost.data_bytes
    data = f"{cost.data_bytes / 1e9:.2g} data" if cost.data_bytes else "the data is read as it goes"
    yield (
        f"memory: about {total / 1e9:.2g} GB beside the program ({cost.activation_bytes / 1e9:.2g} for the backward "
        f"pass, {cost.model_bytes / 1e9:.2g} model and optimizer, {data})"
    )


def _epochs(cost: Cost, config: RunConfig) -> float:
    """Says after how many epochs training ends, if nothing ends it before."""
    limit = config.training.max_updates
    if limit is None:
        return float(config.training.epochs)
    return min(float(config.training.epochs), limit / (cost.batches * cost.updates_per_batch))


def duration(seconds: float | int) -> str:
    """Writes a time so that one sees how long it is: ``40 s``, ``12 min``, ``3.5 h``, ``2.1 days``."""
    for size, unit, limit in ((1, "s", 90), (60, "min", 90 * 60), (3600, "h", 48 * 3600)):
        if seconds < limit:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds / 86400:.2g} days"

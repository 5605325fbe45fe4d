"""What a graphics card makes of an update of the paper's model: in each precision, and as one CUDA graph."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor

from rnem_world.benchmarks.gpu_report import WARM_UP, Report, Sizes
from rnem_world.benchmarks.plain import PlainModel
from rnem_world.benchmarks.training import floating_point_operations
from rnem_world.config import Precision
from rnem_world.data.loader import Batch
from rnem_world.device import execute_layers, has_bfloat16, has_tf32, multiplying
from rnem_world.models.layers import own_precision
from rnem_world.models.world_model import SlotState, WorldModel
from rnem_world.training import checkpoint
from rnem_world.training.config import ExecutionConfig, RunConfig
from rnem_world.training.learner import Learner
from rnem_world.training.losses import SequenceBatch, SequenceLoss
from rnem_world.training.presets import paper_model


def measure_training(report: Report) -> None:
    """Measures an update of the paper's model: in each precision, and replayed as one CUDA graph."""
    device, sizes = report.device, report.sizes
    precisions = _precisions(device)
    operations: dict[int, int] = {}

    def run(
        way: str, precision: Precision, batch: int, step: Callable[[RunConfig], Callable[[], object]]
    ) -> None:
        config = _paper(sizes, batch, ExecutionConfig(precision))

        def figures() -> dict[str, Any]:
            begin = time.perf_counter()
            update = step(config)
            first = time.perf_counter() - begin
            if way == "as it is" and precision == "float32":
                operations[batch] = floating_point_operations(update)
            seconds = report.time(update, 3 * sizes.seconds)
            found = {"ms": round(1e3 * seconds, 2), "sequences_per_second": round(batch / seconds, 1)}
            # Ours needs fewer than the model written plainly; the rate is by our own.
            found["tflop_per_second"] = round(operations.get(batch, 0) / seconds / 1e12, 2)
            return found | {"set_up_seconds": round(first, 1)}

        report.measure({"way": way, "precision": precision, "batch": batch}, figures)

    for batch in sizes.batches:
        for precision in precisions:
            run("as it is", precision, batch, lambda config: _learning(config, device))
        run("written plainly", "float32", batch, lambda config: _plain_step(config, device))
        if device.type == "cuda":
            for precision in precisions:
                run("CUDA graph", precision, batch, lambda config: _graphed_update(config, device))


def measure_compiled(report: Report) -> None:
    """Measures updates with compiled layers. Compiling takes long, and needs a compiler: it is a part of its own."""
    for batch, precision in itertools.product(report.sizes.batches[::-1], _precisions(report.device)[::-1]):
        config = _paper(report.sizes, batch, ExecutionConfig(precision, compile=True))

        def figures(config: RunConfig = config) -> dict[str, Any]:
            begin = time.perf_counter()
            update = _learning(config, report.device)
            first = time.perf_counter() - begin
            seconds = report.time(update, 3 * report.sizes.seconds)
            rate = round(config.training.batch_size / seconds, 1)
            return {
                "ms": round(1e3 * seconds, 2),
                "sequences_per_second": rate,
                "set_up_seconds": round(first, 1),
            }

        report.measure({"way": "compiled", "precision": precision, "batch": batch}, figures)


def _precisions(device: torch.device) -> list[Precision]:
    """Lists the precisions that a device has, the coarsest last."""
    has = {"float32": True, "tf32": has_tf32(device), "bf16": has_bfloat16(device)}
    return [precision for precision in get_args(Precision) if has[precision]]


def _paper(sizes: Sizes, batch: int, execution: ExecutionConfig) -> RunConfig:
    config = paper_model(options={"training": {"batch_size": batch, "sequence_steps": sizes.steps}})
    return replace(
        config,
        model=replace(config.model, architecture=sizes.architecture),
        training=replace(config.training, execution=execution),
    )


def _frames(config: RunConfig) -> Tensor:
    size, generator = config.model.frame_size[0], torch.Generator().manual_seed(0)
    shape = (config.training.batch_size, config.training.sequence_steps + 1, 1, size, size)
    return (torch.rand(shape, generator=generator) < 0.1).to(torch.uint8)


def _learning(config: RunConfig, device: torch.device) -> Callable[[], object]:
    """Makes the trainer's own updates, from frames on the host."""
    learner = Learner(checkpoint.to_device(WorldModel(config.model), device), config)
    frames = _frames(config)
    batch = Batch(frames=frames, indices=torch.arange(len(frames)))

    def update() -> object:
        return learner.learn(batch, 0, with_score=False)

    update()
    return update


def _on_device(config: RunConfig, device: torch.device) -> tuple[WorldModel, SlotState, Tensor, Tensor]:
    """Makes a model, its slots, frames and noise."""
    model = checkpoint.to_device(WorldModel(config.model), device).train()
    frames = model.likelihood.from_uint8(_frames(config).to(device), 1)
    generator = torch.Generator(device).manual_seed(0)
    state = model.initial_state(len(frames), generator=generator)
    shape = frames[:, :-1].shape
    noise = torch.rand(shape, generator=generator, device=device) < config.training.noise.strength
    return model, state, frames, noise


def _plain_step(config: RunConfig, device: torch.device) -> Callable[[], object]:
    """Makes steps of the model written plainly."""
    model, state, frames, noise = _on_device(config, device)
    plain = PlainModel(model).to(device)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)

    @own_precision
    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = plain(state, frames, noise).loss
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    step()
    return step


def _graphed_update(config: RunConfig, device: torch.device) -> Callable[[], object]:
    """Makes updates that are captured once, forward, backward and Adam, and replayed as one CUDA graph.

    Noise and frames are copied to where the graph reads them, as a trainer would have to.

    Raises:
        RuntimeError: If the replayed loss isn't the one that the same weights have without a graph.
    """
    execution = config.training.execution
    model, state, frames, noise = _on_device(config, device)
    execute_layers(model, execution.precision, compiled=False)
    loss = SequenceLoss(model, config.training.loss, config.training.head_loss)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-8, capturable=True)
    weights = torch.ones(config.training.sequence_steps, device=device)
    from_host = _frames(config).pin_memory()
    given = SequenceBatch(frames, noise)

    def learn() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        result = loss(state, given, weights)
        result.loss.backward()
        optimizer.step()
        value: Tensor = result.loss.detach()
        return value

    with multiplying(execution.precision, device):
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                learn()
        torch.cuda.current_stream(device).wait_stream(aside)
        optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = learn()
        with torch.no_grad():
            expected = float(loss(state, given, weights).loss)
        graph.replay()
        found = float(captured)
        if abs(found - expected) > 0.02 * abs(expected):
            raise RuntimeError(f"the graph's loss is {found}, expected {expected}")

    def update() -> float:
        frames.copy_(from_host.to(device, non_blocking=True))
        noise.copy_(torch.rand(noise.shape, device=device) < config.training.noise.strength)
        graph.replay()
        return float(captured)

    return update

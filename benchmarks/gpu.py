"""What a graphics card makes of the program: training, learned worlds, planners, and the paper's model trained on it.

Usage: python -m rnem_world.benchmarks.gpu PART --out FILE.json [--device cuda] [--seconds 60] [--data DATASET]. Each
part prints its rows as they are measured and keeps the file up to date, so that a part that is stopped has measured
something. ``scripts/gpu_check`` runs them all. On the processor everything is tiny: that is only to test the program.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from rnem_world.agents.dynamics import LearnedDynamics
from rnem_world.api import evaluate
from rnem_world.benchmarks.plain import PlainModel
from rnem_world.benchmarks.planning import PLANNERS, decisions
from rnem_world.benchmarks.training import floating_point_operations
from rnem_world.config import Precision
from rnem_world.data.loader import Batch
from rnem_world.device import choose_device, execute_layers, has_bfloat16, has_tf32, multiplying
from rnem_world.envs.dream import DreamBatch
from rnem_world.envs.learned import LearnedVectorEnv
from rnem_world.envs.world import World
from rnem_world.io import write_json
from rnem_world.models.layers import own_precision
from rnem_world.models.world_model import DreamState, SlotState, WorldModel
from rnem_world.training import checkpoint
from rnem_world.training.config import ExecutionConfig, RunConfig
from rnem_world.training.learner import Learner
from rnem_world.training.losses import SequenceBatch, SequenceLoss
from rnem_world.training.presets import paper_model
from rnem_world.training.trainer import train

WARM_UP, FEWEST = 3, 3
"""Calls before anything is timed, and timed ones at least."""


@dataclass(frozen=True)
class Sizes:
    """How large things are.

    Attributes:
        architecture: Of the model that is trained.
        batches: Sequences in a batch.
        steps: Predictions in a sequence.
        dreams: Dreams side by side.
        chunks: Dreams that are stepped at once.
        planned: Environments that are planned for.
        planners: The planners.
        seconds: For which each thing is measured.
        valid: Sequences that the paper's model is evaluated on.
    """

    architecture: str = "conv64"
    batches: tuple[int, ...] = (16, 64)
    steps: int = 30
    dreams: tuple[int, ...] = (1, 256, 4096, 65_536)
    chunks: tuple[int, ...] = (1024, 4096, 16_384, 65_536)
    planned: tuple[int, ...] = (1, 16, 256)
    planners: tuple[str, ...] = (PLANNERS[0], PLANNERS[1], PLANNERS[3])
    seconds: float = 0.8
    valid: int = 200


TINY = Sizes(
    "conv32",
    (2,),
    2,
    (1, 4),
    (2, 4),
    (1,),
    ("mcts:simulations=9,horizon=2", "shooting:population=2,horizon=2"),
    0.01,
    4,
)


class Report:
    """Rows of figures, printed and kept in a file.

    Attributes:
        path: The file.
        device: The device.
        sizes: How large things are there.

    Args:
        path: The file.
        device: The device, whose memory is looked at.
        seconds: After which nothing new is begun.
    """

    def __init__(self, path: Path, device: torch.device, seconds: float) -> None:
        self.device = device
        self.sizes = TINY if device.type == "cpu" else Sizes()
        self.path, self._end = path, time.monotonic() + seconds
        self._rows: list[dict[str, Any]] = []
        self._save()

    @property
    def seconds_left(self) -> float:
        """Seconds until nothing new is begun."""
        return self._end - time.monotonic()

    def measure(self, names: dict[str, Any], figures: Callable[[], dict[str, Any]]) -> None:
        """Adds a row: its names, and the figures or why there are none. The other rows don't mind."""
        if self.seconds_left <= 0.0:
            found: dict[str, Any] = {"not measured": "no time was left"}
        else:
            self._clear_memory()
            try:
                found = figures() | self._memory()
            except Exception as error:  # whatever breaks on the card is what is asked for
                found = {"error": f"{type(error).__name__}: {str(error).strip()[:300]}"}
        self.add({**names, **found})

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row."""
        self._rows.append(row)
        print(json.dumps(row), flush=True)
        self._save()

    def _save(self) -> None:
        write_json(self.path, {"rows": self._rows})

    def _clear_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def _memory(self) -> dict[str, Any]:
        if self.device.type != "cuda":
            return {}
        return {"memory_gb": round(torch.cuda.max_memory_allocated(self.device) / 1e9, 3)}

    def wait(self) -> None:
        """Waits until the device has done its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def time(self, call: Callable[[], object], seconds: float | None = None) -> float:
        """Gives the median of a call's seconds, the device's work among them."""
        for _ in range(WARM_UP):
            call()
        self.wait()
        taken: list[float] = []
        end = time.perf_counter() + (self.sizes.seconds if seconds is None else seconds)
        while len(taken) < FEWEST or time.perf_counter() < end:
            begin = time.perf_counter()
            call()
            self.wait()
            taken.append(time.perf_counter() - begin)
        return statistics.median(taken)


# Training.


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


# Learned worlds.


def measure_environments(report: Report, checkpoint_name: str = "balls") -> None:
    """Measures dreams of every number: in torch on the device, as a CUDA graph, and as an environment in NumPy.

    Of the most, it is measured too how many are best stepped at once: `rnem_world.envs.world.LARGEST_CHUNK`.
    """
    device, sizes = report.device, report.sizes
    world, rng = World.load(checkpoint_name, device), np.random.default_rng(0)
    usual = world.chunk

    def measure(env: LearnedVectorEnv, what: str, make: Callable[[], Callable[[], object]]) -> None:
        def figures() -> dict[str, Any]:
            if not env.episodes.all_started:
                env.reset(seed=0)
            seconds = report.time(make())
            return {"us": round(1e6 * seconds, 1), "steps_per_second": round(env.num_envs / seconds)}

        names = {"dreams": env.num_envs, "imagination": env.dreams.imagination, "what": what}
        report.measure(names, figures)

    for number, imagination in itertools.product(sizes.dreams, world.ways):
        options: dict[str, Any] = {"device": device, "imagination": imagination, "engine": "torch"}
        slots, frames = (
            LearnedVectorEnv(number, checkpoint_name, obs_type=kind, **options) for kind in ("slots", "frame")
        )
        dreams = slots.dreams
        actions = torch.from_numpy(rng.integers(world.number_of_actions, size=number)).to(device)

        def numpy(env: LearnedVectorEnv) -> Callable[[], object]:
            return lambda: env.step(rng.integers(world.number_of_actions, size=env.num_envs))

        def step(dreams: DreamBatch = dreams, actions: Tensor = actions) -> Callable[[], object]:
            return lambda: dreams.step(actions)

        def drawn(dreams: DreamBatch = dreams, actions: Tensor = actions) -> Callable[[], object]:
            return lambda: (dreams.step(actions), dreams.frames())

        measure(slots, "torch", step)
        measure(slots, "torch, frames", drawn)
        if device.type == "cuda":
            measure(slots, "torch, CUDA graph", functools.partial(graphed_dreams, dreams, actions))
        measure(slots, "NumPy, slots", functools.partial(numpy, slots))
        measure(frames, "NumPy, frames", functools.partial(numpy, frames))
        if number == sizes.dreams[-1]:
            for world.chunk in sizes.chunks:
                measure(slots, f"torch, frames, {world.chunk} at once", drawn)
            world.chunk = usual


def graphed_dreams(dreams: DreamBatch, actions: Tensor) -> Callable[[], object]:
    """Makes steps of dreams that are captured once and replayed as one CUDA graph.

    Raises:
        RuntimeError: If they don't lead to the slots that the same steps lead to without a graph.
    """
    world, imagination = dreams.world, dreams.imagination
    state = dreams.state.dreams.map(torch.clone)
    fields = [name for name, value in vars(state).items() if value is not None]

    @own_precision
    def step() -> None:
        told = actions if world.takes_actions else None
        after: DreamState = world.model.dream_step(state, told, imagination).state
        for name in fields:
            getattr(state, name).copy_(getattr(after, name))

    with torch.inference_mode():
        aside = torch.cuda.Stream(world.device)
        aside.wait_stream(torch.cuda.current_stream(world.device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream(world.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        graph.replay()
    for _ in range(WARM_UP + 1):
        dreams.step(actions)
    apart = float((dreams.outputs() - state.output).abs().max())
    if apart > 1e-2:
        raise RuntimeError(f"the graph's slots lie {apart:.2g} apart from the others")
    return graph.replay


# Planners.


def measure_planners(report: Report) -> None:
    """Measures decisions a second, one after the other, each for all environments together."""
    for number in report.sizes.planned:
        env = LearnedVectorEnv(number, "balls", device=report.device, obs_type="slots")
        env.reset(seed=0)
        dreams = env.dreams.state.dreams.map(torch.clone)
        for name in report.sizes.planners:

            def figures(
                name: str = name, dreams: DreamState = dreams, number: int = number
            ) -> dict[str, Any]:
                decide = decisions(
                    name, LearnedDynamics(World.load("balls", report.device), "latent"), dreams
                )
                seconds = report.time(decide)
                return {"ms": round(1e3 * seconds, 2), "decisions_per_second": round(number / seconds, 1)}

            report.measure({"planner": name, "environments": number}, figures)


# The paper's model.


def train_paper(report: Report, data: Path) -> None:
    """Trains the paper's R-NEM for the time that is left, evaluates it, and leaves its checkpoint beside the report.

    The weights are kept in half precision where the file would be too large to bring back.
    """
    device, sizes = report.device, report.sizes
    precision = "tf32" if has_tf32(device) else "float32"
    # Evaluating takes some of the time too.
    minutes = max(report.seconds_left - max(20.0, 0.1 * report.seconds_left), 1.0) / 60.0
    options = {
        "max_minutes": minutes,
        "valid_size": sizes.valid,
        "memory_gigabytes": 16.0,
        "checkpoint_minutes": 0.5,
        "execution": {"precision": precision},
    }
    if device.type == "cpu":
        options |= {"batch_size": 2, "sequence_steps": 2, "last_steps": 1, "max_updates": 2}
    run = data.parent / "run"
    trainer = train(data, paper_model(options={"training": options}), run, device=device, report=_say)
    progress = trainer.progress
    keep_small(checkpoint.find_checkpoint(run, "last"), report.path.parent / "paper")
    (report.path.parent / "paper" / "log.jsonl").write_bytes((run / "log.jsonl").read_bytes())
    found = evaluate(
        checkpoint.find_checkpoint(run, "last"),
        data,
        split="validation",
        sequences=sizes.valid,
        ami_sequences=0,
    )
    report.add(
        {
            "precision": precision,
            "minutes": round(progress.minutes, 2),
            "updates": progress.updates,
            "sequences": progress.sequences,
            "sequences_per_second": round(progress.sequences / max(60.0 * progress.minutes, 1e-9), 1),
            "validation_loss": round(found.loss, 2),
            **{name: round(found.scores[name], 4) for name in ("ari", "last_ari", "fg_ari")},
        }
    )


def keep_small(folder: Path, out: Path, most: int = 15 * 2**20) -> None:
    """Copies a checkpoint's weights, halved where the file would be larger than ``most`` bytes."""
    model, config = checkpoint.load_model(folder)
    if (folder / checkpoint.MODEL_FILE).stat().st_size > most:
        model = model.half()
    checkpoint.save_checkpoint(out, model, config)


def _say(line: str) -> None:
    print(line, flush=True)


def parts(data: Path | None) -> Iterator[tuple[str, Callable[[Report], None]]]:
    """Lists what can be measured."""
    yield "training", measure_training
    yield "compiled", measure_compiled
    yield "environments", measure_environments
    yield "planners", measure_planners
    if data is not None:
        yield "paper", lambda report: train_paper(report, data)


def main() -> None:
    """Measures one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["training", "compiled", "environments", "planners", "paper"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="what the paper's model is trained on")
    options = parser.parse_args()
    if options.part == "paper" and options.data is None:
        parser.error("the part paper needs --data")
    report = Report(options.out, choose_device(options.device), options.seconds)
    dict(parts(options.data))[options.part](report)
    sys.stdout.flush()


if __name__ == "__main__":
    main()

"""What a graphics card makes of the program: training, learned worlds, planners, and the paper's model trained on it.

Usage: python -m rnem_world.benchmarks.gpu PART --out FILE.json [--device cuda] [--seconds 60] [--data DATASET]. Each
part prints its rows as they are measured and keeps the file up to date, so that a part that is stopped has measured
something. ``scripts/gpu_check`` runs them all. On the processor everything is tiny: that is only to test the program.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnem_world.agents.dynamics import LearnedDynamics
from rnem_world.api import evaluate
from rnem_world.benchmarks.gpu_report import WARM_UP, Report
from rnem_world.benchmarks.gpu_training import measure_compiled, measure_training
from rnem_world.benchmarks.planning import decisions
from rnem_world.device import choose_device, has_tf32
from rnem_world.envs.dream import DreamBatch
from rnem_world.envs.learned import LearnedVectorEnv
from rnem_world.envs.world import World
from rnem_world.models.layers import own_precision
from rnem_world.models.world_model import DreamState
from rnem_world.training import checkpoint
from rnem_world.training.presets import paper_model
from rnem_world.training.trainer import train


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

"""``rnem-world bench``: how fast the program is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rnem_world.cli import arguments
from rnem_world.cli.arguments import resolve_data, resolve_device
from rnem_world.models.config import MODELS


@click.group()
def command() -> None:
    """Measure how fast this machine runs the model."""


@command.command("train")
@click.option("--architecture", default="conv64", show_default=True, help="conv32, conv64 or conv84.")
@click.option("--batch-size", type=int, default=16, show_default=True, help="Sequences in a batch.")
@click.option("--slots", type=int, default=5, show_default=True, help="Number of slots.")
@click.option("--steps", type=int, default=30, show_default=True, help="Predictions in a sequence.")
@click.option("--threads", type=int, default=1, show_default=True, help="Threads.")
@click.option("--pairs", type=int, default=3, show_default=True, help="Steps of each model, in turns.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bf16"]),
    default="float32",
    show_default=True,
    help="Of the products in our step.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures as JSON too.")
def train_step(
    architecture: str,
    batch_size: int,
    slots: int,
    steps: int,
    threads: int,
    pairs: int,
    precision: Any,
    out: Path | None,
) -> None:
    """Measure R-NEM's training step beside the same model written plainly.

    A step is forward, backward and Adam on one batch. Other work on the machine slows both models alike: trust the
    ratio, and the seconds only on an idle machine.
    """
    from dataclasses import asdict

    from rnem_world.benchmarks.training import PRODUCT_SIZE, VARIANTS, StepBenchmarkConfig, compare_steps
    from rnem_world.io import write_json

    config = StepBenchmarkConfig(architecture, batch_size, slots, steps, threads, pairs, precision)
    result = compare_steps(config)
    click.echo(f"{'':8}{'seconds':>10}{'GFLOP':>10}{'GFLOP/s':>10}{'of product':>12}{'peak memory':>14}")
    for variant in VARIANTS:
        row = result[variant]
        click.echo(
            f"{variant:8}{row['seconds']:10.3f}{row['gigaflop']:10.1f}{row['gigaflop_per_second']:10.1f}"
            f"{row['share_of_matrix_product']:12.0%}{row['peak_memory_bytes'] / 1e6:11.0f} MB"
        )
    rate = result["matrix_product_gigaflop_per_second"]
    click.echo(f"plain / ours: {result['ratio']:.2f}")
    click.echo(f"matrix product of {PRODUCT_SIZE}: {rate:.1f} GFLOP/s (threads: {threads})")
    click.echo(f"ours with 1 thread / with 2: {result['two_threads_ratio']:.2f}")
    if out is not None:
        write_json(out, {"config": asdict(config), **result})
        click.echo(f"wrote {out}")


@command.command()
@click.argument("data", type=arguments.data)
@click.option("--model", "model_name", default="r_nem", show_default=True, help=f"{', '.join(MODELS)}.")
@click.option("--batch-size", type=int, default=16, show_default=True, help="Sequences in a batch.")
@click.option("--steps", type=int, default=30, show_default=True, help="Predictions in a sequence.")
@click.option("--batches", type=int, default=50, show_default=True, help="Batches to read without training.")
@click.option("--updates", type=int, default=3, show_default=True, help="Updates with each source of data.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1 ...")
@click.option("--threads", type=int, help="CPU threads. [all cores]")
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures as JSON too.")
def loader(
    data: str,
    model_name: str,
    batch_size: int,
    steps: int,
    batches: int,
    updates: int,
    device: str,
    threads: int | None,
    out: Path | None,
) -> None:
    """Measure how fast sequences are read, beside how fast training takes them.

    From files they have perhaps been read before, and are then in the system's memory: on a slow disk the first epoch
    is slower. The loader works on a thread beside training, and training waits where that isn't enough.
    """
    from rnem_world.benchmarks.training import compare_loader
    from rnem_world.data.dataset import Dataset
    from rnem_world.io import write_json
    from rnem_world.training.presets import fit_model_to, paper_model

    training = {"sequence_steps": steps, "batch_size": batch_size}
    config = paper_model(model_name, options={"training": training})
    place = resolve_device(device, threads)
    with Dataset.open(resolve_data(data)) as dataset:
        result = compare_loader(dataset, fit_model_to(dataset, config), place, batches, updates)
    click.echo(f"{'':10}{'sequences/s':>12}{'of training':>13}{'training waits':>16}")
    for source in ("memory", "files"):
        if source in result:
            row = result[source]
            click.echo(
                f"{source:10}{row['sequences_per_second']:12.0f}{row['times_training']:12.0f}x{row['waiting']:16.2%}"
            )
    click.echo(f"{'training':10}{result['training']['sequences_per_second']:12.1f}")
    if out is not None:
        write_json(out, {"batch_size": batch_size, "steps": steps, **result})
        click.echo(f"wrote {out}")

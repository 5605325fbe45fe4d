"""What ``rnem-world evaluate --imagine`` does with data that doesn't know where objects are, as of games."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rnem_world.data.dataset import Dataset
    from rnem_world.evaluation.open_loop import OpenLoopFigures
    from rnem_world.models.world_model import WorldModel


def measure_open_loop(
    run: str,
    model: WorldModel,
    dataset: Dataset,
    split: str,
    sequences: int,
    slots: int | None,
    context: int,
    horizon: int,
    noise: float,
    batch_size: int,
    seed: int,
    out: Path,
) -> None:
    """Measures dreams, prints them as a table and writes them as JSON."""
    from rnem_world.data.loader import read_batch
    from rnem_world.evaluation.open_loop import Recorded, evaluate_open_loop
    from rnem_world.evaluation.players import LANES
    from rnem_world.evaluation.table import open_loop_table
    from rnem_world.io import write_json
    from rnem_world.seeding import torch_generator

    device = next(model.parameters()).device
    info = dataset.info(split)  # type: ignore[arg-type]  # click checked the name
    arrays = [name for name in ("actions", "rewards") if name in info.arrays]
    rows = list(range(sequences))
    batch = read_batch(dataset, split, rows, context + horizon + 1, arrays=arrays).to(device)  # type: ignore[arg-type]
    recorded = Recorded(
        model.likelihood.from_uint8(batch.frames, batch.maximum_value), batch.actions, batch.rewards
    )
    settings = dataset.attributes.settings
    lane = LANES.get(str(settings.get("game"))) if settings.get("frames") == "binary" else None

    def measure(imagination: str) -> OpenLoopFigures:
        generator = torch_generator(seed, "imagination", device=device)
        return evaluate_open_loop(
            model, recorded, context, horizon, generator, slots, noise, batch_size, imagination, lane
        )

    figures = measure("pixels" if model.config.is_world_model else "soft")
    latent = None if model.prior_code is None else measure("latent")
    click.echo(
        f"{run} dreaming of {split} of {dataset.path}: {sequences} sequences, {context} context frames, noise {noise:g}"
    )
    for line in open_loop_table(figures, latent):
        click.echo(line)
    write_json(
        out,
        {
            "run": str(run),
            "data": str(dataset.path),
            "split": split,
            "seed": seed,
            "noise": noise,
            **figures.to_dict(),
            "latent": None if latent is None else latent.to_dict(),
        },
    )
    click.echo(f"written to {out}")

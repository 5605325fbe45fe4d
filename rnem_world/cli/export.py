"""``rnem-world export``: a trained model as a small folder to ship."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from rnem_world.errors import OutputError


@click.command()
@click.argument("run")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to make.")
@click.option("--data", help="What it says it was trained on, a preset's name for example. [the run's path]")
@click.option(
    "--half", is_flag=True, help="Half precision: half the size; evaluate it to see whether it matters."
)
@click.option(
    "--checkpoint", type=click.Choice(["best", "last"]), default="best", show_default=True, help="Which."
)
def command(run: str, out: Path, data: str | None, half: bool, checkpoint: str) -> None:
    """Write the trained model in RUN as config.json and model.safetensors, without what only training needs."""
    from rnem_world.training.checkpoint import load_model, save_checkpoint

    if out.exists():
        raise OutputError(f"{out} already exists: choose another folder, or remove it first")
    model, config = load_model(run, prefer=checkpoint)
    if half:
        model = model.half()
    save_checkpoint(out, model, config if data is None else replace(config, data=data))
    size = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    click.echo(f"{out}: {size:.1f} MB")

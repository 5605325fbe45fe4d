"""``rnem-world import-tf``: a checkpoint of the original TensorFlow program as one of ours."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to make.")
@click.option("--slots", type=int, help="Number of slots, K. [Atari 4, LSTM 1, else 5]")
@click.option(
    "--data", default="", help="What it was trained on: a preset or a game, balls4mass64 say, or a path."
)
def command(checkpoint: Path, out: Path, slots: int | None, data: str) -> None:
    """Write CHECKPOINT of the original program as a folder that all other commands take.

    CHECKPOINT is the name that TensorFlow gave it, debug_out/best for the files best.index and
    best.data-00000-of-00001, or their folder; the older format of one file is read too. TensorFlow isn't needed.
    """
    from rnem_world.training.original import import_tensorflow

    imported = import_tensorflow(checkpoint, out, slots=slots, data=data)
    model = imported.config.model
    actions = f", {model.number_of_actions} actions" if model.number_of_actions else ""
    click.echo(
        f"{out}: {model.core} core, {model.architecture}, {imported.parameters / 1e6:.2f} M parameters{actions}"
    )
    if slots is None:
        click.echo(
            f"slots: {model.slots}, as in the paper; a checkpoint doesn't tell them, --slots and later commands may"
        )
    if imported.left_out:
        click.echo(f"left out {len(imported.left_out)} variables that only training needs")
    hint = "" if data else f" --data {'GAME' if model.architecture == 'conv84' else 'balls4mass64'}"
    click.echo(f"measure it with `rnem-world evaluate {out}{hint}`")

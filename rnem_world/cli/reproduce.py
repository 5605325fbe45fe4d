"""``rnem-world reproduce``: the claims of the R-NEM paper, trained for and measured."""

from __future__ import annotations

import os
from pathlib import Path

import click

from rnem_world.cli.arguments import comma_separated, resolve_device

SEEDS = "0,1,2"


@click.command("reproduce")
@click.option(
    "--size",
    type=int,
    default=32,
    show_default=True,
    help="Height and width of the frames: 32, or the paper's 64.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of runs, figures and the report. [claims32]"
)
@click.option("--variants", help="What to train, of those that docs/paper.md lists. [all]")
@click.option("--seeds", default=SEEDS, show_default=True, help="Seeds of the trainings.")
@click.option("--hours", type=float, help="Stop training after so many; the same command goes on. [never]")
@click.option("--measure-only", is_flag=True, help="Train nothing, measure what is there.")
@click.option("--sequences", type=int, default=128, show_default=True, help="Test sequences of each kind.")
@click.option(
    "--split",
    type=click.Choice(["validation", "test"]),
    default="test",
    show_default=True,
    help="Choose on validation, report on test.",
)
@click.option("--precision", default="float32", show_default=True, help="Of training: float32, tf32 or bf16.")
@click.option("--batch-size", type=int, help="Sequences in an update. [the recipe's]")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1 ...")
@click.option("--threads", type=int, help="CPU threads. [all cores]")
def command(
    size: int,
    out: Path | None,
    variants: str | None,
    seeds: str,
    hours: float | None,
    measure_only: bool,
    sequences: int,
    split: str,
    precision: str,
    batch_size: int | None,
    device: str,
    threads: int | None,
) -> None:
    """Show which claims of the R-NEM paper hold, in hours on a CPU.

    Trains R-NEM and its rivals on the same data by as many updates, measures all that are trained, and writes
    claims.json, claims.md and claims.png. What was stopped goes on when the same command is given again.
    """
    from rnem_world.benchmarks.claim_report import draw, figures_table, rows, table
    from rnem_world.benchmarks.claims import VARIANTS, Plan, curves_of, measure_all, train_all
    from rnem_world.config import check_at_least
    from rnem_world.errors import ConfigError
    from rnem_world.io import atomic_file, write_json

    if hours is not None and not hours > 0:
        raise ConfigError(f"--hours is {hours}, it must be above 0; --measure-only trains nothing")
    training = {
        "execution": {"precision": precision},
        **({} if batch_size is None else {"batch_size": batch_size}),
    }
    plan = Plan(
        size,
        out or Path(f"claims{size}"),
        tuple(VARIANTS) if variants is None else tuple(comma_separated(str)(variants)),
        tuple(comma_separated(int)(seeds)),
        sequences,
        {"training": training},
        "validation" if split == "validation" else "test",
    )
    check_at_least(plan, 2, "sequences")
    place, workers = resolve_device(device, threads), os.cpu_count() or 1
    if not measure_only:
        train_all(plan, hours=hours, device=place, workers=workers, report=click.echo)
    figures = measure_all(plan, device=place, workers=workers, report=click.echo)
    if not figures:
        click.echo("nothing is trained to its end yet: give the same command again")
        return
    found = rows(figures)
    text = f"{table(found)}\n{figures_table(figures)}"
    click.echo(text)
    curves = {
        f"{name}-{seed}": curves_of(plan, name, int(seed)) for name in figures for seed in figures[name]
    }
    write_json(
        plan.out / "claims.json",
        {"size": size, "split": split, "rows": [row.to_dict() for row in found], "figures": figures},
    )
    with atomic_file(plan.out / "claims.md") as temporary:
        temporary.write_text(text)
    draw(curves, figures, plan.out / "claims.png")
    click.echo(f"written to {plan.out / 'claims.json'}, claims.md and claims.png beside it")

"""``rnem-world collect``: video sequences from an environment into a dataset."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from rnem_world.cli import arguments
from rnem_world.cli.environments import FRAME_NAMES, check_unused, frame_options, given_options
from rnem_world.errors import ConfigError

FLAG_NAMES = {"obs_type": "--grayscale or --rgb"}


@click.command("collect")
@click.option(
    "--env",
    "environment",
    default="balls",
    show_default=True,
    help="What to collect from: balls, atari, or any environment of Gymnasium by its id (MODULE:ID imports MODULE "
    "first; MODULE:CLASS needs no id).",
)
@click.option("--preset", help="balls: the rules, by name. [balls4mass64]")
@click.option("--game", help="atari: any game of ale-py. [SpaceInvaders]")
@frame_options
@click.option(
    "--num-train", type=int, help="Sequences for training. [balls 50000, atari 4000, by --steps-of-data]"
)
@click.option(
    "--num-valid", type=int, help="Sequences for validation. [balls 10000, atari 200, by --steps-of-data]"
)
@click.option(
    "--num-test", type=int, help="Sequences for testing. [balls 10000, atari 200, by --steps-of-data]"
)
@click.option("--frames", default=51, show_default=True, help="Frames of a sequence.")
@arguments.seed_option("Seed; the same seed gives the same file.")
@click.option("--workers", default=1, show_default=True, help="Processes.")
@click.option(
    "--shard-size",
    type=int,
    help="Sequences that a process collects and writes at once. [balls 500, others 200]",
)
@click.option("--shards", "keep_shards", is_flag=True, help="Leave a folder of shards instead of one file.")
@click.option(
    "--policy",
    help="Who acts where there is a player: random, repeated-random or stay; or a .zip of stable-baselines3; other "
    "environments: or a function, MODULE:FUNCTION, of an observation. Several with weights, as random:0.4,stay:0.6, "
    "play that part of the episodes each. [balls, atari repeated-random; others random:0.5,repeated-random:0.5]",
)
@click.option(
    "--trust-policy",
    is_flag=True,
    default=None,
    help="Unpickle the policy; only if you know where it comes from, a pickle can run any program.",
)
@click.option(
    "--policy-frames",
    type=click.Choice(["grayscale", "observations"]),
    help="atari: what a trained policy sees: frames in grey, or what is stored. [grayscale]",
)
@click.option("--rgb", "obs_type", flag_value="rgb", help="atari: keep the colours. [binary]")
@click.option(
    "--reward", type=click.Choice(["sign", "raw"]), help="atari: the points' sign, or the points. [sign]"
)
@click.option(
    "--background",
    type=click.Path(path_type=Path),
    help="atari: a .npy or a dataset whose background is taken. [the game's own]",
)
@click.option("--overwrite", is_flag=True, help="Replace the dataset if it exists.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    show_default="data/PRESET.h5, data/GAME.h5, data/ID.h5",
    help="The file to write (with --shards the folder).",
)
def command(environment: str, **options: Any) -> None:
    """Collect video sequences from an environment into an HDF5 dataset.

    A collection that was interrupted goes on when the same command is given again.
    """
    from rnem_world.agents.collecting import collect

    given = given_options(options)
    _check(environment, given)
    start = time.monotonic()
    try:
        out = collect(environment, **given)
    except KeyboardInterrupt:
        click.echo(
            "\nInterrupted. The finished shards are kept: the same command goes on from there.", err=True
        )
        sys.exit(130)
    _report(out, time.monotonic() - start)


def _check(environment: str, given: dict[str, Any]) -> None:
    """Refuses options that are for another environment than the one that is chosen."""
    from dataclasses import fields

    from rnem_world.agents.collecting import COLLECTIONS
    from rnem_world.agents.collection import Collection

    known = {name: {field.name for field in fields(kind)} for name, kind in COLLECTIONS.items()}
    if environment == "atari" and given.pop("grayscale", False):
        if "obs_type" in given:
            raise ConfigError("--grayscale and --rgb are both given: leave one out")
        given["obs_type"] = "grayscale"
    if environment in COLLECTIONS:
        check_unused(environment, given, FRAME_NAMES, "other environments (--env ID)")
    own = known.get(environment, {field.name for field in fields(Collection)} | {"trust_policy"})
    for other, names in known.items():
        for name in sorted((names - own) & given.keys()):
            flag = FLAG_NAMES.get(name, f"--{name.replace('_', '-')}")
            raise ConfigError(f"{flag} is for --env {other}, not for {environment}: leave it out")


def _report(out: Path, seconds: float) -> None:
    from rnem_world.data.dataset import Dataset

    files = sorted(out.iterdir()) if out.is_dir() else [out]
    size = sum(file.stat().st_size for file in files) / 1e6
    with Dataset.open(out) as dataset:
        splits = ", ".join(f"{split} {dataset.info(split).number_of_sequences:,}" for split in dataset.splits)
        info = dataset.info(dataset.splits[0])
    click.echo(f"{out}: {splits} sequences of {info.number_of_frames} frames of {info.height} x {info.width}")
    click.echo(f"arrays {', '.join(info.arrays)}; {size:,.1f} MB in {seconds:,.1f} s")

"""``rnem-world collect``: video sequences from an environment into a dataset."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np

    from rnem_world.agents.base import Agent
    from rnem_world.envs.balls import BouncingBallsVectorEnv
    from rnem_world.physics import BallsConfig

DATA_FOLDER = Path("data")


def _make_balls(num_envs: int, rules: BallsConfig) -> BouncingBallsVectorEnv:
    from rnem_world.envs.balls import BouncingBallsVectorEnv

    return BouncingBallsVectorEnv(num_envs, preset=rules, max_episode_steps=None, ground_truth=True)


def _make_agent(env: Any, generator: np.random.Generator, policy: str) -> Agent:
    from rnem_world.agents.base import baseline

    return baseline(policy, int(env.single_action_space.n), generator)


def collect_balls(
    preset: str,
    out: Path | None = None,
    num_train: int = 50_000,
    num_valid: int = 10_000,
    num_test: int = 10_000,
    frames: int = 51,
    seed: int = 0,
    workers: int = 1,
    shard_size: int = 500,
    policy: str = "repeated-random",
    keep_shards: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Collects sequences of simulated balls.

    Args:
        preset: The name of the rules, see `rnem_world.physics.PRESETS`.
        out: The file; without it ``data/<preset>.h5`` (``data/<preset>`` with ``keep_shards``).
        num_train: Sequences for training.
        num_valid: Sequences for validation.
        num_test: Sequences for testing.
        frames: Frames of a sequence.
        seed: Seed of everything.
        workers: Processes.
        shard_size: Sequences of a shard.
        policy: Who acts where there is a player, see `rnem_world.agents.base.BASELINES`.
        keep_shards: Whether to leave a folder of shards.
        overwrite: Whether ``out`` may be replaced.
        progress: Whether to show a progress bar on a terminal.

    Returns:
        Where the dataset is.

    Raises:
        ConfigError: If an argument makes no sense.
        DataError: If parts of another collection are in the way.
        OutputError: If the dataset can't be written.
    """
    from dataclasses import asdict

    import rnem_world
    from rnem_world import physics
    from rnem_world.agents.base import BASELINES
    from rnem_world.data.collector import CollectorConfig, Source, collect_dataset
    from rnem_world.data.schema import DatasetAttributes
    from rnem_world.errors import ConfigError, suggest

    rules = physics.preset(preset)
    if policy not in BASELINES:
        raise ConfigError(f"no policy {policy!r}: {suggest(policy, BASELINES)}")
    if out is None:
        out = DATA_FOLDER / (preset if keep_shards else f"{preset}.h5")
    settings: dict[str, Any] = {"preset": preset, "rules": asdict(rules)}
    if rules.player:
        settings["policy"] = policy
    attributes = DatasetAttributes(
        environment_id="RNEM-BallsReal-v0",
        settings=settings,
        seed=seed,
        number_of_actions=physics.number_of_actions(rules) if rules.player else None,
        maximum_value=1,
        package_version=rnem_world.__version__,
    )
    config = CollectorConfig(num_train, num_valid, num_test, frames, seed, shard_size)
    return collect_dataset(
        Source(partial(_make_balls, rules=rules), partial(_make_agent, policy=policy), attributes),
        config,
        out,
        workers=workers,
        progress=progress,
        keep_shards=keep_shards,
        overwrite=overwrite,
    )


def default_dataset(preset: str, folder: Path = DATA_FOLDER, **options: Any) -> Path:
    """Returns ``<folder>/<preset>.h5`` and collects it first if it isn't there.

    Args:
        preset: The name of the rules.
        folder: Where datasets are.
        **options: Those of `collect_balls`, used only if the dataset has to be collected.

    Raises:
        RnemWorldError: As `collect_balls`.
    """
    out = folder / f"{preset}.h5"
    return out if out.exists() else collect_balls(preset, out, **options)


BALLS, ATARI = ("balls",), ("atari",)

# Options that one kind of environment alone understands, by the names of the collecting functions' arguments.
OF_ENVIRONMENT = {
    "preset": BALLS,
    "game": ATARI,
    "obs_type": ATARI,
    "reward": ATARI,
    "background": ATARI,
    "trust_policy": ATARI,
    "policy_frames": ATARI,
}
FLAG_NAMES = {"obs_type": "--grayscale or --rgb"}


@click.command("collect")
@click.option(
    "--env",
    "environment",
    type=click.Choice(["balls", "atari"]),
    default="balls",
    show_default=True,
    help="What to collect from.",
)
@click.option("--preset", help="balls: the rules, by name. [balls4mass64]")
@click.option("--game", help="atari: any game of ale-py. [SpaceInvaders]")
@click.option("--num-train", type=int, help="Sequences for training. [balls 50000, atari 4000]")
@click.option("--num-valid", type=int, help="Sequences for validation. [balls 10000, atari 200]")
@click.option("--num-test", type=int, help="Sequences for testing. [balls 10000, atari 200]")
@click.option("--frames", default=51, show_default=True, help="Frames of a sequence.")
@click.option("--seed", default=0, show_default=True, help="Seed; the same seed gives the same file.")
@click.option("--workers", default=1, show_default=True, help="Processes.")
@click.option(
    "--shard-size",
    type=int,
    help="Sequences that a process collects and writes at once. [balls 500, atari 200]",
)
@click.option("--shards", "keep_shards", is_flag=True, help="Leave a folder of shards instead of one file.")
@click.option(
    "--policy",
    default="repeated-random",
    show_default=True,
    help="Who acts where there is a player: random, repeated-random or stay; atari: or a .zip of stable-baselines3.",
)
@click.option(
    "--trust-policy",
    is_flag=True,
    default=None,
    help="atari: unpickle the policy; only if you know where it comes from, a pickle can run any program.",
)
@click.option(
    "--policy-frames",
    type=click.Choice(["grayscale", "observations"]),
    help="atari: what a trained policy sees: frames in grey, or what is stored. [grayscale]",
)
@click.option(
    "--grayscale", "obs_type", flag_value="grayscale", help="atari: keep the greys, 0 to 255. [binary]"
)
@click.option("--rgb", "obs_type", flag_value="rgb", help="atari: keep the colours.")
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
    show_default="data/PRESET.h5, data/GAME.h5",
    help="The file to write (with --shards the folder).",
)
def command(environment: str, **options: Any) -> None:
    """Collect video sequences from an environment into an HDF5 dataset.

    A collection that was interrupted goes on when the same command is given again.
    """
    from rnem_world.cli.collect_atari import collect_atari
    from rnem_world.errors import ConfigError

    given = {name: value for name, value in options.items() if value is not None}
    for name, environments in OF_ENVIRONMENT.items():
        if name in given and environment not in environments:
            flag = FLAG_NAMES.get(name, f"--{name.replace('_', '-')}")
            raise ConfigError(f"{flag} is for --env {environments[0]}, not for {environment}: leave it out")
    start = time.monotonic()
    try:
        if environment == "atari":
            out = collect_atari(**given)
        else:
            out = collect_balls(given.pop("preset", "balls4mass64"), **given)
    except KeyboardInterrupt:
        click.echo(
            "\nInterrupted. The finished shards are kept: the same command goes on from there.", err=True
        )
        sys.exit(130)
    _report(out, time.monotonic() - start)


def _report(out: Path, seconds: float) -> None:
    from rnem_world.data.dataset import Dataset

    files = sorted(out.iterdir()) if out.is_dir() else [out]
    size = sum(file.stat().st_size for file in files) / 1e6
    with Dataset.open(out) as dataset:
        splits = ", ".join(f"{split} {dataset.info(split).number_of_sequences:,}" for split in dataset.splits)
        info = dataset.info(dataset.splits[0])
    click.echo(f"{out}: {splits} sequences of {info.number_of_frames} frames of {info.height} x {info.width}")
    click.echo(f"arrays {', '.join(info.arrays)}; {size:,.1f} MB in {seconds:,.1f} s")

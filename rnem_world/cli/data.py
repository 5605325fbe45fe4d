"""``rnem-world data``: what is in a dataset, is it whole; from other formats, and to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click

from rnem_world.cli import arguments

FILE = click.Path(path_type=Path)


@click.group()
def command() -> None:
    """Look into, check, import or export a dataset."""


@command.command()
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(file: Path, as_json: bool) -> None:
    """Say what is in FILE, a dataset or a folder of shards."""
    content = describe(file)
    click.echo(json.dumps(content, indent=2) if as_json else "\n".join(format_description(content)))


@command.command()
@click.argument("file", type=FILE)
def check(file: Path) -> None:
    """Read all of FILE, a dataset or a folder of shards, and name the first thing wrong.

    The exit code is 2 if something is wrong; warnings don't change it.
    """
    from rnem_world.data.check import check_dataset

    report = check_dataset(file)
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)
    report.raise_problem()
    counts = ", ".join(f"{split} {count}" for split, count in report.sequences.items())
    click.echo(f"{file} is fine: {counts} sequences")
    for note in report.notes:
        click.echo(note)


@command.command("import")
@click.argument("source")
@click.option("--out", required=True, type=FILE, help="The dataset to write, for example data/film.h5.")
@click.option("--frames", default=51, show_default=True, help="Frames of a sequence; longer clips are cut.")
@click.option("--size", help="Height and width to resize to, such as 64x64, or 64 for both. [as they are]")
@click.option(
    "--binarise",
    default=0.5,
    show_default=True,
    help="Part of full brightness above which a pixel is 1, others are 0.",
)
@click.option("--grey-levels", is_flag=True, help="Keep the brightness, 0 to 255, instead.")
@click.option(
    "--channels",
    type=click.Choice(["1", "3", "all"]),
    default="1",
    show_default=True,
    help="Grey, colour, or as they are.",
)
@click.option(
    "--splits", default="0.8,0.1,0.1", show_default=True, help="Parts for training, validation and test."
)
@click.option("--stride", type=int, help="Frames from one sequence's start to the next one's. [as --frames]")
@click.option("--actions", type=int, help="How many actions there are, if SOURCE has any. [highest + 1]")
@click.option(
    "--axes", help="What an array's axes are, for example TNHW: time, sequences, height, width; C channels."
)
@click.option("--range", "value_range", help="Which values of an array are black and white. [0,1 or 0,255]")
@click.option("--invert", is_flag=True, help="Turn black into white, for dark objects on a white ground.")
@click.option(
    "--matte",
    type=click.Choice(["black", "white"]),
    default="black",
    show_default=True,
    help="What transparent pixels are laid on.",
)
@click.option("--picture", help="Which camera, or entry of the observations, of those that SOURCE has.")
@click.option(
    "--streams/--no-streams",
    default=None,
    help="Let sequences go on from one episode to the next. [yes for Minari and LeRobot]",
)
@arguments.seed_option("Deals the sequences out to the splits.")
@click.option("--overwrite", is_flag=True, help="Replace the dataset if it exists.")
def import_command(
    source: str,
    out: Path,
    frames: int,
    size: str | None,
    binarise: float,
    grey_levels: bool,
    channels: str,
    splits: str,
    stride: int | None,
    actions: int | None,
    axes: str | None,
    value_range: str | None,
    invert: bool,
    matte: Literal["black", "white"],
    picture: str | None,
    streams: bool | None,
    seed: int,
    overwrite: bool,
) -> None:
    """Make a dataset of SOURCE.

    SOURCE is a NumPy file (.npy, or .npz with 'frames' and perhaps 'actions', 'rewards', 'terminations' and the other
    arrays of a dataset), a video (mp4, gif, webm, ...), a folder of images, or a folder of such folders or files; or
    minari:ID, or the folder of a dataset of Minari or LeRobot.

    Pixels are made 0 or 1 unless --grey-levels is given, because that is what the model was made for: it takes
    them for Bernoulli variables.
    """
    from rnem_world.data.arrays import Reading
    from rnem_world.data.importing import import_frames
    from rnem_world.data.windows import ImportConfig

    config = ImportConfig(
        number_of_frames=frames,
        size=None if size is None else parse_size(size),
        binarise=None if grey_levels else binarise,
        channels=None if channels == "all" else int(channels),
        ratio=parse_ratio(splits),
        seed=seed,
        stride=stride,
        number_of_actions=actions,
        reading=Reading(
            axes, None if value_range is None else parse_range(value_range), matte, invert, picture
        ),
        streams=streams,
    )
    summary = import_frames(source, out, config, overwrite=overwrite)
    counts = ", ".join(f"{split} {count}" for split, count in summary.sequences.items())
    pixels = f"{summary.height} x {summary.width} x {summary.channels}"
    values = "grey levels 0 to 255" if grey_levels else f"0/1, threshold {binarise:g}"
    click.echo(f"{out}: {counts} sequences of {frames} frames, {pixels}, {values}")
    if summary.notes:
        click.echo(f"read as {'; '.join(summary.notes)}")
    others = [name for name in summary.arrays if name != "features"]
    if others:
        known = f" ({summary.number_of_actions} actions)" if summary.number_of_actions else ""
        if summary.action_space is not None:
            known = f" ({summary.action_space.described})"
        click.echo(f"beside the frames: {', '.join(others)}{known}")
    if summary.short_clips:
        click.echo(
            f"warning: {summary.short_clips} of {summary.clips} clips are shorter than {frames} frames and were "
            "left out",
            err=True,
        )
    if summary.unused_windows:
        click.echo(
            f"warning: {summary.unused_windows} sequences were left out, they share frames with another split",
            err=True,
        )
    for warning in summary.warnings:
        click.echo(f"warning: {warning}", err=True)


@command.command("export")
@click.argument("file", type=FILE)
@click.option(
    "--minari", "identity", required=True, help="The id of a dataset of Minari, balls/avoid-v0 say."
)
@click.option("--description", default="", help="What it is.")
@click.option("--author", default="", help="Whose it is.")
def export_command(file: Path, identity: str, description: str, author: str) -> None:
    """Write FILE as a dataset of Minari.

    MINARI_DATASETS_PATH says where those are, if not in ~/.minari/datasets. Frames, actions, rewards, ends, cuts, seeds
    and splits go along; each stretch of a sequence that is of one episode becomes an episode.
    """
    from rnem_world.data.dataset import Dataset
    from rnem_world.data.minari_files import write_minari

    with Dataset.open(file) as dataset:
        episodes, steps = write_minari(dataset, identity, description=description, author=author)
    click.echo(
        f"{identity}: {episodes} episodes of {steps} steps; minari.load_dataset({identity!r}) reads it"
    )


def parse_size(text: str) -> tuple[int, int]:
    """Reads ``64x48`` (height x width) or ``64``.

    Raises:
        ConfigError: If it is something else.
    """
    from rnem_world.errors import ConfigError

    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(f"--size is {text!r}, expected height and width such as 64x64, or one number")
    return int(parts[0]), int(parts[-1])


def parse_ratio(text: str) -> list[float]:
    """Reads ``0.8,0.1,0.1``.

    Raises:
        ConfigError: If it is something else.
    """
    from rnem_world.errors import ConfigError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--splits is {text!r}, expected three numbers such as 0.8,0.1,0.1") from error


def parse_range(text: str) -> tuple[float, float]:
    """Reads ``0,255``.

    Raises:
        ConfigError: If it is something else.
    """
    from rnem_world.errors import ConfigError

    try:
        black, white = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--range is {text!r}, expected the values of black and white such as 0,255"
        ) from error
    return black, white


def describe(file: Path) -> dict[str, Any]:
    """Collects what there is to say about a dataset, as JSON can hold it.

    Raises:
        DataError: If it can't be opened.
    """
    from dataclasses import asdict

    from rnem_world.data.dataset import Dataset

    with Dataset.open(file) as dataset:
        splits = {}
        for split in dataset.splits:
            sizes = dataset.info(split)
            splits[split] = {
                "sequences": sizes.number_of_sequences,
                "frames": sizes.number_of_frames,
                "height": sizes.height,
                "width": sizes.width,
                "channels": sizes.channels,
                "arrays": {
                    name: {
                        "shape": list(stored.shape),
                        "dtype": str(stored.dtype),
                        "stored_megabytes": round(stored.stored_bytes / 1e6, 3),
                    }
                    for name, stored in dataset.stored(split).items()
                },
            }
        return {
            "path": str(file),
            "files": len(dataset.shard_paths),
            "attributes": asdict(dataset.attributes),
            "found_out": sorted(dataset.found_out),
            "splits": splits,
        }


def format_description(content: dict[str, Any]) -> list[str]:
    """Lays a description out as lines of text."""
    files = f", {content['files']} files" if content["files"] > 1 else ""
    lines = [f"{content['path']}{files}", ""]
    for name, value in content["attributes"].items():
        if name == "schema_version" and value == 0:
            lines.append(f"  {name:18} none: the layout of the original program")
        elif value not in (None, "", {}):
            source = " (found out from the arrays)" if name in content["found_out"] else ""
            lines.append(f"  {name:18} {json.dumps(value) if isinstance(value, dict) else value}{source}")
    for split, entry in content["splits"].items():
        pixels = f"{entry['height']} x {entry['width']} x {entry['channels']}"
        lines += ["", f"{split}: {entry['sequences']} sequences of {entry['frames']} frames, {pixels}"]
        for name, array in entry["arrays"].items():
            shape = " x ".join(str(size) for size in array["shape"])
            lines.append(f"  {name:14}{array['dtype']:9}{array['stored_megabytes']:>12,.2f} MB   {shape}")
    return lines

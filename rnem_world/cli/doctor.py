"""``rnem-world doctor``: what works here, and how a run fares."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnem_world.cli import arguments

if TYPE_CHECKING:
    import torch

    from rnem_world.data.schema import Split
    from rnem_world.doctor.findings import Finding


@click.command()
@click.argument("run", type=arguments.world, required=False)
@click.option("--data", type=arguments.data, help="Dataset or preset. [what the run was trained on]")
@click.option(
    "--split",
    type=click.Choice(["training", "validation", "test"]),
    default="test",
    show_default=True,
    help="Which part of the data.",
)
@click.option("--sequences", type=int, default=32, show_default=True, help="At most so many.")
@click.option(
    "--checkpoint",
    type=click.Choice(["best", "last"]),
    default="last",
    show_default=True,
    help="Which of the run.",
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1 ...")
@click.option("--threads", type=int, help="CPU threads. [all cores]")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the findings as JSON too.")
def command(
    run: str | None,
    data: str | None,
    split: Split,
    sequences: int,
    checkpoint: str,
    device: str,
    threads: int | None,
    out: Path | None,
) -> None:
    """Say what is installed and works here, or how the model in RUN fares; each with advice.

    Without RUN: versions, device, threads, and parts that are tried: oneDNN, ONNX Runtime, video, Atari, pygame. With
    RUN, a run that may still be training, a checkpoint or a world: is the loss diverging, do slots bind (FG-ARI, or
    without truth how sharp responsibilities are), are actions obeyed, do dreams last. Exits with 1 if something is BAD.
    """
    from rnem_world.doctor.installation import examine_installation
    from rnem_world.errors import ConfigError
    from rnem_world.io import write_json

    arguments.check_output(out, (".json",))
    if run is None and data is not None:
        raise ConfigError(f"--data {data} was given, and no RUN to look at: name one, or leave it out")
    chosen = arguments.resolve_device(device, threads)
    if run is None:
        found = _shown(examine_installation(str(chosen)))
    else:
        found = _shown(_examine(run, data, split, sequences, checkpoint, chosen))
    if out is not None:
        write_json(out, {"findings": [asdict(finding) for finding in found]})
    if any(finding.verdict == "bad" for finding in found):
        sys.exit(1)


def _shown(findings: Iterable[Finding]) -> list[Finding]:
    """Prints findings as they come."""
    from rnem_world.doctor.findings import as_lines

    found = []
    for finding in findings:
        found.append(finding)
        for line in as_lines([finding]):
            click.echo(line)
    return found


def _examine(
    run: str, data: str | None, split: Split, sequences: int, checkpoint: str, device: torch.device
) -> Iterable[Finding]:
    from rnem_world.doctor.run import examine_run, run_folder
    from rnem_world.training.checkpoint import find_checkpoint, read_config

    folder = find_checkpoint(run, checkpoint)
    config = read_config(folder)
    with tempfile.TemporaryDirectory() as place:
        path = _data(data or config.data, split, sequences, Path(place))
        yield from examine_run(
            run,
            run_folder(folder),
            path,
            split=split,
            sequences=sequences,
            device=device,
            prefer=checkpoint,
        )


def _data(data: str, split: Split, sequences: int, place: Path) -> Path:
    """Finds the data; of a preset or a game that isn't at hand, a few sequences are made, which nobody keeps."""
    from rnem_world.agents import collecting
    from rnem_world.envs.atari_console import PRESETS as GAMES
    from rnem_world.errors import DataError
    from rnem_world.physics.rules import PRESETS

    if not data:
        raise DataError("nobody knows what the model was trained on: give the path of a dataset with --data")
    if data not in (*PRESETS, *GAMES):
        return arguments.resolve_data(data)
    for name in (f"{data}.h5", f"{data}-test.h5") if split == "test" else (f"{data}.h5",):
        if (collecting.DATA_FOLDER / name).exists():
            return collecting.DATA_FOLDER / name
    numbers = {"training": "num_train", "validation": "num_valid", "test": "num_test"}
    options: dict[str, Any] = {**dict.fromkeys(numbers.values(), 0), numbers[split]: sequences, "frames": 51}
    click.echo(f"no data at hand: {sequences} sequences of {data} are made for this, and not kept")
    kind, word = ("atari", "game") if data in GAMES else ("balls", "preset")
    options[word] = data
    return collecting.collect(kind, place / f"{data}.h5", workers=1, **options)

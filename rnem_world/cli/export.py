"""``rnem-world export``: a trained model as a small folder to ship."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnem_world.cli import arguments
from rnem_world.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from rnem_world.data.dataset import Dataset
    from rnem_world.data.schema import Split
    from rnem_world.envs.starts import Starts
    from rnem_world.models.world_model import WorldModel
    from rnem_world.training.config import RunConfig


@dataclass(frozen=True)
class _Request:
    """What is to be made, and of what: the command's arguments.

    Attributes:
        run: The trained model.
        out: The folder to make, if one is wanted.
        web: The folder for a web host to make, if one is wanted.
        runtime: Where the page there has ONNX Runtime from.
        data: What the model says it was trained on; None for the run's own.
        half: Whether to keep half precision.
        checkpoint: ``best`` or ``last``.
        onnx: Whether to write graphs too.
        dataset: The data that dreams begin with, if they are to begin with any.
        number_of_starts: How many starts at most.
        spread_codes: Whether latent dreams are made to move as that data does.
    """

    run: str
    out: Path | None
    web: Path | None
    runtime: str
    data: str | None
    half: bool
    checkpoint: str
    onnx: bool
    dataset: str | None
    number_of_starts: int
    spread_codes: bool


@click.command()
@click.argument("run", type=arguments.world)
@click.option("--out", type=click.Path(path_type=Path), help="The folder to make.")
@click.option(
    "--web",
    type=click.Path(path_type=Path),
    help="A folder to make for a web host: a page to play on.",
)
@click.option(
    "--runtime",
    default="cdn",
    show_default=True,
    help="Where that page has ONNX Runtime from: cdn, npm (copied now), or a folder with onnxruntime-web.",
)
@click.option("--data", help="What it says it was trained on, a preset's name for example. [the run's path]")
@click.option(
    "--half", is_flag=True, help="Half precision: half the size; evaluate it to see whether it matters."
)
@click.option(
    "--checkpoint", type=click.Choice(["best", "last"]), default="best", show_default=True, help="Which."
)
@click.option(
    "--onnx", is_flag=True, help="Write ONNX graphs too: dreams are stepped faster, and by other programs."
)
@click.option("--starts", "dataset", help="A dataset of real sequences, for dreams to begin with.")
@click.option(
    "--number-of-starts", type=int, default=2048, show_default=True, help="How many starts at most."
)
@click.option(
    "--spread-codes/--no-spread-codes",
    default=True,
    help="With --starts: spread expected codes, as far as latent dreams then move more like the data. [yes]",
)
def command(**given: Any) -> None:
    """Write the trained model in RUN as config.json and model.safetensors, without what only training needs.

    With --starts a folder is a whole environment: starts.npz holds where dreams begin, and, if the data has the
    positions of balls, uncertainty.json how far dreams go astray. With --onnx programs without PyTorch can run it, see
    docs/export.md. With --web the world can be played in a browser without a server, see docs/play.md.
    """
    request = _Request(**given)
    if request.out is None and request.web is None:
        raise ConfigError("nothing to make was named: give --out FOLDER, --web FOLDER, or both")
    for folder in (request.out, request.web):
        if folder is not None and folder.exists():
            raise OutputError(f"{folder} already exists: choose another folder, or remove it first")
    if request.out is not None:
        _export(request, request.out)
    if request.web is not None:
        _write_site(request, request.web)


def _write_site(request: _Request, web: Path) -> None:
    from rnem_world.play.web import write_site

    run = request.run if request.out is None else str(request.out)
    write_site(run, web, request.runtime, request.half, starts=request.dataset)
    size = sum(file.stat().st_size for file in web.iterdir()) / 1e6
    click.echo(f"{web}: {size:.1f} MB; try it with: python -m http.server --directory {web}")


def _export(request: _Request, out: Path) -> None:
    from rnem_world.training.checkpoint import load_model, save_checkpoint

    starts = None
    if request.dataset is not None:
        from rnem_world.envs.starts import starts_from_dataset

        starts = starts_from_dataset(request.dataset, request.number_of_starts)
    model, config = load_model(request.run, prefer=request.checkpoint)
    if request.dataset is not None:
        if request.spread_codes:
            _spread_codes(model, request.dataset)
        config = _settled(model, config, request.dataset)
    if request.half:
        model = model.half()
    if request.data is not None:
        config = replace(config, data=request.data)
        if config.data_path is not None:
            config = replace(config, data=str(config.data_path.absolute()))
    save_checkpoint(out, model, config)
    try:
        if request.onnx:
            _add_graphs(out)
        if starts is not None and request.dataset is not None:
            _add_starts(out, starts, request.dataset)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    size = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    click.echo(f"{out}: {size:.1f} MB")


def _spread_codes(model: WorldModel, data: str) -> None:
    from rnem_world.data.dataset import Dataset
    from rnem_world.evaluation.code_gain import fit_code_gain
    from rnem_world.seeding import torch_generator

    with Dataset.open(data) as dataset:
        found = fit_code_gain(
            model, dataset, _held_out(dataset), torch_generator(0, "code gain", device="cpu")
        )
    if found is None:
        return
    before, after = found.motion[0.0], found.motion[found.exponent]
    click.echo(
        f"latent dreams move {after:.2f} times as much as the data after many frames ({before:.2f} before), "
        f"codes spread with the exponent {found.exponent:g}"
    )


def _settled(model: WorldModel, config: RunConfig, data: str) -> RunConfig:
    """Measures how often slots are best shown a first frame; of a model without heads that is nobody's concern."""
    from rnem_world.data.dataset import Dataset
    from rnem_world.evaluation.settling import fit_settle_steps
    from rnem_world.seeding import torch_generator

    if model.heads is None:
        return config
    generator = torch_generator(0, "settling", device="cpu")
    with Dataset.open(data) as dataset:
        split = _held_out(dataset)
        found = fit_settle_steps(model, dataset, split, config.actions, config.still_actions, generator)
    if found is None:
        return config
    click.echo(
        f"slots are shown a first frame {found.steps} times: the frames that follow are then off by "
        f"{found.losses[found.steps]:.1f} nats, else by up to {max(found.losses.values()):.1f}"
    )
    return replace(config, settle_steps=found.steps)


def _held_out(dataset: Dataset) -> Split:
    return "validation" if "validation" in dataset.splits else dataset.splits[0]


def _add_graphs(out: Path) -> None:
    from rnem_world.models.export import export_graphs
    from rnem_world.training.checkpoint import MODEL_FILE, load_model

    model, _ = load_model(out)
    files = export_graphs(model, out / MODEL_FILE)
    click.echo(f"graphs: {', '.join(file.name for file in files)}")


def _add_starts(out: Path, starts: Starts, dataset: str) -> None:
    from rnem_world.data.dataset import Dataset
    from rnem_world.envs.calibration import calibrate, can_calibrate
    from rnem_world.envs.start_source import check_starts
    from rnem_world.envs.starts import STARTS_FILE, write_starts
    from rnem_world.envs.uncertainty import write_calibrations
    from rnem_world.envs.world import World

    world = World.load(out)
    check_starts(world, starts)
    write_starts(out / STARTS_FILE, starts)
    click.echo(f"{len(starts)} starts of {starts.actions.shape[1] + 1} frames from {dataset}")
    with Dataset.open(dataset) as opened:
        useful = can_calibrate(opened)
    if not useful:
        click.echo("no calibration of uncertainty: the data has no positions of balls, or is too short")
        return
    calibrations = calibrate(world, dataset)
    write_calibrations(out, calibrations)
    for each in calibrations:
        click.echo(
            f"uncertainty of dreams in the way {each.imagination}: rank correlation with the true error "
            f"{each.rank_correlation:.2f}"
        )

"""``rnem-world evaluate``: a table of figures, and the same as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnem_world.cli import arguments
from rnem_world.cli.arguments import (
    FIGURES,
    check_output,
    lasting,
    place_of,
    resolve_device,
    resolve_test_data,
    run_options,
)
from rnem_world.errors import ConfigError

if TYPE_CHECKING:
    from rnem_world.api import Trained
    from rnem_world.data.schema import Split
    from rnem_world.evaluation.imagination_figures import ImaginationFigures
    from rnem_world.evaluation.one_step import Evaluation

OF_ALL = ("run", "checkpoint", "seed", "out", "device", "threads")
# What is measured, by the option that asks for it; None one step ahead. Each has use for these options beside those.
_OF_DATA = ("data", "split", "slots", "sequences", "noise_probability", "batch_size", "figure")
MEASURES: dict[str | None, tuple[str, ...]] = {
    "obedience": ("context", "sequences", "players", "trust_policy"),
    "imagine": (*_OF_DATA, "context"),
    None: (*_OF_DATA, "steps", "ami_sequences"),
}
DRAWN = ("loss", "plain_bce")


@dataclass(frozen=True)
class _Request:
    """What is to be evaluated, and on what: the command's arguments, None where the usual is meant."""

    run: str
    trained: Trained
    data: Path
    split: Split
    sequences: int | None
    slots: int | None
    noise: float | None
    batch_size: int
    seed: int
    out: Path | None

    def write(self, figures: dict[str, Any], slots: int, kind: str) -> None:
        """Writes the figures as JSON, by default into the run's folder."""
        from rnem_world.io import write_json

        out = self.out or place_of(self.run) / f"{kind}-{self.data.stem}-{slots}-slots.json"
        origin = {
            "run": lasting(self.run),
            "data": str(self.data.absolute()),
            "split": self.split,
            "seed": self.seed,
        }
        write_json(out, {**origin, **figures})
        click.echo(f"written to {out}")


@click.command()
@click.argument("run", type=arguments.world)
@run_options
@click.option("--steps", type=int, help="Predictions in a sequence. [as trained]")
@click.option("--sequences", type=int, help="At most so many. [the run's test size, or 1000]")
@click.option(
    "--noise-probability",
    type=float,
    help="Flip input pixels so often. [as trained and 0, to --imagine as trained]",
)
@click.option(
    "--ami-sequences", type=int, default=100, show_default=True, help="Sequences for the slow AMI score."
)
@click.option(
    "--imagine",
    type=int,
    help="Measure dreams of so many frames instead: by the balls' positions where the data has them, else by pixels, "
    "slots (Hits@1, MRR), player and rewards.",
)
@click.option(
    "--context",
    type=int,
    help="Frames watched before --imagine. [15; where episodes are short, a quarter of one]",
)
@click.option(
    "--obedience",
    type=int,
    metavar="FRAMES",
    help="Play the real environment by its data's players and by others, and measure instead how dreams of so many "
    "frames obey: the pixels that actions decide.",
)
@click.option("--players", help="The data's players, to --obedience. [as the data says]")
@click.option("--trust-policy", is_flag=True, help="Unpickle the policies of files among --players.")
@click.option("--batch-size", type=int, default=32, show_default=True, help="Sequences at once.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file. [in the run's folder]")
@click.option(
    "--figure",
    type=click.Path(path_type=Path),
    help="Draw losses over the steps, or over imagined frames wrong pixels or the balls' errors (png, pdf, svg).",
)
def command(
    run: str,
    data: str | None,
    split: Split,
    slots: int | None,
    steps: int | None,
    sequences: int | None,
    noise_probability: float | None,
    ami_sequences: int,
    imagine: int | None,
    context: int | None,
    obedience: int | None,
    players: str | None,
    trust_policy: bool,
    batch_size: int,
    checkpoint: str,
    seed: int,
    out: Path | None,
    figure: Path | None,
    device: str,
    threads: int | None,
) -> None:
    """Evaluate the trained model in RUN one step ahead.

    RUN is a run, a checkpoint, the name of a shipped world, or hf://OWNER/NAME of the Hugging Face Hub.

    Prints the original program's figures, and honest ones beside them: the cross-entropy of a frame that was mixed
    without looking at it, FG-ARI and IoU; by default with the training's input noise, as the original evaluates, and
    without.
    """
    from rnem_world.api import Trained
    from rnem_world.models.config import validate_slots

    check_output(out, (".json",))
    check_output(figure, FIGURES)
    _check_used("obedience" if obedience is not None else "imagine" if imagine is not None else None)
    if obedience is not None:
        chosen = {
            "horizon": obedience,
            "context": context,
            "episodes": sequences,
            "players": players,
            "seed": seed,
        }
        given = {name: value for name, value in chosen.items() if value is not None}
        place = str(resolve_device(device, threads))
        _obedience(run, checkpoint, place, {**given, "trust_policy": trust_policy}, out)
        return
    trained = Trained.load(run, resolve_device(device, threads), checkpoint)
    if slots is not None:
        validate_slots(trained.config.model.core, slots)
    found = resolve_test_data(data or trained.config.data, split)
    request = _Request(run, trained, found, split, sequences, slots, noise_probability, batch_size, seed, out)
    if imagine is not None:
        _imagine(request, context, imagine, figure)
        return
    evaluation = _evaluate(request, steps, ami_sequences)
    if figure is not None:
        curves = {name: evaluation.curves[name] for name in DRAWN if name in evaluation.curves}
        _draw(curves, "prediction of the next frame", "step", "nats a frame", figure)


def _check_used(measure: str | None) -> None:
    """Refuses options that what is measured has no use for.

    Args:
        measure: A key of `MEASURES`.

    Raises:
        ConfigError: Naming the first of them.
    """
    context = click.get_current_context()
    known = {*OF_ALL, *MEASURES[measure]} | ({measure} if measure else set())
    for parameter in context.command.params:
        name = str(parameter.name)
        if name in known or context.get_parameter_source(name) is click.core.ParameterSource.DEFAULT:
            continue
        flag = parameter.opts[0]
        if measure is not None:
            raise ConfigError(f"{flag} was given beside --{measure}, which has no use for it: leave one out")
        users = " and ".join(f"--{other}" for other, names in MEASURES.items() if other and name in names)
        raise ConfigError(f"{flag} is for {users}: give that too, or leave it out")


def _evaluate(request: _Request, steps: int | None, ami_sequences: int) -> Evaluation:
    """Evaluates one step ahead, prints and writes the figures, and gives those of the least noise."""
    from rnem_world.api import evaluate
    from rnem_world.evaluation.report import figures_table

    options = request.trained.config.training
    noises = [options.noise.usual_strength, 0.0] if request.noise is None else [request.noise]
    evaluations = [
        evaluate(
            request.trained,
            request.data,
            split=request.split,
            sequences=request.sequences,
            slots=request.slots,
            steps=steps,
            noise=noise,
            ami_sequences=ami_sequences,
            batch_size=request.batch_size,
            seed=request.seed,
            progress=True,
        )
        for noise in dict.fromkeys(noises)
    ]
    first = evaluations[0]
    click.echo(
        f"{request.run} on {request.split} of {request.data}: {first.sequences} of {first.available} sequences, "
        f"{len(first.curves['loss'])} steps, {first.slots} slots; losses in nats a frame"
    )
    for line in figures_table(evaluations, options.last_steps):
        click.echo(line)
    request.write(
        {"evaluations": [evaluation.to_dict() for evaluation in evaluations]}, first.slots, "evaluation"
    )
    return evaluations[-1]


def _imagine(request: _Request, context: int | None, horizon: int, figure: Path | None) -> None:
    """Measures imagined frames, in pixels and, where the model can, latent; prints, writes and draws the figures."""
    from rnem_world.api import evaluate_dreams
    from rnem_world.evaluation.report import imagination_table

    config = request.trained.config
    noise = config.training.noise.usual_strength if request.noise is None else request.noise
    dreams = evaluate_dreams(
        request.trained,
        request.data,
        horizon,
        context=context,
        split=request.split,
        sequences=request.sequences,
        slots=request.slots,
        noise=noise,
        batch_size=request.batch_size,
        seed=request.seed,
    )
    figures, latent = dreams.drawn, dreams.latent
    click.echo(
        f"{request.run} dreaming of {request.split} of {request.data}: {dreams.sequences} sequences, "
        f"{figures.context} context frames, noise {noise:g}"
        + ("; errors in radii" if dreams.has_positions else "")
    )
    for line in imagination_table(figures, latent):
        click.echo(line)
    request.write(
        {"noise": noise, **figures.to_dict(), "latent": None if latent is None else latent.to_dict()},
        request.slots or config.model.slots,
        "imagination",
    )
    if figure is not None:
        curves, what, unit = _dreamt_curves(figures, latent)
        _draw(curves, f"imagined frames: {what}", "imagined frame", unit, figure)


def _dreamt_curves(
    figures: ImaginationFigures, latent: ImaginationFigures | None
) -> tuple[dict[str, list[float]], str, str]:
    """Gives the curves that tell how far dreams stay true, what they measure, and its unit."""
    from rnem_world.evaluation.imagination_figures import NOTHING

    dreams = {"in pixels": figures} | ({} if latent is None else {"latent": latent})
    if figures.objects is not None:
        what, unit = "errors of the balls' positions", "radii"
        curves = {name: each.objects.position_errors for name, each in dreams.items() if each.objects}
        curves["constant velocity and walls"] = figures.objects.constant_velocity_errors
    else:
        what, unit = "wrong pixels", "pixels a frame"
        curves = {name: each.frames.wrong_pixels for name, each in dreams.items()}
        curves["copy of the last frame"] = figures.frames.copy_wrong_pixels
    # A curve ends where no episode lasts any longer.
    gaps = {
        name: [math.nan if value == NOTHING else value for value in values] for name, values in curves.items()
    }
    return gaps, what, unit


def _obedience(run: str, checkpoint: str, device: str, options: dict[str, Any], out: Path | None) -> None:
    """Plays the real environment, measures how dreams obey, prints and writes the figures."""
    from dataclasses import asdict

    from rnem_world.agents.obedience import ObedienceConfig, measure_obedience, obedience_table
    from rnem_world.envs.world import World
    from rnem_world.io import write_json
    from rnem_world.training.checkpoint import find_checkpoint

    config = ObedienceConfig(**options)
    world = World.load(find_checkpoint(run, checkpoint), device)
    found = measure_obedience(world, config, click.echo)
    first = found[0].figures
    click.echo(
        f"{run} under the actions of its data's players ({found[0].player}) and of others, {first.sequences} real "
        f"episodes, {first.context + 1} frames watched"
    )
    for line in obedience_table(found):
        click.echo(line)
    out = out or place_of(run) / "obedience.json"
    write_json(out, {"run": lasting(run), **asdict(config), "obedience": [each.as_json() for each in found]})
    click.echo(f"written to {out}")


def _draw(
    curves: Mapping[str, Sequence[float]], title: str, counted: str, measured: str, figure: Path
) -> None:
    from rnem_world.evaluation.pictures import curves_figure, save_figure

    save_figure(curves_figure(curves, title, counted, measured), figure)
    click.echo(f"drawn to {figure}")

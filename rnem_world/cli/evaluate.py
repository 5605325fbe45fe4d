"""``rnem-world evaluate``: a table of figures, and the same as JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace
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

if TYPE_CHECKING:
    from rnem_world.data.schema import Split
    from rnem_world.evaluation.imagination import ImaginationFigures
    from rnem_world.evaluation.one_step import Evaluation
    from rnem_world.models.rollout import Imagination
    from rnem_world.models.world_model import WorldModel
    from rnem_world.training.config import RunConfig

DEFAULT_SEQUENCES, DEFAULT_DREAMS = 1000, 500


@dataclass(frozen=True)
class _Request:
    """What is to be evaluated, and on what: the command's arguments, None where the usual is meant."""

    run: str
    model: WorldModel
    config: RunConfig
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
@click.option("--context", type=int, default=15, show_default=True, help="Frames watched before --imagine.")
@click.option("--batch-size", type=int, default=32, show_default=True, help="Sequences at once.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file. [in the run's folder]")
@click.option(
    "--figure", type=click.Path(path_type=Path), help="Draw the figures over the steps (png, pdf, svg)."
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
    context: int,
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
    from rnem_world.models.config import validate_slots
    from rnem_world.training.checkpoint import load_model

    check_output(out)
    check_output(figure, FIGURES)
    model, config = load_model(run, resolve_device(device, threads), checkpoint)
    if slots is not None:
        validate_slots(config.model.core, slots)
    found = resolve_test_data(data or config.data, split)
    request = _Request(
        run, model, config, found, split, sequences, slots, noise_probability, batch_size, seed, out
    )
    if imagine is not None:
        _imagine(request, context, imagine)
        return
    weights = config.training.weights if steps is None else (1.0,) * steps
    evaluation = _evaluate(request, weights, ami_sequences)
    if figure is not None:
        _draw(evaluation, figure)


def _evaluate(request: _Request, weights: tuple[float, ...], ami_sequences: int) -> Evaluation:
    """Evaluates one step ahead, prints and writes the figures, and gives those of the least noise."""
    from tqdm import tqdm

    from rnem_world.data.dataset import Dataset
    from rnem_world.data.loader import LoaderConfig, SequenceLoader
    from rnem_world.evaluation.one_step import EvaluationConfig, evaluate
    from rnem_world.evaluation.report import figures_table
    from rnem_world.seeding import torch_generator
    from rnem_world.training.presets import check_fits, wanted_arrays

    model, config, options = request.model, request.config, request.config.training
    trained_noise = options.noise.usual_probability
    noises = [trained_noise, 0.0] if request.noise is None else [request.noise]
    evaluations: list[Evaluation] = []
    with Dataset.open(request.data) as dataset:
        info = dataset.info(request.split)
        check_fits(config, info)
        limit = options.test_size or DEFAULT_SEQUENCES if request.sequences is None else request.sequences
        loader = SequenceLoader(
            dataset,
            request.split,
            LoaderConfig(
                batch_size=request.batch_size,
                number_of_frames=len(weights) + 1,
                limit=min(limit, info.number_of_sequences),
                memory_gigabytes=options.memory_gigabytes,
                drop_last=False,
                shuffle=False,
            ),
            seed=request.seed,
            arrays=wanted_arrays(dataset, request.split, config),
        )
        for noise in dict.fromkeys(noises):
            how = EvaluationConfig(
                weights, request.slots, noise, options.loss, options.last_steps, ami_sequences
            )
            generator = torch_generator(request.seed, device=next(model.parameters()).device)
            bar = tqdm(
                loader.epoch(0), total=len(loader), desc=f"noise {noise:g}", unit="batch", disable=None
            )
            evaluations.append(evaluate(model, iter(bar), how, generator))
    first = evaluations[0]
    click.echo(
        f"{request.run} on {request.split} of {request.data}: {first.sequences} of {info.number_of_sequences} "
        f"sequences, {len(weights)} steps, {first.slots} slots; losses in nats a frame"
    )
    for line in figures_table(evaluations, options.last_steps):
        click.echo(line)
    request.write(
        {"evaluations": [evaluation.to_dict() for evaluation in evaluations]}, first.slots, "evaluation"
    )
    return evaluations[-1]


def _imagine(request: _Request, context: int, horizon: int) -> None:
    """Measures imagined frames, in pixels and, where the model can, latent; prints and writes the figures."""
    from rnem_world.data.dataset import Dataset
    from rnem_world.evaluation.imagination import check_length, evaluate_imagination
    from rnem_world.evaluation.report import imagination_table
    from rnem_world.evaluation.truth import read_truth
    from rnem_world.models.rollout import RolloutConfig
    from rnem_world.seeding import torch_generator
    from rnem_world.training.presets import check_fits

    model, config = request.model, request.config
    device = next(model.parameters()).device
    noise = config.training.noise.usual_probability if request.noise is None else request.noise
    how = RolloutConfig(context, horizon, noise=noise, slots=request.slots)
    with Dataset.open(request.data) as dataset:
        info = dataset.info(request.split)
        check_fits(config, info)
        check_length(how, info.number_of_frames)
        count = min(
            DEFAULT_DREAMS if request.sequences is None else request.sequences, info.number_of_sequences
        )
        truth = read_truth(dataset, request.split, count, context + horizon + 1, device)

    def measure(imagination: Imagination) -> ImaginationFigures:
        generator = torch_generator(request.seed, "imagination", device=device)
        chosen = replace(how, imagination=imagination)
        return evaluate_imagination(model, truth, chosen, generator, request.batch_size)

    is_hard = config.model.is_world_model or truth.objects is not None
    figures = measure("pixels" if is_hard else "soft")
    latent = None if model.prior_code is None else measure("latent")
    click.echo(
        f"{request.run} dreaming of {request.split} of {request.data}: {count} sequences, {context} context frames, "
        f"noise {noise:g}" + ("" if truth.objects is None else "; errors in radii")
    )
    for line in imagination_table(figures, latent):
        click.echo(line)
    request.write(
        {"noise": noise, **figures.to_dict(), "latent": None if latent is None else latent.to_dict()},
        request.slots or config.model.slots,
        "imagination",
    )


def _draw(evaluation: Evaluation, figure: Path) -> None:
    from rnem_world.evaluation.pictures import curves_figure, save_figure

    chosen = {name: values for name, values in evaluation.curves.items() if name in ("loss", "plain_bce")}
    save_figure(curves_figure(chosen, "prediction of the next frame", "step", "nats a frame"), figure)
    click.echo(f"drawn to {figure}")

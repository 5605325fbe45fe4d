"""``rnem-world evaluate``: a table of figures, and the same as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnem_world.cli.open_loop import measure_open_loop
from rnem_world.cli.options import run_options
from rnem_world.cli.resolve import FIGURES, check_output, resolve_device, resolve_test_data
from rnem_world.errors import ConfigError

if TYPE_CHECKING:
    from rnem_world.evaluation.evaluate import Evaluation, EvaluationConfig
    from rnem_world.evaluation.imagination import ImaginationFigures
    from rnem_world.models.world_model import WorldModel
    from rnem_world.training.config import RunConfig
DEFAULT_SEQUENCES, DEFAULT_DREAMS = 1000, 500


@click.command()
@click.argument("run")
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
    split: str,
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
    """Evaluate the trained model in RUN (a run, a checkpoint, or a shipped world) one step ahead.

    Prints the original program's figures, and honest ones beside them: the cross-entropy of a frame that was mixed
    without looking at it, FG-ARI and IoU; by default with the training's input noise, as the original evaluates, and
    without.
    """
    from rnem_world.data.dataset import Dataset
    from rnem_world.data.loader import LoaderConfig, SequenceLoader
    from rnem_world.evaluation.evaluate import EvaluationConfig, evaluate
    from rnem_world.evaluation.table import figures_table
    from rnem_world.io import write_json
    from rnem_world.models.config import validate_slots
    from rnem_world.seeding import torch_generator
    from rnem_world.training.checkpoint import load_model
    from rnem_world.training.presets import check_fits, wanted_arrays

    check_output(out)
    check_output(figure, FIGURES)
    place = resolve_device(device, threads)
    model, config = load_model(run, place, checkpoint)
    if slots is not None:
        validate_slots(config.model.core, slots)
    options = config.training
    data_path = resolve_test_data(data or config.data, split)
    if imagine is not None:
        count = DEFAULT_DREAMS if sequences is None else sequences
        noise = options.noise.usual_probability if noise_probability is None else noise_probability
        _imagine(
            run, model, config, data_path, split, count, slots, context, imagine, noise, batch_size, seed, out
        )
        return
    weights = options.weights if steps is None else (1.0,) * steps
    trained_noise = options.noise.usual_probability
    noises = [trained_noise, 0.0] if noise_probability is None else [noise_probability]
    evaluations: list[Evaluation] = []
    with Dataset.open(data_path) as dataset:
        info = dataset.info(split)  # type: ignore[arg-type]  # click checked the name
        check_fits(config, info.channels, (info.height, info.width), info.number_of_actions)
        limit = sequences if sequences is not None else options.test_size or DEFAULT_SEQUENCES
        loader = SequenceLoader(
            dataset,
            split,  # type: ignore[arg-type]
            LoaderConfig(
                batch_size=batch_size,
                number_of_frames=len(weights) + 1,
                limit=min(limit, info.number_of_sequences),
                memory_gigabytes=options.memory_gigabytes,
                drop_last=False,
                shuffle=False,
            ),
            seed=seed,
            arrays=wanted_arrays(dataset, split, config),  # type: ignore[arg-type]
        )
        for noise in dict.fromkeys(noises):
            how = EvaluationConfig(weights, slots, noise, options.loss, options.last_steps, ami_sequences)
            evaluations.append(
                _with_progress(evaluate, model, loader, how, torch_generator(seed, device=place))
            )
    first = evaluations[0]
    click.echo(
        f"{run} on {split} of {data_path}: {first.sequences} of {info.number_of_sequences} sequences, "
        f"{len(weights)} steps, {first.slots} slots; losses in nats a frame"
    )
    for line in figures_table(evaluations, options.last_steps):
        click.echo(line)
    out = out or _default_out(run, data_path, first.slots)
    write_json(
        out,
        {
            "run": str(run),
            "data": str(data_path),
            "split": split,
            "seed": seed,
            "evaluations": [evaluation.to_dict() for evaluation in evaluations],
        },
    )
    click.echo(f"written to {out}")
    if figure is not None:
        _draw(evaluations[-1], figure)


def _with_progress(
    evaluate: Any, model: Any, loader: Any, how: EvaluationConfig, generator: Any
) -> Evaluation:
    from tqdm import tqdm

    bar = tqdm(loader.epoch(0), total=len(loader), desc=f"noise {how.noise:g}", unit="batch", disable=None)
    evaluation: Evaluation = evaluate(model, iter(bar), how, generator)
    return evaluation


def _imagine(
    run: str,
    model: WorldModel,
    config: RunConfig,
    data: Path,
    split: str,
    sequences: int,
    slots: int | None,
    context: int,
    horizon: int,
    noise: float,
    batch_size: int,
    seed: int,
    out: Path | None,
) -> None:
    from rnem_world.data.dataset import Dataset
    from rnem_world.evaluation.imagination import check_length, evaluate_imagination
    from rnem_world.evaluation.table import imagination_table
    from rnem_world.evaluation.truth import read_truth
    from rnem_world.io import write_json
    from rnem_world.seeding import torch_generator
    from rnem_world.training.presets import check_fits

    device = next(model.parameters()).device
    with Dataset.open(data) as dataset:
        info = dataset.info(split)  # type: ignore[arg-type]
        check_fits(config, info.channels, (info.height, info.width), info.number_of_actions)
        check_length(context, horizon, info.number_of_frames)
        count = min(sequences, info.number_of_sequences)
        if "positions" not in info.arrays:
            out = out or _default_out(run, data, slots or config.model.slots, "imagination")
            measure_open_loop(
                run, model, dataset, split, count, slots, context, horizon, noise, batch_size, seed, out
            )
            return
        truth = read_truth(dataset, split, count, context + horizon + 1, device)  # type: ignore[arg-type]

    def measure(imagination: str) -> ImaginationFigures:
        generator = torch_generator(seed, "imagination", device=device)
        return evaluate_imagination(
            model, truth, context, horizon, generator, slots, noise, batch_size, imagination
        )

    figures = measure("pixels")
    latent = None if model.prior_code is None else measure("latent")
    click.echo(
        f"{run} dreaming of {split} of {data}: {count} sequences, {context} context frames, noise {noise:g}; "
        "errors in radii"
    )
    for line in imagination_table(figures, latent):
        click.echo(line)
    out = out or _default_out(run, data, slots or config.model.slots, "imagination")
    write_json(
        out,
        {
            "run": str(run),
            "data": str(data),
            "split": split,
            "seed": seed,
            "noise": noise,
            **figures.to_dict(),
            "latent": None if latent is None else latent.to_dict(),
        },
    )
    click.echo(f"written to {out}")


def _default_out(run: str, data: Path, slots: int, kind: str = "evaluation") -> Path:
    name = f"{kind}-{data.stem}-{slots}-slots.json"
    return Path(run) / name if Path(run).is_dir() else Path(name)


def _draw(evaluation: Evaluation, figure: Path) -> None:
    from rnem_world.evaluation.plots import curves_figure, save_figure

    chosen = {name: values for name, values in evaluation.curves.items() if name in ("loss", "plain_bce")}
    if not chosen:
        raise ConfigError("there is no curve to draw")
    save_figure(curves_figure(chosen, "prediction of the next frame", "step", "nats a frame"), figure)
    click.echo(f"drawn to {figure}")

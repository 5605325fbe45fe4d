"""``rnem-world rollout``: watch, imagine, and write the video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from rnem_world.cli import arguments
from rnem_world.cli.arguments import (
    FIGURES,
    VIDEOS,
    check_output,
    lasting,
    place_of,
    resolve_device,
    resolve_test_data,
    run_options,
)

if TYPE_CHECKING:
    from rnem_world.api import RolloutInput
    from rnem_world.data.schema import Split
    from rnem_world.models.config import LossConfig
    from rnem_world.models.rollout import Imagination, Rollout


@click.command()
@click.argument("run", type=arguments.world)
@run_options
@click.option("--sequence", "sequences", type=int, multiple=True, help="Which, may be repeated. [0 1 2]")
@click.option(
    "--context",
    type=int,
    help="Predictions from real frames. [as many steps as trained; for world models 15]",
)
@click.option("--steps", type=click.IntRange(0), default=20, show_default=True, help="Imagined frames.")
@click.option(
    "--imagination",
    type=click.Choice(["soft", "pixels", "latent"]),
    help="How an imagined frame becomes the next input: soft as the paper's; pixels, in black and white; or latent, "
    "without drawing it. [soft, for world models pixels]",
)
@click.option(
    "--noise-probability",
    type=float,
    help="Flip pixels of the inputs so often, real or imagined. [as trained]",
)
@click.option("--with-slots", is_flag=True, help="Add a panel for each slot.")
@click.option("--fps", type=float, default=10.0, show_default=True, help="Frames a second.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="mp4, gif, webp, or png for a sheet. [RUN/rollout.mp4]"
)
@click.option(
    "--figure", type=click.Path(path_type=Path), help="Draw the overview figure of the first (png, pdf, svg)."
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Losses per step. [beside the video]"
)
def command(
    run: str,
    data: str | None,
    split: Split,
    sequences: tuple[int, ...],
    context: int | None,
    steps: int,
    slots: int | None,
    imagination: Imagination | None,
    noise_probability: float | None,
    with_slots: bool,
    fps: float,
    checkpoint: str,
    seed: int,
    out: Path | None,
    figure: Path | None,
    json_path: Path | None,
    device: str,
    threads: int | None,
) -> None:
    """Let the trained model in RUN watch a sequence, imagine on, and write the video.

    RUN is a run, a checkpoint, the name of a shipped world, or hf://OWNER/NAME of the Hugging Face Hub.

    The panels show the truth, the prediction, and the prediction in the colours of the slots; a bar below turns from
    grey to orange where the model starts to imagine.
    """
    from rnem_world.api import Trained, rollout_input
    from rnem_world.evaluation.pictures import overview, save_figure
    from rnem_world.evaluation.video import write_video
    from rnem_world.io import write_json
    from rnem_world.models.rollout import roll_out
    from rnem_world.seeding import torch_generator

    check_output(out, VIDEOS)
    check_output(json_path, (".json",))
    check_output(figure, FIGURES)
    trained = Trained.load(run, resolve_device(device, threads), checkpoint)
    data_path = resolve_test_data(data or trained.config.data, split)
    given = rollout_input(
        trained,
        data_path,
        split=split,
        sequences=sequences,
        context=context,
        horizon=steps,
        imagination=imagination,
        slots=slots,
        noise=noise_probability,
    )
    frames, context = given.frames, given.how.context
    generator = torch_generator(seed, "rollout", device=trained.device)
    rollout = roll_out(trained.model, frames, given.how, given.actions, generator)
    out = out or place_of(run) / "rollout.mp4"
    write_video(out, _film(rollout, given, with_slots), fps)
    click.echo(f"video of {context} context and {steps} imagined frames: {out}")
    json_path = json_path or out.with_suffix(".json")
    write_json(
        json_path,
        {
            "run": lasting(run),
            "data": str(data_path.absolute()),
            "sequences": given.sequences,
            "begins": given.begins,
            "context": context,
            "imagination": given.how.imagination,
            **_losses(rollout, given, trained.config.training.loss),
        },
    )
    click.echo(f"losses per step: {json_path}")
    if figure is not None:
        save_figure(
            overview(
                rollout, frames, 0, f"sequence {given.sequences[0]}: {context} context, {steps} imagined"
            ),
            figure,
        )
        click.echo(f"overview figure: {figure}")


def _film(rollout: Rollout, given: RolloutInput, with_slots: bool) -> np.ndarray:
    from rnem_world.evaluation.pictures import rollout_panels
    from rnem_world.evaluation.video import compose_panels

    total = rollout.predictions.shape[1]
    imagined = [step >= rollout.context for step in range(total)]
    films = []
    for index in range(given.frames.shape[0]):
        panels = rollout_panels(rollout, given.frames, index, with_slots)
        texts = _texts(given, index, total)
        films.append(compose_panels(panels, imagined, texts))
    film: np.ndarray = np.concatenate(films, axis=1)
    return film


def _texts(given: RolloutInput, index: int, total: int) -> list[str] | None:
    """Says what is done in each frame, and from where on the true frames are of another episode."""
    if given.actions is None and given.lasts is None:
        return None
    texts = [""] * total
    if given.actions is not None:
        done = given.actions[index, :total].tolist()
        texts = [f"action {_numbers(action)}" for action in done]
    if given.lasts is not None:
        lasts = given.lasts[index, 1 : total + 1].tolist()
        texts = [text if is_same else "episode over" for text, is_same in zip(texts, lasts, strict=True)]
    return texts


def _numbers(action: int | float | list[int] | list[float]) -> str:
    return " ".join(f"{number:.3g}" for number in (action if isinstance(action, list) else [action]))


def _losses(rollout: Rollout, given: RolloutInput, config: LossConfig) -> dict[str, list[float]]:
    """Means over the sequences after each step, while their episodes last, in nats a frame."""
    frames = given.frames
    likelihood, shape = rollout.likelihood, rollout.predictions.shape[:2]
    logits, gammas, targets = (
        tensor.flatten(0, 1) for tensor in (rollout.logits, rollout.estep_gammas, frames[:, 1 : shape[1] + 1])
    )
    mixture = likelihood.mix(rollout.predictions, likelihood.soft_gamma(rollout.predictions)).flatten(0, 1)
    curves = {
        "loss": likelihood.slot_losses(logits, gammas, targets, config).total,
        "upper_bound": likelihood.upper_bound_losses(logits, targets, config).total,
        "plain_bce": likelihood.frame_loss(mixture, targets),
    }
    if given.lasts is None:
        return {name: values.unflatten(0, shape).mean(dim=0).tolist() for name, values in curves.items()}
    lasts = given.lasts[:, 1 : shape[1] + 1]
    counts = lasts.sum(dim=0).clamp(min=1)
    return {
        name: ((values.unflatten(0, shape) * lasts).sum(dim=0) / counts).tolist()
        for name, values in curves.items()
    }

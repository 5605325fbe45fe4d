"""``rnem-world train``: from data to a trained model."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnem_world.cli.options import (
    add_flags,
    given_values,
    merged,
    read_options_file,
    set_path,
)
from rnem_world.cli.resolve import resolve_data, resolve_device, resolve_game
from rnem_world.cli.train_flags import FIXED, RESUMABLE
from rnem_world.cli.world_defaults import ENVIRONMENTS, GAME, WORLD_DATA, suited_to, usual_for
from rnem_world.distributed import from_torchrun
from rnem_world.errors import CheckpointError, ConfigError, suggest
from rnem_world.models.config import MODELS

if TYPE_CHECKING:
    from rnem_world.models.config import ModelConfig
    from rnem_world.training.config import RunConfig


@click.command()
@click.option(
    "--env",
    "environment",
    default="balls",
    show_default=True,
    help="Where data comes from, and whose usual options hold: balls or atari.",
)
@click.option("--game", help="atari: the game. [SpaceInvaders]")
@click.option("--data", help="Dataset or preset; without one, that of --preset or --game is collected.")
@click.option(
    "--preset", help="What to collect when there is no --data. [balls4mass64, for a world model avoid]"
)
@click.option("--model", "model_name", help=f"{', '.join(MODELS)}. [r_nem]")
@click.option("--slots", type=int, help="Number of slots, K. [5, for rnn and lstm 1]")
@click.option(
    "--architecture",
    help="conv64, conv84, conv32 or projection32. [by the frames' size]",
)
@click.option("--feed-actions", is_flag=True, help="Tell the model what the player does.")
@click.option(
    "--world-model",
    is_flag=True,
    help="Train a model to dream in: actions, rewards, motion, gated slots, closed loops; see docs/world-model.md.",
)
@click.option("--config", "options_file", type=click.Path(path_type=Path), help="Options as YAML or JSON.")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder. [runs/MODEL-DATA]")
@click.option("--resume", is_flag=True, help="Continue the run in --out as if it had never stopped.")
@click.option("--start-from", help="Checkpoint, run or shipped world whose weights to start with.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1 ...")
@click.option("--threads", type=int, help="CPU threads. [all cores]")
@add_flags([*RESUMABLE, *FIXED])
def command(
    environment: str,
    game: str | None,
    data: str | None,
    preset: str | None,
    model_name: str | None,
    slots: int | None,
    architecture: str | None,
    feed_actions: bool,
    world_model: bool,
    options_file: Path | None,
    out: Path | None,
    resume: bool,
    start_from: str | None,
    device: str,
    threads: int | None,
    **parameters: Any,
) -> None:
    """Train R-NEM or one of its baselines.

    With no data at hand the preset's default set is collected first. A run's folder keeps its configuration, log,
    TensorBoard files and checkpoints; Ctrl-C saves and stops.
    """
    is_atari = environment == "atari"
    if environment not in ENVIRONMENTS:
        raise ConfigError(f"unknown environment {environment!r}: {suggest(environment, ENVIRONMENTS)}")
    if preset is not None and is_atari:
        raise ConfigError("--preset names balls: with --env atari give --game, or leave it out")
    if game is not None and not is_atari:
        raise ConfigError(f"--game {game} is for --env atari: add that, or leave it out")
    if from_torchrun().world_size > 1:
        # Keeps DistributedDataParallel from remarking in every process that no parameter went unused.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if model_name is not None and model_name not in MODELS:
        raise ConfigError(f"unknown model {model_name!r}: {suggest(model_name, MODELS)}")
    if resume:
        if out is None:
            raise ConfigError("--resume needs --out, the folder of the run to continue")
        choices = (model_name, slots, architecture, start_from, options_file)
        if (
            given_values(FIXED, parameters)
            or feed_actions
            or world_model
            or any(choice is not None for choice in choices)
        ):
            raise ConfigError(
                "--resume continues the run as it was configured: leave out the model's and the data's options, or "
                "begin a new run with --start-from"
            )
        config = _resumed_config(out, given_values(RESUMABLE, parameters))
        path = Path(data or config.data)
    else:
        flags = given_values([*RESUMABLE, *FIXED], parameters)
        for name, value in (("slots", slots), ("architecture", architecture)):
            if value is not None:
                set_path(flags, f"model.{name}", value)
        file = {} if options_file is None else read_options_file(options_file)
        usual_options = usual_for(environment, world_model, MODELS[model_name or "r_nem"][1])
        values = _new_values(model_name, merged(usual_options, file), flags)
        config = _build(values)
        if is_atari and not (data or config.data):
            path = resolve_game(game or GAME)
        else:
            usual = "avoid" if world_model else "balls4mass64"
            path = resolve_data(data or config.data or preset or usual, **(WORLD_DATA if world_model else {}))
        architecture = values["model"].get("architecture")
        feed_actions = feed_actions or config.model.number_of_actions > 0
        if world_model:
            suited = suited_to(path)
            architecture = architecture or suited.architecture
            feed_actions = feed_actions or suited.has_actions
            if not suited.has_rewards:
                config = replace(config, model=replace(config.model, heads=False))
    _check_schedule_flags(config, parameters)
    _run(config, path, out, resume, start_from, device, threads, feed_actions, architecture)


def _check_schedule_flags(config: RunConfig, parameters: dict[str, Any]) -> None:
    """Refuses flags of a schedule where there is none; a resumed run may keep such options, which then do nothing."""
    for name in ("schedule_updates", "schedule_after", "final_learning_rate"):
        if parameters[name] is not None and config.training.optimizer.schedule == "constant":
            raise ConfigError(
                f"--{name.replace('_', '-')} was given, but the learning rate is constant: add "
                "--learning-rate-schedule cosine (or linear), or leave it out"
            )


def _new_values(model_name: str | None, file: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """Merges the options of a new run: a flag wins over the file, the file over the model's defaults."""
    core, slots = MODELS[model_name or "r_nem"]
    if model_name is not None:
        set_path(flags, "model.core", core)
    return merged(merged({"model": {"core": core, "slots": slots}}, file), flags)


def _run_name(model: ModelConfig, data: Path) -> str:
    if model.is_world_model:
        return f"world-{data.stem}"
    names = {kind: name for name, kind in MODELS.items()}
    usual = names.get((model.core, model.slots))
    if usual is not None:
        return f"{usual}-{data.stem}"
    name = next(name for name, (core, _) in MODELS.items() if core == model.core)
    return f"{name}-{model.slots}-slots-{data.stem}"


def _build(values: dict[str, Any]) -> RunConfig:
    from rnem_world.config import build
    from rnem_world.training.config import RunConfig

    return build(RunConfig, values)


def _resumed_config(out: Path, flags: dict[str, Any]) -> RunConfig:
    from dataclasses import asdict

    from rnem_world.training.checkpoint import read_config

    if not (out / "config.json").is_file():
        raise CheckpointError(f"{out} holds no run to resume: train without --resume")
    # A sitting's own limits end with it.
    sitting = {"training": {"max_minutes": None}}
    return _build(merged(merged(asdict(read_config(out)), sitting), flags))


def _run(
    config: RunConfig,
    data: Path,
    out: Path | None,
    resume: bool,
    start_from: str | None,
    device: str,
    threads: int | None,
    feed_actions: bool,
    architecture: str | None,
) -> None:
    from rnem_world.data.dataset import Dataset
    from rnem_world.distributed import joined
    from rnem_world.training.presets import fit_model_to
    from rnem_world.training.trainer import make_trainer

    processes = from_torchrun()
    place = resolve_device(device, threads, processes)
    out = out or Path("runs") / _run_name(config.model, data)
    report = click.echo if processes.is_first else _say_nothing
    with joined(processes, place), Dataset.open(data) as dataset:
        if not resume:
            config = fit_model_to(dataset, config, feed_actions, architecture)
        trainer = make_trainer(config, dataset, out, place, report, resume, start_from, processes)
        count = sum(parameter.numel() for parameter in trainer.model.parameters())
        among = f" by {processes.world_size} processes" if processes.world_size > 1 else ""
        report(
            f"training {config.model.core} ({count / 1e6:.2f} M parameters, {config.model.slots} slots) on {data}"
            f"{among}, into {out}"
        )
        evaluation = trainer.fit()
    if trainer.signal is not None:
        sys.exit(128 + trainer.signal)
    if evaluation is not None:
        report(f"validation loss {evaluation.loss:.2f}; evaluate with `rnem-world evaluate {out}`")


def _say_nothing(line: str) -> None:
    """What all processes but the first report."""

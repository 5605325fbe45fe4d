"""``rnem-world train``: from data to a trained model."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from rnem_world.cli import arguments
from rnem_world.cli.arguments import (
    add_flags,
    flags_of,
    given_values,
    lasting,
    resolve_data,
    resolve_device,
    resolve_game,
)
from rnem_world.cli.environments import (
    FRAME_NAMES,
    check_unused,
    collected,
    flag_of,
    frame_options,
    given_options,
)
from rnem_world.config import build, merged, read_options_file, set_path
from rnem_world.distributed import from_torchrun
from rnem_world.errors import CheckpointError, ConfigError, suggest
from rnem_world.models.config import FAMILIES, MODELS, ModelConfig
from rnem_world.training.config import RunConfig

ENVIRONMENTS, GAME = ("balls", "atari"), "SpaceInvaders"
ANY = "any"
"""Stands for environments of others beside data that is given, of which nobody may know the name."""
# These may change when a run is resumed; everything else is part of what the run is.
_RESUMABLE = """
    epochs patience max_updates max_minutes checkpoint_minutes keep_checkpoints save_epochs score_every
    memory_gigabytes accumulate execution.precision execution.compile optimizer.learning_rate
    optimizer.schedule=learning-rate-schedule optimizer.schedule_updates optimizer.schedule_after
    optimizer.final_learning_rate optimizer.warm_up_updates optimizer.clip_norm optimizer.clip_by optimizer.clip_factor
"""
_FIXED = """
    sequence_steps=steps chunk_steps step_weights loss.inter_weight loss.pixel_prior loss.motion_weight noise.type=noise
    noise.probability=noise-probability optimizer.name=optimizer optimizer.momentum batch_size train_size valid_size
    test_size window relational_loss last_steps seed
"""
RESUMABLE = flags_of(RunConfig, [f"training.{path}" for path in _RESUMABLE.split()])
FIXED = flags_of(
    RunConfig,
    ["model.hidden_size", "model.initial_prediction", *(f"training.{path}" for path in _FIXED.split())],
)


@click.command()
@click.option(
    "--env",
    "environment",
    show_default="balls",
    help="Where data comes from, and whose usual options hold: balls, atari, or any environment of Gymnasium by its id "
    "(MODULE:ID imports MODULE first; MODULE:CLASS needs no id); beside --data also any, which names none.",
)
@frame_options
@click.option("--policy", help="Who acts where data is collected, see `rnem-world collect`.")
@click.option(
    "--trust-policy", is_flag=True, default=None, help="Unpickle the policy, see `rnem-world collect`."
)
@click.option("--game", help=f"atari: the game. [{GAME}]")
@click.option(
    "--data",
    type=arguments.data,
    help="Dataset or preset; without one, that of --preset or --game is collected.",
)
@click.option(
    "--preset", help="What to collect when there is no --data. [balls4mass64, for a world model avoid]"
)
@click.option("--model", "model_name", help=f"{', '.join(MODELS)}. [r_nem]")
@click.option("--slots", type=int, help="Number of slots, K. [5, for rnn and lstm 1]")
@click.option(
    "--architecture",
    help="conv64, conv84, conv32, projection32 or projection84; conv or projection for frames of any size. "
    "[by the frames' size]",
)
@click.option("--feed-actions", is_flag=True, help="Tell the model what the player does.")
@click.option(
    "--world-model",
    is_flag=True,
    help="Train a model to dream in: actions, rewards, motion, gated slots, closed loops; see docs/world-model.md.",
)
@click.option(
    "--recipe",
    "recipe_name",
    help="Train in stages, each with its own data and options: paper32, for example; see docs/paper.md. Other flags "
    "hold for all stages.",
)
@click.option("--config", "options_file", type=click.Path(path_type=Path), help="Options as YAML or JSON.")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder. [runs/MODEL-DATA]")
@click.option("--resume", is_flag=True, help="Continue the run in --out as if it had never stopped.")
@click.option(
    "--start-from",
    type=arguments.world,
    help="Run, checkpoint, shipped world or hf://OWNER/NAME to take the weights of.",
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1 ...")
@click.option("--threads", type=int, help="CPU threads. [all cores]")
@add_flags([*RESUMABLE, *FIXED])
def command(out: Path | None, resume: bool, device: str, threads: int | None, **parameters: Any) -> None:
    """Train R-NEM or one of its baselines.

    With no data at hand the preset's default set is collected first. A run's folder keeps its configuration, log,
    TensorBoard files and checkpoints; Ctrl-C saves and stops.
    """
    processes = from_torchrun()
    if processes.world_size > 1:
        # Keeps DistributedDataParallel from remarking in every process that no parameter went unused;
        # torch reads it when it is imported.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    _check(parameters)
    if parameters["recipe_name"] is not None or (resume and out is not None and _is_followed(out)):
        if processes.world_size > 1:
            raise ConfigError(
                "a recipe is trained by one process: leave torchrun out, or train stage by stage with --start-from"
            )
        _follow(out, resume, device, threads, parameters)
        return
    config, data = _resumed(out, parameters) if resume else _new(parameters)
    for name in ("schedule_updates", "schedule_after", "final_learning_rate"):
        # A resumed run may keep such options, which then do nothing.
        if parameters[name] is not None and config.training.optimizer.schedule == "constant":
            raise ConfigError(
                f"--{name.replace('_', '-')} was given, but the learning rate is constant: add "
                "--learning-rate-schedule cosine (or linear), or leave it out"
            )
    out = out or Path("runs") / _run_name(config.model, data)
    report = click.echo if processes.is_first else _say_nothing
    from rnem_world.training.trainer import train

    trainer = train(
        data,
        config,
        out,
        device=resolve_device(device, threads, processes),
        feed_actions=parameters["feed_actions"] or config.model.takes_actions,
        architecture=parameters["architecture"],
        takes_all=parameters["world_model"],
        resume=resume,
        start_from=parameters["start_from"],
        report=report,
        processes=processes,
    )
    if trainer.signal is not None:
        sys.exit(128 + trainer.signal)
    if trainer.evaluation is not None:
        report(f"validation loss {trainer.evaluation.loss:.2f}; evaluate with `rnem-world evaluate {out}`")


def _follow(
    out: Path | None,
    resume: bool,
    device: str,
    threads: int | None,
    parameters: dict[str, Any],
) -> None:
    """Trains by a recipe, or goes on with it."""
    from rnem_world.agents.following import Following, follow
    from rnem_world.training.recipes import recipe

    name, model = parameters["recipe_name"], parameters["model_name"]
    own = (
        "data",
        "preset",
        "game",
        "architecture",
        "options_file",
        "feed_actions",
        "world_model",
    )
    said = [flag for flag in own if parameters[flag]] + ["env"] * (parameters["environment"] is not None)
    said += list(_of_data(parameters))
    if said:
        flag = "--config" if said[0] == "options_file" else flag_of(said[0])
        raise ConfigError(f"{flag} was given beside --recipe, which says that itself: leave it out")
    flags = given_values([*RESUMABLE, *FIXED], parameters)
    if parameters["slots"] is not None:
        set_path(flags, "model.slots", parameters["slots"])
    max_minutes = flags.get("training", {}).pop("max_minutes", None)
    if not resume:
        recipe(name)
        out = out or Path("runs") / "-".join(part for part in (name, model) if part)
        following = Following(name, model, flags, _lasting(parameters["start_from"]))
    else:
        if out is None:
            raise ConfigError("--resume needs --out, the folder of the run to continue")
        following = Following.read(out)
        if name not in (None, following.recipe):
            raise ConfigError(
                f"{out} is trained by the recipe {following.recipe}, not {name}: leave --recipe out"
            )
        chosen = [parameters[choice] for choice in ("model_name", "slots", "start_from")]
        if given_values(FIXED, parameters) or chosen != [None] * 3:
            raise ConfigError(
                "--resume continues the run as it was configured: leave out the model's and the data's options, or "
                "begin a new run in another folder"
            )
        following = replace(following, options=merged(following.options, flags))
    trainer = follow(
        following,
        out,
        resume=resume,
        max_minutes=max_minutes,
        device=resolve_device(device, threads),
        workers=os.cpu_count() or 1,
        report=click.echo,
    )
    if trainer is None:
        click.echo(f"all stages are complete; evaluate with `rnem-world evaluate {out}`")
        return
    if trainer.signal is not None:
        sys.exit(128 + trainer.signal)
    if trainer.is_interrupted:
        click.echo(f"go on with `rnem-world train --resume --out {out}`")
    else:
        click.echo(f"evaluate with `rnem-world evaluate {out}`")


def _lasting(start_from: str | None) -> str | None:
    """Names the weights to start from so that a run that goes on elsewhere finds them too."""
    return None if start_from is None else lasting(start_from)


def _is_followed(run: Path) -> bool:
    from rnem_world.agents.following import is_followed

    return is_followed(run)


def _check(parameters: dict[str, Any]) -> None:
    """Refuses names that don't exist and flags that belong to other environments."""
    environment, game, model = _environment(parameters), parameters["game"], parameters["model_name"]
    is_known = environment in ENVIRONMENTS
    if not is_known and environment != ANY:
        from rnem_world.agents.collecting import check_environment

        check_environment(environment)
    if is_known:
        check_unused(environment, _of_data(parameters), COLLECTED, "other environments (--env ID)")
    if parameters["preset"] is not None and environment != "balls":
        cure = "give --game, or leave it out" if environment == "atari" else "leave it out"
        raise ConfigError(f"--preset names balls: with --env {environment} {cure}")
    if game is not None and environment != "atari":
        raise ConfigError(f"--game {game} is for --env atari: add that, or leave it out")
    if model is not None and model not in MODELS:
        raise ConfigError(f"unknown model {model!r}: {suggest(model, MODELS)}")


def _environment(parameters: Mapping[str, Any]) -> str:
    """Says whose usual options hold, and where data comes from that isn't given."""
    return str(parameters["environment"] or ENVIRONMENTS[0])


def _check_collects(parameters: Mapping[str, Any], config: RunConfig) -> None:
    """Refuses what is for data that is collected where the data is given, by a flag or by the file of options."""
    data = parameters["data"] or config.data
    said = [name for name in ("preset", "game") if parameters[name] is not None] + list(_of_data(parameters))
    if not (data and said):
        return
    flag, file = flag_of(said[0]), parameters["options_file"]
    where = "--data was given" if parameters["data"] else f"{file} says data: {data}"
    cure = "leave one out" if parameters["data"] else f"leave {flag} out, or take the line out of the file"
    raise ConfigError(f"{flag} is for data that is collected, and {where}: {cure}")


def _resumed(out: Path | None, parameters: dict[str, Any]) -> tuple[RunConfig, Path]:
    """Gives the configuration and the data of a run that goes on."""
    from rnem_world.training.checkpoint import read_config
    from rnem_world.training.presets import updates_of

    if out is None:
        raise ConfigError("--resume needs --out, the folder of the run to continue")
    choices = (
        *("model_name", "slots", "architecture", "start_from", "options_file"),
        *("environment", "preset", "game"),
    )
    if (
        given_values(FIXED, parameters)
        or parameters["feed_actions"]
        or parameters["world_model"]
        or _of_data(parameters)
        or any(parameters[choice] is not None for choice in choices)
    ):
        raise ConfigError(
            "--resume continues the run as it was configured: leave out the model's and the data's options, or "
            "begin a new run with --start-from"
        )
    if not (out / "config.json").is_file():
        raise CheckpointError(f"{out} holds no run to resume: train without --resume")
    # A sitting's own limits end with it.
    before = merged(asdict(read_config(out)), {"training": {"max_minutes": None}})
    flags, optimizer = given_values(RESUMABLE, parameters), before["training"]["optimizer"]
    end = before["training"]["max_updates"]
    if updates_of(flags) and end is not None and optimizer["schedule_updates"] == end:
        # A learning rate that falls to the end of the training falls to its new end.
        flags = merged({"training": {"optimizer": {"schedule_updates": updates_of(flags)}}}, flags)
    config = build(RunConfig, merged(before, flags))
    return config, resolve_data(parameters["data"] or config.data)


def _new(parameters: dict[str, Any]) -> tuple[RunConfig, Path]:
    """Gives the configuration of a new run, and its data: a flag wins over the file, the file over usual options."""
    from rnem_world.training.presets import info_for_training, usual_options

    flags = given_values([*RESUMABLE, *FIXED], parameters)
    model, is_world_model = parameters["model_name"], parameters["world_model"]
    if model is not None:
        set_path(flags, "model.core", MODELS[model][0])
    for name in ("slots", "architecture"):
        if parameters[name] is not None:
            set_path(flags, f"model.{name}", parameters[name])
    file = {} if parameters["options_file"] is None else read_options_file(parameters["options_file"])
    environment = _environment(parameters)
    known = environment if environment in ENVIRONMENTS else ANY
    given, family = _without_family(merged(file, flags))
    values = merged(usual_options(model or "r_nem", known, is_world_model, given), given)
    # Before any data is collected, so that a wrong option costs no time; what the data decides is not known yet.
    config = build(RunConfig, values)
    parameters["architecture"] = family or values["model"].get("architecture")
    _check_collects(parameters, config)
    data = _data_of(parameters, config)
    if known == ANY and is_world_model:
        fitting = usual_options(model or "r_nem", known, is_world_model, given, info_for_training(data))
        config = build(RunConfig, merged(fitting, given))
    return config, data


def _without_family(given: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Takes out an architecture for frames of any size: the data decides the size that goes with it."""
    model = given.get("model")
    if not isinstance(model, Mapping) or model.get("architecture") not in tuple(FAMILIES):
        return given, None
    if model.get("size") is not None:
        return given, None
    rest = {name: value for name, value in model.items() if name not in ("architecture", "size")}
    return {**given, "model": rest}, str(model["architecture"])


def _data_of(parameters: dict[str, Any], config: RunConfig) -> Path:
    """Finds the data of a new run, or collects it."""
    from rnem_world.training.presets import WORLD_DATA

    environment, is_world_model = _environment(parameters), parameters["world_model"]
    data = parameters["data"] or config.data
    if environment == ANY and not data:
        raise ConfigError("--env any is for data that is given: give --data, or the environment's own id")
    if data and environment not in ENVIRONMENTS:
        found = resolve_data(data)
        if environment != ANY:
            _check_is_of(environment, found)
        return found
    if environment == "atari" and not data:
        return resolve_game(parameters["game"] or GAME)
    if environment not in ENVIRONMENTS:
        return collected(environment, _of_data(parameters), click.echo)
    data = data or parameters["preset"] or ("avoid" if is_world_model else "balls4mass64")
    return resolve_data(data, **(WORLD_DATA if is_world_model else {}))


def _check_is_of(environment: str, data: Path) -> None:
    """Refuses data that says itself that it is of another environment than the one that was named beside it."""
    from rnem_world.data.dataset import Dataset

    with Dataset.open(data) as dataset:
        recipe = dataset.attributes.settings.get("recipe") or {}
    theirs = recipe.get("id")
    # The same id may be written with and without its module or namespace, and without a version for the newest.
    titles = [re.split("[/:]", name)[-1] for name in (environment, theirs or environment)]
    if any("-v" not in title for title in titles):
        titles = [title.partition("-v")[0] for title in titles]
    if titles[0] != titles[1]:
        raise ConfigError(
            f"--env {environment} was given, and {data} was collected from {theirs}: give --env {theirs}, or other data"
        )


COLLECTED = (*FRAME_NAMES, "policy", "trust_policy")
"""What may be said about data that is collected from any environment."""


def _of_data(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return given_options({name: parameters[name] for name in COLLECTED})


def _run_name(model: ModelConfig, data: Path) -> str:
    if model.is_world_model:
        return f"world-{data.stem}"
    names = {kind: name for name, kind in MODELS.items()}
    usual = names.get((model.core, model.slots))
    if usual is not None:
        return f"{usual}-{data.stem}"
    name = next(name for name, (core, _) in MODELS.items() if core == model.core)
    return f"{name}-{model.slots}-slots-{data.stem}"


def _say_nothing(line: str) -> None:
    """What all processes but the first report."""

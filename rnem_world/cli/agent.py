"""``rnem-world agent``: agents that learn in the dream and are scored awake."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from rnem_world.cli.resolve import resolve_device
from rnem_world.errors import CheckpointError, ConfigError

PATH = click.Path(path_type=Path)


@click.group()
def command() -> None:
    """Train, evaluate and improve agents, in dreams and awake."""


def parse_settings(settings: tuple[str, ...], what: str) -> dict[str, Any]:
    """Reads ``name=value`` pairs; values are read as JSON, and as text where they aren't.

    Raises:
        ConfigError: If one has no ``=``.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise ConfigError(f"{what} {setting!r} was given, expected NAME=VALUE, for example horizon=10")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


@command.command()
@click.option("--algo", "algorithm", help="ppo or dqn. [ppo]")
@click.option("--env", help="Gymnasium id of the environment. [RNEM-Balls-v0, the dream]")
@click.option(
    "--env-option", "env_options", multiple=True, help="NAME=VALUE for the environment; may be repeated."
)
@click.option("--num-envs", type=int, help="Environments side by side. [64]")
@click.option("--timesteps", type=int, help="Steps of all environments together. [1000000]")
@click.option("--frame-stack", type=int, help="Frames seen at once, where frames are seen. [4]")
@click.option(
    "--set", "hyperparameters", multiple=True, help="NAME=VALUE for the algorithm; may be repeated."
)
@click.option("--seed", type=int, help="Seed of everything. [0]")
@click.option("--checkpoint-minutes", type=float, help="Minutes between checkpoints. [5]")
@click.option("--keep-checkpoints", type=int, help="Latest checkpoints to keep. [2]")
@click.option("--max-minutes", type=float, help="Stop after so many minutes of this sitting.")
@click.option("--resume", is_flag=True, help="Go on with the agent in --out.")
@click.option("--out", type=PATH, help="The agent's folder. [runs/ALGO-ENV]")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 ...")
@click.option("--threads", type=int, help="CPU threads. [all cores]")
def train(
    out: Path | None,
    resume: bool,
    max_minutes: float | None,
    device: str,
    threads: int | None,
    env_options: tuple[str, ...],
    hyperparameters: tuple[str, ...],
    **given: Any,
) -> None:
    """Train a policy by stable-baselines3, in the dream or in any Gymnasium environment.

    A folder holds configuration, checkpoints, log and TensorBoard files; Ctrl-C and SIGTERM save and stop.
    """
    values = {name: value for name, value in given.items() if value is not None}
    if env_options:
        values["env_options"] = parse_settings(env_options, "--env-option")
    if hyperparameters:
        values["hyperparameters"] = parse_settings(hyperparameters, "--set")
    config, out = _training_config(values, out, resume)
    place = resolve_device(device, threads)
    from rnem_world.agents.policy_training import train_policy

    click.echo(f"training {config.algorithm} for {config.timesteps:,} steps in {config.env}, into {out}")
    signal = train_policy(config, out, resume, str(place), max_minutes, click.echo)
    if signal is not None:
        sys.exit(128 + signal)


def _training_config(values: dict[str, Any], out: Path | None, resume: bool) -> Any:
    from dataclasses import replace

    from rnem_world.agents.policy_config import PolicyConfig
    from rnem_world.agents.policy_folder import CONFIG_FILE, read_policy_config
    from rnem_world.options import build

    if not resume:
        config = build(PolicyConfig, values)
        return config, out or Path("runs") / f"{config.algorithm}-{config.env.split('/')[-1]}"
    if out is None:
        raise ConfigError("--resume needs --out, the folder of the agent to go on with")
    fixed = set(values) - {"timesteps", "checkpoint_minutes", "keep_checkpoints"}
    if fixed:
        raise ConfigError(
            "--resume goes on with the agent as it was configured: leave out "
            f"{', '.join(sorted(name.replace('_', '-') for name in fixed))}"
        )
    if not (out / CONFIG_FILE).is_file():
        raise CheckpointError(f"{out} holds no agent to resume: train without --resume")
    return replace(read_policy_config(out)[0], **values), out

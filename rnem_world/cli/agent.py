"""``rnem-world agent``: agents that learn in the dream and are scored in reality."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import click

from rnem_world.agents.config import CONFIG_FILE, ContestConfig, LoopConfig, PolicyConfig
from rnem_world.cli.arguments import (
    FIGURES,
    VIDEOS,
    Command,
    add_flags,
    check_output,
    flags_of,
    given_values,
    resolve_device,
)
from rnem_world.config import build, parse_settings
from rnem_world.errors import CheckpointError, ConfigError

PATH = click.Path(path_type=Path)

# These may change when a training or a loop is resumed; everything else is part of what it is.
LONGER = flags_of(PolicyConfig, ["timesteps", "checkpoint_minutes", "keep_checkpoints"])
POLICY = flags_of(
    PolicyConfig,
    ["algorithm=algo", "env", "slots_of", "num_envs", "policy", "frame_stack", "slot_width", "seed"],
)
MORE = flags_of(LoopConfig, ["rounds"])
LOOP = flags_of(
    LoopConfig,
    [option.name for option in fields(LoopConfig) if option.name not in ("rounds", "hyperparameters")],
)
CONTEST = flags_of(
    ContestConfig, ["checkpoint", "env", "episodes", "steps", "seed", "oracle", "imagination", "engine"]
)


@click.group()
def command() -> None:
    """Train, evaluate and improve agents, in dreams and in reality."""


def _on_device(command: Command) -> Command:
    """Decorates a command with the choice of a device."""
    command = click.option("--threads", type=int, help="CPU threads. [all cores]")(command)
    return click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 ...")(command)


def _repeated(flag: str, what: str) -> Callable[[Command], Command]:
    """Makes an option that sets one value each time it is given."""
    return click.option(f"--{flag}", multiple=True, help=f"NAME=VALUE for {what}; may be repeated.")


@command.command("train")
@add_flags([*POLICY, *LONGER])
@_repeated("env-option", "the environment")
@_repeated("set", "the algorithm")
@click.option("--max-minutes", type=float, help="Stop after so many minutes of this sitting.")
@click.option("--resume", is_flag=True, help="Go on with the agent in --out.")
@click.option("--out", type=PATH, help="The agent's folder. [runs/ALGO-ENV]")
@_on_device
def train_agent(
    out: Path | None,
    resume: bool,
    max_minutes: float | None,
    device: str,
    threads: int | None,
    **given: Any,
) -> None:
    """Train a policy by stable-baselines3, in the dream or in any Gymnasium environment.

    A folder holds configuration, checkpoints, log and TensorBoard files; Ctrl-C and SIGTERM save and stop.
    """
    values = given_values([*POLICY, *LONGER], given)
    if given["env_option"]:
        values["env_options"] = parse_settings(given["env_option"], "--env-option")
    if given["set"]:
        values["hyperparameters"] = parse_settings(given["set"], "--set")
    config, out = _training_config(values, out, resume)
    place = resolve_device(device, threads)
    from rnem_world.agents.policy_training import train_policy

    click.echo(f"training {config.algorithm} for {config.timesteps:,} steps in {config.env}, into {out}")
    signal = train_policy(config, out, resume, str(place), max_minutes, click.echo)
    if signal is not None:
        sys.exit(128 + signal)


def _training_config(values: dict[str, Any], out: Path | None, resume: bool) -> tuple[PolicyConfig, Path]:
    if not resume:
        config = build(PolicyConfig, values)
        return config, out or Path("runs") / f"{config.algorithm}-{re.split('[/:]', config.env)[-1]}"
    if out is None:
        raise ConfigError("--resume needs --out, the folder of the agent to go on with")
    fixed = set(values) - {flag.path for flag in LONGER}
    if fixed:
        raise ConfigError(
            "--resume goes on with the agent as it was configured: leave out "
            f"{', '.join(sorted(name.replace('_', '-') for name in fixed))}"
        )
    if not (out / CONFIG_FILE).is_file():
        raise CheckpointError(f"{out} holds no agent to resume: train without --resume")
    from rnem_world.agents.policy import read_policy_config

    return replace(read_policy_config(out)[0], **values), out


@command.command("eval")
@click.option(
    "--agent",
    "agents",
    multiple=True,
    help="A planner, such as mcts or icem:horizon=10,population=64, or a policy's folder; may be repeated.",
)
@click.option("--preset", help="The real balls. [avoid]")
@add_flags(CONTEST)
@_repeated("env-option", "the real environment")
@click.option("--out", type=PATH, help="Write the figures as JSON.")
@click.option("--chart", type=PATH, help="Write a bar chart.")
@click.option("--video", type=PATH, help="Write a video of the first agent's dream beside reality.")
@_on_device
def evaluate_agents(
    agents: tuple[str, ...],
    preset: str | None,
    out: Path | None,
    chart: Path | None,
    video: Path | None,
    device: str,
    threads: int | None,
    **given: Any,
) -> None:
    """Score agents over the same seeded real episodes, beside baselines and the oracle."""
    check_output(out, (".json",))
    check_output(chart, FIGURES)
    check_output(video, VIDEOS)
    options = parse_settings(given["env_option"], "--env-option")
    if preset is not None:
        if "preset" in options:
            raise ConfigError(
                f"--preset {preset} and --env-option preset={options['preset']} are both given: leave one out"
            )
        options["preset"] = preset
    place = resolve_device(device, threads)
    values = given_values(CONTEST, given)
    for name in ("imagination", "engine"):
        if name in values and not agents:
            raise ConfigError(f"--{name} is for agents that dream: give an --agent, or leave it out")
    config = ContestConfig(agents=agents, env_options=options, device=str(place), **values)
    if video is not None and not agents:
        raise ConfigError("--video shows the first agent's dream: give an --agent")
    from rnem_world.agents import scores
    from rnem_world.agents.contest import Contest
    from rnem_world.io import write_json

    contest = Contest(config)
    if video is not None:  # before all else: should its episode be too short, nothing else has been played
        agent, real = contest.agent(agents[0], 1)
        with closing(real), closing(contest.dream(1)) as dream:
            frames = scores.dream_beside_reality(agent, real, dream, config.seed, contest.steps)
        scores.write_comparison(video, *frames, context=dream.starts.context_frames)
    found = contest.play()
    click.echo("\n".join(scores.score_table(found)))
    if out is not None:
        write_json(out, {"contest": asdict(config), "scores": [score.as_json() for score in found]})
    if chart is not None:
        where = " ".join(filter(None, [contest.env, options.get("preset")]))
        scores.plot_scores(found, chart, f"{where}, {config.episodes} episodes")


@command.command()
@add_flags([*MORE, *LOOP])
@_repeated("set", "PPO")
@click.option("--resume", is_flag=True, help="Go on with the loop in --out; --rounds may be more.")
@click.option("--out", type=PATH, default=Path("runs/loop"), show_default=True, help="The loop's folder.")
@_on_device
def loop(out: Path, resume: bool, device: str, threads: int | None, **given: Any) -> None:
    """Improve world and agent in rounds: collect with the agent, fine-tune the world, train in its dream, evaluate."""
    values = given_values([*MORE, *LOOP], given)
    if given["set"]:
        values["hyperparameters"] = parse_settings(given["set"], "--set")
    if resume and set(values) - {flag.path for flag in MORE}:
        raise ConfigError("--resume goes on with the loop as it was configured: leave out all but --rounds")
    place = resolve_device(device, threads)
    from rnem_world.agents.dyna import LOOP_FILE, Loop, loop_table, read_loop

    if not resume and (out / LOOP_FILE).exists():
        raise CheckpointError(f"{out} holds a loop already: add --resume, or give another --out")
    config = replace(read_loop(out)[0], **values) if resume else LoopConfig(**values)
    rounds = Loop(config, out, str(place), click.echo)
    signal = rounds.run()
    click.echo("\n".join(loop_table(rounds.rows)))
    if signal is not None:
        sys.exit(128 + signal)

"""``rnem-world agent``: agents that learn in the dream and are scored awake."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from rnem_world.cli.resolve import FIGURES, VIDEOS, check_output, resolve_device
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
@click.option("--slots-of", help="See a real environment's frames as the slots of this world.")
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

    from rnem_world.agents.config import CONFIG_FILE, PolicyConfig
    from rnem_world.agents.policy import read_policy_config
    from rnem_world.config import build

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


@command.command("eval")
@click.option(
    "--agent",
    "agents",
    multiple=True,
    help="A planner, such as mcts or icem:horizon=10,population=64, or a policy's folder; may be repeated.",
)
@click.option("--checkpoint", default="balls", show_default=True, help="The learned world.")
@click.option("--preset", help="The real balls. [avoid]")
@click.option("--env", help="Another real environment's Gymnasium id. [RNEM-BallsReal-v0]")
@click.option("--env-option", "env_options", multiple=True, help="NAME=VALUE for it; may be repeated.")
@click.option("--episodes", type=int, help="Real episodes of each agent. [100]")
@click.option("--steps", type=int, help="Steps of an episode. [100]")
@click.option("--seed", type=int, help="Of the first episode. [10000]")
@click.option(
    "--oracle", help="Planner on the true simulator to normalise by. [the agents' own, or shooting]"
)
@click.option("--imagination", help="latent or pixels. [latent, if the world can]")
@click.option("--out", type=PATH, help="Write the figures as JSON.")
@click.option("--chart", type=PATH, help="Write a bar chart.")
@click.option("--video", type=PATH, help="Write a video of the first agent's dream beside reality.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 ...")
@click.option("--threads", type=int, help="CPU threads. [all cores]")
def evaluate(
    agents: tuple[str, ...],
    preset: str | None,
    env_options: tuple[str, ...],
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
    options = parse_settings(env_options, "--env-option")
    if preset is not None:
        options["preset"] = preset
    place = resolve_device(device, threads)
    from rnem_world.agents.config import ContestConfig
    from rnem_world.agents.contest import Contest
    from rnem_world.agents.scores import score_table
    from rnem_world.io import write_json

    values = {name: value for name, value in given.items() if value is not None}
    config = ContestConfig(agents=agents, env_options=options, device=str(place), **values)
    if video is not None and not agents:
        raise ConfigError("--video shows the first agent's dream: give an --agent")
    contest = Contest(config)
    found = contest.play()
    click.echo("\n".join(score_table(found)))
    if out is not None:
        from dataclasses import asdict

        write_json(out, {"contest": asdict(config), "scores": [score.as_json() for score in found]})
    if chart is not None:
        from rnem_world.agents.scores import plot_scores

        where = " ".join(filter(None, [config.env, options.get("preset")]))
        plot_scores(found, chart, f"{where}, {config.episodes} episodes")
    if video is not None:
        from rnem_world.agents.scores import dream_beside_reality, write_comparison

        write_comparison(
            video,
            *dream_beside_reality(*contest.agent(agents[0], 1), contest.dream(1), config.seed, config.steps),
        )


@command.command()
@click.option("--rounds", type=int, help="Rounds in all. [3]")
@click.option("--preset", help="The real balls. [avoid]")
@click.option("--checkpoint", help="The learned world to begin with. [balls]")
@click.option("--sequences", type=int, help="Real sequences a round. [500]")
@click.option("--validation-sequences", type=int, help="And for validation. [50]")
@click.option("--frames", type=int, help="Frames of a sequence. [101]")
@click.option("--exploration", type=float, help="Share of random steps while collecting. [0.2]")
@click.option("--world-updates", type=int, help="Updates of the world a round. [500]")
@click.option("--world-learning-rate", type=float, help="Their step size. [0.0003]")
@click.option("--timesteps", type=int, help="Dreamt steps of the policy a round. [500000]")
@click.option("--num-envs", type=int, help="Dreams side by side. [64]")
@click.option("--set", "hyperparameters", multiple=True, help="NAME=VALUE for PPO; may be repeated.")
@click.option("--episodes", type=int, help="Real episodes of every evaluation. [100]")
@click.option("--steps", type=int, help="Steps of an episode. [100]")
@click.option("--oracle", help="Planner on the true simulator to normalise by. [shooting]")
@click.option("--seed", type=int, help="Of everything. [0]")
@click.option("--resume", is_flag=True, help="Go on with the loop in --out; --rounds may be more.")
@click.option("--out", type=PATH, default=Path("runs/loop"), show_default=True, help="The loop's folder.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 ...")
@click.option("--threads", type=int, help="CPU threads. [all cores]")
def loop(
    out: Path,
    resume: bool,
    device: str,
    threads: int | None,
    hyperparameters: tuple[str, ...],
    **given: Any,
) -> None:
    """Improve world and agent in rounds: collect with the agent, fine-tune the world, train in its dream, evaluate."""
    from dataclasses import replace

    values = {name: value for name, value in given.items() if value is not None}
    if hyperparameters:
        values["hyperparameters"] = parse_settings(hyperparameters, "--set")
    if resume and set(values) - {"rounds"}:
        raise ConfigError("--resume goes on with the loop as it was configured: leave out all but --rounds")
    place = resolve_device(device, threads)
    from rnem_world.agents.config import LoopConfig
    from rnem_world.agents.dyna import LOOP_FILE, Loop, loop_table, read_loop

    if not resume and (out / LOOP_FILE).exists():
        raise CheckpointError(f"{out} holds a loop already: add --resume, or give another --out")
    config = replace(read_loop(out)[0], **values) if resume else LoopConfig(**values)
    rounds = Loop(config, out, str(place), click.echo)
    signal = rounds.run()
    click.echo("\n".join(loop_table(rounds.rows)))
    if signal is not None:
        sys.exit(128 + signal)

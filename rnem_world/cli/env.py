"""``rnem-world env``: learned worlds as environments: which there are, what is in them, how fast they are."""

from __future__ import annotations

from pathlib import Path

import click

from rnem_world.cli import arguments
from rnem_world.cli.arguments import VIDEOS, check_output, comma_separated, resolve_device
from rnem_world.errors import ConfigError

CHECKPOINT = click.argument("checkpoint", type=arguments.world, default="balls")
THREADS = click.option("--threads", type=int, help="CPU threads. [all cores]")
DEVICE = click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 ...")


@click.group()
def command() -> None:
    """Look at learned worlds as environments, measure them, film them."""


@command.command("list")
def list_command() -> None:
    """List the environments, and the shipped worlds."""
    import gymnasium

    from rnem_world.envs import register_environments
    from rnem_world.envs.real import ANY_DREAM, world_of
    from rnem_world.training.checkpoint import pretrained_names

    register_environments()
    for name in sorted(gymnasium.registry):
        if name.startswith("RNEM-"):
            kind = "real" if "Real" in name else "learned, world "
            if name == ANY_DREAM:
                kind += "of any checkpoint"
            elif kind != "real":
                kind += world_of(name, {})
            click.echo(f"{name:20} {kind}")
    click.echo(f"shipped worlds: {', '.join(pretrained_names())}")


@command.command()
@CHECKPOINT
def info(checkpoint: str) -> None:
    """Say what a world is: its frames, actions, slots, starts, and what it can do."""
    from rnem_world.envs.real import is_game
    from rnem_world.envs.start_source import own_starts
    from rnem_world.envs.starts import CONTEXT_FRAMES, NUMBER_OF_GAME_STARTS, STARTS_FILE
    from rnem_world.envs.uncertainty import read_calibration
    from rnem_world.envs.world import World
    from rnem_world.errors import DataError

    world = World.load(checkpoint)
    config, model = world.config, world.config.model
    parameters = sum(parameter.numel() for parameter in world.model.parameters())
    height, width, channels = world.frame_shape
    low, _ = world.slot_bounds()
    rows = {
        "folder": world.folder,
        "learned from": f"{config.environment or 'unknown'}, data {config.data or 'unknown'}",
        "model": f"{model.core}, {model.architecture}, {parameters / 1e6:.2f} M parameters",
        "weights": world.fingerprint,
        "frames": f"{height} x {width} x {channels}",
        "actions": world.actions.described,
        "slots": f"{model.slots} of {len(low)} numbers",
        "imagination": ", ".join(world.ways),
        "engine": world.engine().name,
    }
    if is_game(world) and not (world.folder / STARTS_FILE).is_file():
        rows["starts"] = f"{NUMBER_OF_GAME_STARTS} of {CONTEXT_FRAMES} frames, played when first asked for"
    else:
        try:
            starts = own_starts(world)
            rows["starts"] = f"{len(starts)} of {starts.actions.shape[1] + 1} frames"
        except DataError:
            rows["starts"] = "none: give starts="
    try:
        calibration = read_calibration(world.folder, world.ways[0])
        rows["uncertainty"] = (
            f"calibrated, rank correlation {calibration.rank_correlation:.2f} ({world.ways[0]})"
        )
    except DataError:
        rows["uncertainty"] = "not calibrated"
    for name, value in rows.items():
        click.echo(f"{name:14}{value}")


@command.command()
@CHECKPOINT
@click.option(
    "--batches", default="1,16,256,1024", show_default=True, help="Numbers of environments, with commas."
)
@click.option("--seconds", type=float, default=2.0, show_default=True, help="Seconds for each.")
@click.option(
    "--engines",
    default="auto",
    show_default=True,
    help="What computes: torch, onnx, openvino-bf16, auto; several with commas.",
)
@click.option(
    "--profile", is_flag=True, help="Show which of PyTorch's operators a batched step spends its time in."
)
@DEVICE
@THREADS
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures as JSON too.")
def bench(
    checkpoint: str,
    batches: str,
    seconds: float,
    engines: str,
    profile: bool,
    device: str,
    threads: int | None,
    out: Path | None,
) -> None:
    """Measure environment steps a second, learned and real, batched and one by one.

    Other work on the machine slows everything: compare lines, or look at the steps per second of the process's own
    time, and trust the rest on an idle machine.
    """
    from dataclasses import asdict

    import torch

    from rnem_world.benchmarks.environments import EnvBenchmarkConfig, measure_speeds, profile_step
    from rnem_world.io import write_json

    check_output(out, (".json",))
    resolve_device(device, threads)
    numbers, names = tuple(comma_separated(int)(batches)), tuple(comma_separated(str)(engines))
    config = EnvBenchmarkConfig(checkpoint, numbers, seconds, device, engines=names)
    click.echo(f"{torch.get_num_threads()} threads, device {device}")
    click.echo(f"{'':44}{'batch':>6}{'steps/s':>10}{'/CPU s':>10}{'reset':>11}{'memory':>10}")
    lines = []
    for speed in measure_speeds(config):
        lines.append(asdict(speed))
        reset = "" if speed.reset_seconds is None else f"{speed.reset_seconds * 1e3:.2f} ms"
        click.echo(
            f"{speed.name:44}{speed.batch:6}{speed.steps_per_second:10,.0f}{speed.steps_per_cpu_second:10,.0f}"
            f"{reset:>11}{speed.memory_bytes / 1e6:7,.0f} MB"
        )
    if profile:
        click.echo(profile_step(config))
    if out is not None:
        write_json(out, {"config": asdict(config), "threads": torch.get_num_threads(), "speeds": lines})
        click.echo(f"wrote {out}")


@command.command()
@CHECKPOINT
@click.option("--out", type=click.Path(path_type=Path), default=Path("dream.mp4"), show_default=True)
@click.option("--steps", type=int, default=100, show_default=True, help="Steps of the dream.")
@click.option("--imagination", help="latent or pixels. [latent where the model can]")
@click.option(
    "--policy",
    default="repeated-random",
    show_default=True,
    help="random, repeated-random or stay; beside reality also what else `rnem-world collect` takes for it.",
)
@click.option("--starts", help="Where to begin: a dataset, a file of starts, real, real:PRESET or :GAME.")
@click.option(
    "--beside-reality",
    is_flag=True,
    help="Play an episode of what the world was learned from, and film the dream that goes on from its first frames "
    "under the same actions beside it.",
)
@arguments.seed_option("Of the start and the actions.")
@click.option("--fps", type=float, default=20.0, show_default=True, help="Frames a second.")
@THREADS
def record(
    checkpoint: str,
    out: Path,
    steps: int,
    imagination: str | None,
    policy: str,
    starts: str | None,
    beside_reality: bool,
    seed: int,
    fps: float,
    threads: int | None,
) -> None:
    """Film an episode of a learned world: frames on the left, who has which pixel on the right."""
    import numpy as np

    from rnem_world.agents.base import baseline
    from rnem_world.envs.learned import LearnedEnv
    from rnem_world.evaluation.video import write_video

    check_output(out, VIDEOS)
    if steps < 1:
        raise ConfigError(f"--steps is {steps}, it must be at least 1")
    resolve_device("cpu", threads)
    if beside_reality:
        if starts is not None:
            raise ConfigError(
                "--starts is given, but beside reality a dream begins in its frames: leave it out"
            )
        _film_beside_reality(checkpoint, out, steps, imagination, policy, seed, fps)
        return
    env = LearnedEnv(checkpoint, imagination=imagination, starts=starts, render_mode="rgb_array")
    agent = baseline(policy, env.batch.world.actions, np.random.default_rng(seed))
    agent.reset(1)
    frame, _ = env.reset(seed=seed)
    pictures, total = [env.batch.pictures()[0]], 0.0
    for _ in range(steps):
        frame, reward, terminated, _, _ = env.step(agent.act(frame[None])[0])
        pictures.append(env.batch.pictures()[0])
        total += reward
        if terminated:
            break
    write_video(out, np.stack(pictures), fps)
    click.echo(f"{out}: {len(pictures) - 1} steps, return {total:.2f}")


def _film_beside_reality(
    checkpoint: str, out: Path, steps: int, imagination: str | None, policy: str, seed: int, fps: float
) -> None:
    from contextlib import closing

    import numpy as np

    from rnem_world.actions import ActionSpace
    from rnem_world.agents.base import baseline
    from rnem_world.agents.guests import make_players
    from rnem_world.agents.scores import dream_beside_reality, write_comparison
    from rnem_world.envs.any import AnyVectorEnv
    from rnem_world.envs.learned import LearnedVectorEnv
    from rnem_world.envs.real import real_environment
    from rnem_world.envs.world import World

    world = World.load(checkpoint)
    generator = np.random.default_rng(seed)
    dream = LearnedVectorEnv(1, checkpoint, imagination=imagination, max_episode_steps=None)
    with closing(real_environment(world, 1, max_episode_steps=steps)) as real, closing(dream):
        if isinstance(real, AnyVectorEnv):
            agent = make_players(real, generator, policy)
        else:
            agent = baseline(policy, ActionSpace.of(world.action_space), generator)
        shown, dreamt = dream_beside_reality(agent, real, dream, seed, steps)
    write_comparison(out, shown, dreamt, fps, dream.starts.context_frames)
    click.echo(
        f"{out}: {len(shown) - 1} steps, the first {dream.starts.context_frames} frames are real in both"
    )

"""From an empty folder into a dream, for environments of every kind: collected, trained for minutes, measured, stepped.

Run ``scripts/experiments/end_to_end FOLDER [NAME ...]``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from rnem_world.errors import ConfigError, RnemWorldError, suggest
from rnem_world.evaluation.imagination_figures import NOTHING
from rnem_world.io import write_json

FRAMES = 10_000
MINUTES = 2.0
HORIZON = 20
ENVIRONMENTS = 64
POLICY_STEPS = 1_000
REPORT = "report.json"

# Frames of a size that a short training can do something with; the rest is as it is without options.
_MINIGRID = ("--pictures", "render", "--size", "32")
_ATARI = ("--size", "64")

CASES: dict[str, tuple[str, ...]] = {
    "CartPole": ("CartPole-v1", "--size", "32x48"),
    "Acrobot": ("Acrobot-v1", "--size", "32"),
    "Pendulum": ("Pendulum-v1", "--size", "32"),
    "MountainCarContinuous": ("MountainCarContinuous-v0", "--size", "32x48"),
    **{
        name: (f"MinAtar/{name}-v1",)
        for name in ("Breakout", "Asterix", "Freeway", "Seaquest", "SpaceInvaders")
    },
    "MiniGrid-Dynamic-Obstacles": ("MiniGrid-Dynamic-Obstacles-6x6-v0", *_MINIGRID),
    "MiniGrid-Empty": ("MiniGrid-Empty-Random-6x6-v0", *_MINIGRID),
    "ALE-Pong": ("ALE/Pong-v5", "--crop", "34:194,:", *_ATARI),
    "ALE-Freeway": ("ALE/Freeway-v5", *_ATARI),
    "Masks": ("own_environments:Own/Masks-v0", "--obs-key", "masks"),
    "Wide": ("own_environments:Own/Wide-v0",),
}
"""What is collected from, by name: the environment and the options of its frames."""


@dataclass
class Report:
    """What came of one environment.

    Attributes:
        name: A key of `CASES`.
        frame: Height, width and channels.
        updates: Of the training.
        seconds: Of each stage that was done.
        figures: Those of the dreams on test data.
        failed: The first stage that failed and how; None if all was done.
        warnings: What the two checkers of environments said.
    """

    name: str
    frame: tuple[int, ...] = ()
    updates: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float | None] = field(default_factory=dict)
    failed: str | None = None
    warnings: list[str] = field(default_factory=list)


def try_environment(name: str, folder: Path) -> Report:
    """Goes all the way with one environment, until a stage fails.

    Args:
        name: A key of `CASES`.
        folder: Where data and the run go.

    Raises:
        ConfigError: If there is no such case, or the folder holds something.
    """
    if name not in CASES:
        raise ConfigError(f"no case {name!r}: {suggest(name, CASES)}")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} holds a trial that was cut off, and this one begins with an empty folder: remove it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    report = Report(name)
    data, run = folder / "data.h5", folder / "run"
    env, *options = CASES[name]
    collect = ("collect", "--env", env, *options, "--steps-of-data", str(FRAMES), "--out", str(data))
    train = ("train", "--data", str(data), "--world-model", "--env", env)
    limits = ("--max-minutes", str(MINUTES), "--threads", "1", "--out", str(run))
    evaluate = ("evaluate", str(run), "--imagine", str(HORIZON), "--threads", "1")
    stages: dict[str, Callable[[], None]] = {
        "collect": lambda: _command(*collect),
        "train": lambda: _command(*train, *limits),
        "evaluate": lambda: _command(*evaluate, "--out", str(folder / "figures.json")),
        "rollout": lambda: _command("rollout", str(run), "--out", str(folder / "rollout.png")),
        "make": lambda: _step(run, data, report),
        "gymnasium's check_env": lambda: _check(run, data, report),
        "stable-baselines3's check_env": lambda: _check_for_agents(run, data, report),
        "make_vec": lambda: _step_many(run, data),
        "PPO": lambda: _learn(run, data),
    }
    for stage, act in stages.items():
        begin = time.perf_counter()
        try:
            act()
        except Exception:  # whatever an environment of others may do is what is looked for
            report.failed = f"{stage}: {traceback.format_exc(limit=-3)}"
            break
        report.seconds[stage] = round(time.perf_counter() - begin, 1)
    if (folder / "figures.json").exists():
        report.figures = _figures(json.loads((folder / "figures.json").read_text()))
        report.updates = _updates(run)
    return report


def _command(*arguments: str) -> None:
    """Runs the command line as a user would.

    Raises:
        RnemWorldError: If it ends with an error; with the last lines of what it said.
    """
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "rnem_world", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RnemWorldError(f"rnem-world {' '.join(arguments)}\n{done.stderr[-1500:]}")


def _make(run: Path, data: Path) -> gymnasium.Env[Any, Any]:
    return gymnasium.make("RNEM-World-v0", checkpoint=run, starts=data)


def _step(run: Path, data: Path, report: Report) -> None:
    """Lives through 100 steps, resets included."""
    env = _make(run, data)
    report.frame = tuple(env.observation_space.shape or ())
    env.reset(seed=0)
    for _ in range(100):
        frame, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        if not (env.observation_space.contains(frame) and np.isfinite(float(reward))):
            raise RnemWorldError(f"a dream shows {frame} and pays {reward}")
        if terminated or truncated:
            env.reset()
    env.close()


def _check(run: Path, data: Path, report: Report) -> None:
    from gymnasium.utils.env_checker import check_env

    _heard(report, lambda: check_env(_make(run, data).unwrapped))


def _check_for_agents(run: Path, data: Path, report: Report) -> None:
    from stable_baselines3.common.env_checker import check_env

    _heard(report, lambda: check_env(_make(run, data)))


def _heard(report: Report, check: Callable[[], None]) -> None:
    """Checks, and keeps the warnings."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check()
    report.warnings += sorted({str(each.message) for each in said})


def _step_many(run: Path, data: Path) -> None:
    envs = gymnasium.make_vec("RNEM-World-v0", num_envs=ENVIRONMENTS, checkpoint=run, starts=data)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    for _ in range(50):
        frames, rewards, _, _, _ = envs.step(envs.action_space.sample())
        if not (envs.observation_space.contains(frames) and np.isfinite(rewards).all()):
            raise RnemWorldError("a dream shows what is not in its space, or pays what is not finite")
    envs.close()


def _learn(run: Path, data: Path) -> None:
    from stable_baselines3 import PPO

    PPO("MlpPolicy", _make(run, data), n_steps=POLICY_STEPS // 2, batch_size=POLICY_STEPS // 10).learn(
        POLICY_STEPS
    )


def _updates(run: Path) -> int:
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return max((int(entry["update"]) for entry in entries if "update" in entry), default=0)


def _figures(measured: Mapping[str, Any]) -> dict[str, float | None]:
    """Picks what the table shows; None where no episode lasts so long."""

    def after(name: str, frames: int) -> float | None:
        values = measured.get(name) or []
        return None if len(values) < frames or values[frames - 1] == NOTHING else values[frames - 1]

    return {
        **{
            f"{name}.{frames}": after(name, frames)
            for name in ("wrong_pixels", "wrong_pixels_shuffled", "copy_wrong_pixels")
            for frames in (1, 5, 10)
        },
        "reward_precision": measured.get("reward_precision"),
        "reward_rate": measured.get("reward_rate"),
        "end_precision": measured.get("end_precision"),
        "end_rate": measured.get("end_rate"),
    }


def table(reports: list[Report]) -> str:
    """Writes the reports as a Markdown table."""
    lines = [
        "| environment | frames | updates | wrong pixels after 1 / 5 / 10 frames | of a copy | rewards' AP (guessing) "
        "| ends' AP (guessing) | all done |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for report in reports:
        wrong, copied = (
            " / ".join(_number(report.figures.get(f"{name}.{frames}")) for frames in (1, 5, 10))
            for name in ("wrong_pixels", "copy_wrong_pixels")
        )
        precisions = [
            f"{_number(report.figures.get(f'{name}_precision'))} ({_number(report.figures.get(f'{name}_rate'))})"
            if report.figures.get(f"{name}_precision") is not None
            else "-"
            for name in ("reward", "end")
        ]
        done = "yes" if report.failed is None else f"no: {report.failed.split(':')[0]}"
        size = " x ".join(map(str, report.frame))
        cells = (CASES[report.name][0], size, f"{report.updates:,}", wrong, copied, *precisions, done)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def main(folder: Path, names: list[str]) -> int:
    """Tries the environments and writes the table; returns how many failed."""
    reports = []
    for name in names or list(CASES):
        stored = folder / name / REPORT
        if stored.exists():
            values = json.loads(stored.read_text())
            reports.append(Report(**{**values, "frame": tuple(values["frame"])}))
        else:
            reports.append(try_environment(name, folder / name))
            write_json(stored, asdict(reports[-1]))
        print(reports[-1], flush=True)
        (folder / "table.md").write_text(table(reports))
    return sum(report.failed is not None for report in reports)


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
    except IndexError:
        sys.exit("give a folder: python -m rnem_world.benchmarks.end_to_end FOLDER [NAME ...]")
    except RnemWorldError as error:
        sys.exit(str(error))

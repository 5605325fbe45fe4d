"""How fast learned worlds are stepped, beside the real simulator, single environments and the model written plainly."""

from __future__ import annotations

import itertools
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rnem_world.actions import ActionSpace
from rnem_world.agents.base import RandomAgent, StayAgent
from rnem_world.config import check_types
from rnem_world.envs.learned import LearnedEnv, LearnedVectorEnv
from rnem_world.envs.real import ATARI_ENVIRONMENT, BALLS_ENVIRONMENT, is_game, real_environment
from rnem_world.envs.world import World
from rnem_world.errors import ConfigError

BATCHES = (1, 16, 256, 1024)


@dataclass(frozen=True)
class EnvBenchmarkConfig:
    """What to measure.

    Attributes:
        checkpoint: The world.
        batches: Numbers of environments.
        seconds: For which each is stepped, at least.
        device: Where the model is.
        seed: Of starts and actions.
        engines: What computes steps, see `rnem_world.envs.engine.make_engine`; several are measured in turn.

    Raises:
        ConfigError: If a number makes no sense.
    """

    checkpoint: str | Path = "balls"
    batches: tuple[int, ...] = BATCHES
    seconds: float = 2.0
    device: str = "cpu"
    seed: int = 0
    engines: tuple[str, ...] = ("auto",)

    def __post_init__(self) -> None:
        check_types(self)
        if not self.batches or min(self.batches) < 1:
            raise ConfigError(
                f"batches are {self.batches}, expected numbers of environments, each at least 1"
            )
        if not self.seconds > 0.0:
            raise ConfigError(f"seconds is {self.seconds}, expected a number above 0")


@dataclass(frozen=True)
class Speed:
    """One line of the benchmark.

    Attributes:
        name: What was stepped.
        batch: Environments side by side.
        steps_per_second: Environment steps a second, the median over batched steps.
        steps_per_cpu_second: The same by the time that this process's threads worked: what other programs on the
            machine take doesn't count.
        reset_seconds: Seconds of a reset of all environments, once starts are encoded; None where not measured.
        memory_bytes: The most memory that the process has had until then.
    """

    name: str
    batch: int
    steps_per_second: float
    steps_per_cpu_second: float
    reset_seconds: float | None
    memory_bytes: int


def measure_speeds(config: EnvBenchmarkConfig) -> Iterator[Speed]:
    """Steps environments of every kind and batch size, one after the other.

    Args:
        config: What to measure.

    Yields:
        A line for each, as soon as it is measured.

    Raises:
        RnemWorldError: If the world can't be loaded.
    """
    world = World.load(config.checkpoint, config.device)
    shared: dict[str, Any] = {"checkpoint": config.checkpoint, "device": config.device}
    for batch in config.batches:
        for imagination, obs_type in itertools.product(world.ways, ("slots", "frame")):
            for engine in config.engines:
                options: dict[str, Any] = {"imagination": imagination, "obs_type": obs_type, "engine": engine}
                envs = LearnedVectorEnv(batch, **options, **shared)
                envs.starts.prepare()
                yield _speed_of(f"{imagination}, {obs_type}, {envs.dreams.engine.name}", envs, config)
        known = world.config.environment in (BALLS_ENVIRONMENT, ATARI_ENVIRONMENT)
        if known or world.config.recipe is not None:
            kind = "game" if is_game(world) else "simulator" if known else "environment"
            yield _speed_of(f"real {kind}, frame", real_environment(world, batch), config)
    shared |= {"imagination": world.ways[0], "obs_type": "slots", "engine": config.engines[0]}
    singles = [LearnedEnv(**shared) for _ in range(16)]
    yield _speed_of_singles(f"loop of single environments, {world.ways[0]}, slots", singles, config)


def _speed_of(name: str, envs: Any, config: EnvBenchmarkConfig) -> Speed:
    rng = np.random.default_rng(config.seed)
    envs.reset(seed=config.seed)
    resets = []
    for _ in range(3):
        begin = time.perf_counter()
        envs.reset()
        resets.append(time.perf_counter() - begin)
    agent = RandomAgent(ActionSpace.of(envs.single_action_space), rng)
    actions = itertools.cycle([agent.act(np.zeros(envs.num_envs)) for _ in range(64)])

    def step() -> None:
        envs.step(next(actions))

    seconds, cpu_seconds = _time(step, config.seconds)
    return Speed(
        name, envs.num_envs, envs.num_envs / seconds, envs.num_envs / cpu_seconds, min(resets), _memory()
    )


def _speed_of_singles(name: str, envs: list[LearnedEnv], config: EnvBenchmarkConfig) -> Speed:
    for index, env in enumerate(envs):
        env.reset(seed=config.seed + index)

    stay = StayAgent(envs[0].batch.world.actions, np.random.default_rng(config.seed)).act(np.zeros(1))[0]

    def step() -> None:
        for env in envs:
            env.step(stay)
            if env.batch.episodes.finished[0]:
                env.reset()

    seconds, cpu_seconds = _time(step, config.seconds)
    return Speed(name, len(envs), len(envs) / seconds, len(envs) / cpu_seconds, None, _memory())


def _time(step: Callable[[], None], seconds: float) -> tuple[float, float]:
    """Times a step: the median of wall-clock seconds, and the mean of the process's own seconds."""
    for _ in range(2):
        step()
    times: list[float] = []
    begin, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds or len(times) < 3:
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    return statistics.median(times), max((time.process_time() - cpu) / len(times), 1e-9)


def _memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def profile_step(config: EnvBenchmarkConfig, batch: int = 256) -> str:
    """Profiles batched steps of latent dreams (or pixels) by PyTorch: a table of the operators that take the most time.

    Raises:
        RnemWorldError: If the world can't be loaded.
    """
    envs = LearnedVectorEnv(
        batch, checkpoint=config.checkpoint, device=config.device, obs_type="slots", engine="torch"
    )
    envs.reset(seed=config.seed)
    actions = np.zeros(batch, dtype=np.int64)
    envs.step(actions)
    place = envs.world.device.type
    kinds = torch.profiler.ProfilerActivity
    with torch.profiler.profile(
        activities=[kinds.CPU, *([kinds.CUDA] if place == "cuda" else [])]
    ) as profile:
        for _ in range(5):
            envs.step(actions)
    table: str = profile.key_averages().table(sort_by=f"self_{place}_time_total", row_limit=15)
    return table

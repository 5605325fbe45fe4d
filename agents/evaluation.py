"""Agents scored over the same seeded episodes: awake, in the dream, and against the oracle."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from jaxtyping import Float64, Int64

from rnem_world.agents.base import Agent
from rnem_world.errors import ConfigError


@dataclass(frozen=True)
class Episodes:
    """What an agent has earned, one entry an episode.

    Attributes:
        returns: Sums of rewards.
        lengths: Steps.
        milliseconds: Time for one decision of one episode, all episodes being decided on together.
    """

    returns: Float64[np.ndarray, " n"]
    lengths: Int64[np.ndarray, " n"]
    milliseconds: float

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(self.returns.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean return; 0 for a single episode, of which it isn't known."""
        n = len(self.returns)
        return float(self.returns.std(ddof=1) / math.sqrt(n)) if n > 1 else 0.0


def play(
    agent: Agent,
    env: VectorEnv[Any, Any, Any],
    seed: int,
    max_steps: int = 100_000,
    progress: str | None = None,
) -> Episodes:
    """Plays one episode in each of N environments, all at once.

    Args:
        agent: Who acts.
        env: Where; environment i is seeded with ``seed + i``.
        seed: Of the episodes.
        max_steps: Steps after which an episode is cut off that doesn't end by itself.
        progress: Title of a progress bar on a terminal; None for no bar.

    Returns:
        One entry for each environment.
    """
    from tqdm import tqdm

    n = env.num_envs
    observations, _ = env.reset(seed=seed)
    agent.reset(n)
    alive, returns, lengths = np.ones(n, dtype=np.bool_), np.zeros(n), np.zeros(n, dtype=np.int64)
    seconds = 0.0
    with tqdm(desc=progress, unit="step", leave=False, disable=None if progress else True) as bar:
        for _ in range(max_steps):
            start = time.perf_counter()
            actions = agent.act(observations)
            seconds += time.perf_counter() - start
            observations, rewards, terminations, truncations, _ = env.step(actions)
            returns += np.where(alive, rewards, 0.0)
            lengths += alive
            alive &= ~(terminations | truncations)
            bar.update()
            if not alive.any():
                break
    return Episodes(returns, lengths, 1000.0 * seconds / (int(lengths.max()) * n))


@dataclass(frozen=True)
class Score:
    """How an agent does.

    Attributes:
        name: The agent.
        awake: Its real episodes.
        dreamt: Its dreamt episodes; None for an agent that has no dream.
        normalised: (R - R_stay) / (R_oracle - R_stay); None without an oracle, or if it doesn't beat staying.
        p_value: Of a paired one-sided t-test over the same episodes that it earns more than *stay*.
    """

    name: str
    awake: Episodes
    dreamt: Episodes | None
    normalised: float | None
    p_value: float

    @property
    def gap(self) -> float | None:
        """Return in the dream minus return awake."""
        return None if self.dreamt is None else self.dreamt.mean - self.awake.mean

    def as_json(self) -> dict[str, Any]:
        """Returns all of it as JSON can hold it."""
        return {
            "name": self.name,
            "return": self.awake.mean,
            "standard_error": self.awake.standard_error,
            "dream_return": None if self.dreamt is None else self.dreamt.mean,
            "dream_standard_error": None if self.dreamt is None else self.dreamt.standard_error,
            "gap": self.gap,
            "normalised_score": self.normalised,
            "p_value_against_stay": self.p_value,
            "milliseconds_per_decision": self.awake.milliseconds,
            "returns": self.awake.returns.tolist(),
            "lengths": self.awake.lengths.tolist(),
        }


def paired_p_value(better: Float64[np.ndarray, " n"], worse: Float64[np.ndarray, " n"]) -> float:
    """Tests by a paired t-test whether the first returns are higher.

    Returns:
        The one-sided p-value; 1 for returns that are all equal, or where there is only one.
    """
    from scipy.stats import ttest_rel

    difference = better - worse
    if len(difference) < 2 or not difference.any():
        return 1.0
    if difference.std() == 0.0:
        return 0.0 if difference[0] > 0 else 1.0
    return float(ttest_rel(better, worse, alternative="greater").pvalue)


def normalised_score(value: float, stay: float, oracle: float | None) -> float | None:
    """Returns (R - R_stay) / (R_oracle - R_stay), None where the oracle is no better than staying."""
    if oracle is None or not oracle > stay:
        return None
    return (value - stay) / (oracle - stay)


def scores(
    awake: Mapping[str, Episodes],
    dreamt: Mapping[str, Episodes],
    oracle_of: Mapping[str, str],
) -> list[Score]:
    """Compares agents that have played the same episodes.

    Args:
        awake: Real episodes by agent; ``stay`` among them.
        dreamt: Dreamt ones, of those that have any.
        oracle_of: The oracle by which an agent's score is normalised, by agent.

    Raises:
        ConfigError: If ``stay`` is missing.
    """
    if "stay" not in awake:
        raise ConfigError("the episodes of 'stay' are missing: scores are normalised by them")
    stay = awake["stay"]
    return [
        Score(
            name,
            episodes,
            dreamt.get(name),
            normalised_score(
                episodes.mean, stay.mean, awake[oracle_of[name]].mean if name in oracle_of else None
            ),
            paired_p_value(episodes.returns, stay.returns),
        )
        for name, episodes in awake.items()
    ]


def score_table(found: list[Score]) -> list[str]:
    """Lays scores out as lines of text."""

    def number(value: float | None, digits: int = 2, sign: str = "") -> str:
        return "-" if value is None else f"{value:{sign}.{digits}f}"

    def spread(episodes: Episodes | None) -> str:
        return "-" if episodes is None else f"{episodes.mean:.2f} +- {episodes.standard_error:.2f}"

    rows = [("agent", "return", "in the dream", "gap", "normalised", "p against stay", "ms/decision")]
    rows += [
        (
            score.name,
            spread(score.awake),
            spread(score.dreamt),
            number(score.gap, sign="+"),
            number(score.normalised),
            "-" if score.name == "stay" else f"{score.p_value:.2g}",
            number(score.awake.milliseconds),
        )
        for score in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]

"""Agents scored over the same seeded episodes, in reality and in dreams: figures, tables and pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from jaxtyping import Float64, Int64, UInt8
from numpy.typing import NDArray

from rnem_world.agents.base import Agent
from rnem_world.envs.learned import LearnedVectorEnv
from rnem_world.envs.slots import SlotVectorObservation
from rnem_world.envs.starts import CONTEXT_FRAMES
from rnem_world.errors import ConfigError, DivergenceError
from rnem_world.evaluation.pictures import coloured, save_figure
from rnem_world.evaluation.video import compose_panels, write_video


@dataclass(frozen=True)
class Played:
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
) -> Played:
    """Plays one episode in each of N environments, all at once.

    Args:
        agent: Who acts.
        env: Where; environment i is seeded with ``seed + i``.
        seed: Of the episodes.
        max_steps: Steps after which an episode is cut off that doesn't end by itself.
        progress: Title of a progress bar on a terminal; None for no bar.

    Returns:
        One entry for each environment.

    Raises:
        DivergenceError: If rewards are NaN or infinite.
    """
    from tqdm import tqdm

    n = env.num_envs
    begins_at_once = env.metadata.get("autoreset_mode") is AutoresetMode.SAME_STEP
    waiting = np.zeros(n, dtype=np.bool_)
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
            over = terminations | truncations
            alive &= ~over
            bar.update()
            if not alive.any():
                break
            # Those whose episode is over play on, out of competition.
            agent.restart(over if begins_at_once else waiting)
            waiting = over
    if not np.isfinite(returns).all():
        raise DivergenceError(
            f"the rewards of environment {int(np.argmin(np.isfinite(returns)))} are NaN or infinite, and have no mean: "
            "if it is a dream, it diverges, use another checkpoint of the world; if not, mend the environment"
        )
    return Played(returns, lengths, 1000.0 * seconds / (int(lengths.max()) * n))


@dataclass(frozen=True)
class Score:
    """How an agent does.

    Attributes:
        name: The agent.
        real: Its real episodes.
        dreamt: Its dreamt episodes; None for an agent that has no dream.
        normalised: (R - R_stay) / (R_oracle - R_stay); None without an oracle, or if it doesn't beat staying.
        p_value: Of a paired one-sided t-test over the same episodes that it earns more than *stay*.
    """

    name: str
    real: Played
    dreamt: Played | None
    normalised: float | None
    p_value: float

    @property
    def gap(self) -> float | None:
        """Return in the dream minus return in reality."""
        return None if self.dreamt is None else self.dreamt.mean - self.real.mean

    def as_json(self) -> dict[str, Any]:
        """Returns all of it as JSON can hold it."""
        return {
            "name": self.name,
            "return": self.real.mean,
            "standard_error": self.real.standard_error,
            "dream_return": None if self.dreamt is None else self.dreamt.mean,
            "dream_standard_error": None if self.dreamt is None else self.dreamt.standard_error,
            "gap": self.gap,
            "normalised_score": self.normalised,
            "p_value_against_stay": self.p_value,
            "milliseconds_per_decision": self.real.milliseconds,
            "returns": self.real.returns.tolist(),
            "lengths": self.real.lengths.tolist(),
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


def compared(
    real: Mapping[str, Played], dreamt: Mapping[str, Played], oracle_of: Mapping[str, str]
) -> list[Score]:
    """Compares agents that have played the same episodes.

    Args:
        real: Real episodes by agent; ``stay`` among them.
        dreamt: Dreamt ones, of those that have any.
        oracle_of: The oracle by which an agent's score is normalised, by agent.

    Raises:
        ConfigError: If ``stay`` is missing.
    """
    if "stay" not in real:
        raise ConfigError("the episodes of 'stay' are missing: scores are normalised by them")
    stay, found = real["stay"], []
    for name, episodes in real.items():
        oracle = real[oracle_of[name]].mean if name in oracle_of else None
        normalised = normalised_score(episodes.mean, stay.mean, oracle)
        p_value = paired_p_value(episodes.returns, stay.returns)
        found.append(Score(name, episodes, dreamt.get(name), normalised, p_value))
    return found


def score_table(found: list[Score]) -> list[str]:
    """Lays scores out as lines of text."""

    def number(value: float | None, digits: int = 2, sign: str = "") -> str:
        return "-" if value is None else f"{value:{sign}.{digits}f}"

    def spread(episodes: Played | None) -> str:
        return "-" if episodes is None else f"{episodes.mean:.2f} +- {episodes.standard_error:.2f}"

    rows = [("agent", "return", "in the dream", "gap", "normalised", "p against stay", "ms/decision")]
    rows += [
        (
            score.name,
            spread(score.real),
            spread(score.dreamt),
            number(score.gap, sign="+"),
            number(score.normalised),
            "-" if score.name == "stay" else f"{score.p_value:.2g}",
            number(score.real.milliseconds),
        )
        for score in found
    ]
    return columns(rows)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lays rows of cells out as lines of text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        ).rstrip()
        for row in rows
    ]


def plot_scores(found: list[Score], path: Path, title: str) -> None:
    """Draws real and dreamt returns as bars with standard errors.

    Raises:
        ConfigError: If the suffix is none of a picture.
        OutputError: If it can't be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 1.2 + 0.42 * len(found)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    dreamt = [(row, score.dreamt) for row, score in enumerate(found) if score.dreamt is not None]
    for bars, offset, colour, label in (
        ([(row, score.real) for row, score in enumerate(found)], -0.2, "#2f6fab", "in reality"),
        (dreamt, 0.2, "#f0a848", "in the dream"),
    ):
        if bars:
            axes.barh(
                [row + offset for row, _ in bars],
                [episodes.mean for _, episodes in bars],
                0.38,
                xerr=[episodes.standard_error for _, episodes in bars],
                color=colour,
                label=label,
            )
    if dreamt:
        axes.legend(frameon=False)
    axes.set_yticks(range(len(found)), [score.name for score in found])
    axes.invert_yaxis()
    axes.set_xlabel("return (mean and standard error)")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def dream_beside_reality(
    agent: Agent,
    real: VectorEnv[Any, Any, Any],
    dream: LearnedVectorEnv,
    seed: int,
    steps: int,
) -> tuple[UInt8[np.ndarray, "t h w c"], UInt8[np.ndarray, "t h w c"]]:
    """Plays one real episode, and dreams on from its first frames under the same actions.

    Args:
        agent: Who acts in the real one.
        real: One environment that shows frames, or slots that watch them.
        dream: One dreamt environment that shows frames.
        seed: Of the episode.
        steps: Length of the episode, at least as many as the dream's starts have frames.

    Returns:
        The real frames, and the dream's; those of the context are the real ones.

    Raises:
        ConfigError: If the episode is too short.
    """
    context = dream.starts.context_frames
    if steps < context:
        raise ConfigError(
            f"episodes of {steps} steps are too short for a video, expected --steps of at least {context}: the "
            "dream goes on from the first real frames"
        )
    frames, _ = real.reset(seed=seed)
    agent.reset(1)
    seen, done = [_frame(real, frames)], []
    for _ in range(steps):
        actions = agent.act(frames)
        frames, _, terminations, truncations, _ = real.step(actions)
        seen.append(_frame(real, frames))
        done.append(actions[0])
        if terminations[0] or truncations[0]:
            break
    if len(seen) <= context:
        raise ConfigError(
            f"the episode with the seed {seed} ends after {len(done)} steps, too early for a video, which needs "
            f"{context}: give another --seed, or leave the video out"
        )
    shown, actions = np.stack(seen), np.array(done)
    imagined, _ = dream.reset(
        options={"frames": shown[None, :context], "actions": actions[None, : context - 1]}
    )
    dreamt = [*shown[: context - 1], imagined[0]]
    over = np.zeros(1, dtype=np.bool_)
    for action in actions[context - 1 :]:
        if not over[0]:  # a dream that has ended stands still
            imagined, _, terminations, truncations, _ = dream.step(action[None])
            over = terminations | truncations
        dreamt.append(imagined[0])
    return shown, np.stack(dreamt)


def _frame(real: VectorEnv[Any, Any, Any], observations: NDArray[Any]) -> UInt8[np.ndarray, "h w c"]:
    """Gives the frame that is shown, whether the agent sees it or slots that watch it."""
    if isinstance(real, SlotVectorObservation):
        observations = real.filter.frames().cpu().numpy()
    frame: NDArray[Any] = observations[0]
    return frame


def write_comparison(
    path: Path,
    real: UInt8[np.ndarray, "t h w c"],
    dreamt: UInt8[np.ndarray, "t h w c"],
    fps: float = 12.0,
    context: int = CONTEXT_FRAMES,
) -> None:
    """Writes real and dreamt frames side by side, and where they differ.

    Args:
        path: The file.
        real: Real frames.
        dreamt: Dreamt ones.
        fps: Frames a second.
        context: So many of the first frames are real in both.

    Raises:
        ConfigError: If the suffix is none of a video.
        OutputError: If it can't be written.
    """
    if real.shape[-1] == 1:
        name, both = "red real, blue dreamt", overlaid(real, dreamt)
    else:
        name, both = (
            "difference",
            np.abs(_in_colour(real).astype(np.int16) - _in_colour(dreamt)).astype(np.uint8),
        )
    frames = compose_panels(
        {"reality": _in_colour(real), "dream": _in_colour(dreamt), name: both},
        imagined=[step >= context for step in range(len(real))],
    )
    write_video(path, frames, fps)


def overlaid(
    real: UInt8[np.ndarray, "t h w 1"], dreamt: UInt8[np.ndarray, "t h w 1"]
) -> UInt8[np.ndarray, "t h w 3"]:
    """Lays dreamt greys over real ones: what is only real is red, what is only dreamt is blue, the rest as it is.

    Things are bright on dark, or dark on light; most of the pixels are ground.
    """
    # Dark things take light away: red is left where the dream is bright and reality dark.
    on_light = np.median(real) > 127
    red, blue = (dreamt, real) if on_light else (real, dreamt)
    return np.concatenate([red, np.minimum(real, dreamt), blue], axis=3)


def _in_colour(frames: UInt8[np.ndarray, "t h w c"]) -> UInt8[np.ndarray, "t h w 3"]:
    shown: UInt8[np.ndarray, "t h w 3"] = (coloured(frames / 255.0) * 255.0).round().astype(np.uint8)
    return shown

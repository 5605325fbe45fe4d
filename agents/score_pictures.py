"""Scores as a bar chart, and a video of a dream beside reality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from jaxtyping import UInt8
from numpy.typing import NDArray

from rnem_world.agents.base import Agent
from rnem_world.agents.evaluation import Score
from rnem_world.envs.learned_vector import LearnedVectorEnv
from rnem_world.envs.slots import SlotVectorObservation
from rnem_world.errors import ConfigError
from rnem_world.evaluation.video import compose_panels, write_video
from rnem_world.io import atomic_file

CONTEXT_FRAMES = 16


def plot_scores(found: list[Score], path: Path, title: str) -> None:
    """Draws returns awake and in the dream as bars with standard errors.

    Raises:
        OutputError: If the picture can't be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 1.2 + 0.42 * len(found)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    place = np.arange(len(found), dtype=np.float64)
    axes.barh(
        place - 0.2,
        [score.awake.mean for score in found],
        0.38,
        xerr=[score.awake.standard_error for score in found],
        color="#2f6fab",
        label="awake",
    )
    dreamt = [
        (row, score.dreamt) for row, score in zip(place, found, strict=True) if score.dreamt is not None
    ]
    if dreamt:
        axes.barh(
            np.array([row for row, _ in dreamt]) + 0.2,
            [episodes.mean for _, episodes in dreamt],
            0.38,
            xerr=[episodes.standard_error for _, episodes in dreamt],
            color="#f0a848",
            label="in the dream",
        )
        axes.legend(frameon=False)
    axes.set_yticks(place, [score.name for score in found])
    axes.invert_yaxis()
    axes.set_xlabel("return (mean and standard error)")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150)


def dream_beside_reality(
    agent: Agent, real: VectorEnv[Any, Any, Any], dream: LearnedVectorEnv, seed: int, steps: int
) -> tuple[UInt8[np.ndarray, "t h w 1"], UInt8[np.ndarray, "t h w 1"]]:
    """Plays one real episode, and dreams on from its first frames under the same actions.

    Args:
        agent: Who acts, awake.
        real: One environment that shows frames, or slots that watch them.
        dream: One dreamt environment that shows frames.
        seed: Of the episode.
        steps: Length of the episode, more than 15.

    Returns:
        The real frames, and the dream's; those of the context are the real ones.

    Raises:
        ConfigError: If the episode is too short.
    """
    frames, _ = real.reset(seed=seed)
    agent.reset(1)
    seen, done = [_frame(real, frames)], []
    for _ in range(steps):
        actions = agent.act(frames)
        frames, _, terminations, truncations, _ = real.step(actions)
        seen.append(_frame(real, frames))
        done.append(int(actions[0]))
        if terminations[0] or truncations[0]:
            break
    if len(seen) <= CONTEXT_FRAMES:
        raise ConfigError(
            f"an episode of {len(done)} steps is too short for a video, expected at least {CONTEXT_FRAMES}"
        )
    awake, actions = np.stack(seen), np.array(done)
    imagined, _ = dream.reset(
        options={"frames": awake[None, :CONTEXT_FRAMES], "actions": actions[None, : CONTEXT_FRAMES - 1]}
    )
    dreamt = [*awake[: CONTEXT_FRAMES - 1], imagined[0]]
    for action in actions[CONTEXT_FRAMES - 1 :]:
        imagined, *_ = dream.step(np.array([action]))
        dreamt.append(imagined[0])
    return awake, np.stack(dreamt)


def _frame(real: VectorEnv[Any, Any, Any], observations: NDArray[Any]) -> UInt8[np.ndarray, "h w 1"]:
    """Gives the frame that is shown, whether the agent sees it or slots that watch it."""
    if isinstance(real, SlotVectorObservation):
        observations = real.filter.frames().cpu().numpy()
    frame: NDArray[Any] = observations[0]
    return frame


def write_comparison(
    path: Path, awake: UInt8[np.ndarray, "t h w 1"], dreamt: UInt8[np.ndarray, "t h w 1"], fps: float = 12.0
) -> None:
    """Writes real and dreamt frames side by side, and where they differ.

    Raises:
        ConfigError: If the suffix is none of a video.
        OutputError: If it can't be written.
    """
    real, dream = awake.repeat(3, axis=3), dreamt.repeat(3, axis=3)
    # Red: only real; blue: only dreamt; white: both.
    both = np.concatenate([awake, np.minimum(awake, dreamt), dreamt], axis=3)
    imagined = [step >= CONTEXT_FRAMES for step in range(len(awake))]
    frames = compose_panels(
        [real, dream, both], ["reality", "dream", "red real, blue dreamt"], imagined=imagined
    )
    write_video(path, frames, fps)

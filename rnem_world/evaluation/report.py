"""The figures of evaluations as tables of text."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from rnem_world.evaluation.imagination_figures import (
    NOTHING,
    RETRIEVED_AFTER,
    SHORT_HORIZON,
    ImaginationFigures,
)
from rnem_world.evaluation.imagined_rewards import RewardFigures
from rnem_world.evaluation.one_step import TERMS, Evaluation

LOSSES = {
    "loss": "loss",
    "upper_bound": "upper bound",
    "relational": "relational loss",
    "relational_upper_bound": "relational upper bound",
}
SCORES = {
    "plain_bce": "plain BCE (its gamma never saw the frame)",
    "plain_error": "plain error, nats (its gamma never saw it)",
    "ari": "ARI (the paper's)",
    "fg_ari": "FG-ARI",
    "miou": "mean IoU",
    "confidence": "confidence",
    "ami": "AMI (over the first sequences)",
}
HORIZONS_LABEL = "after so many imagined frames"
LABEL, CELL = 44, 10


def figures_table(evaluations: Sequence[Evaluation], last_steps: int) -> list[str]:
    """Lays out evaluations of one model on the same data, with different noise, side by side.

    Args:
        evaluations: At least one.
        last_steps: How many last steps were reported by themselves.

    Returns:
        Lines: a column for all steps and one for the last of every evaluation's scores, then the losses' terms.
    """
    first = evaluations[0]
    last = min(last_steps, len(first.curves["loss"]))
    when = ["all steps", f"last {last}"]
    lines = [_row("", [f"noise {evaluation.noise:g}" for evaluation in evaluations], CELL * 2)]
    lines.append(_row("", when * len(evaluations)))
    lines.append(_row(LOSSES["loss"], _losses(evaluations, "loss", ["total", "last_total"])))
    for name, label in SCORES.items():
        if name in first.scores:
            cells = [_cell(entry.scores.get(key)) for entry in evaluations for key in (name, f"last_{name}")]
            lines.append(_row(label, cells))
    lines += ["", _row("losses by their terms", list(TERMS) * len(evaluations))]
    for name, label in LOSSES.items():
        if name in first.losses:
            lines.append(_row(label, _losses(evaluations, name, TERMS)))
            last_terms = [f"last_{term}" for term in TERMS]
            lines.append(_row(f"{label}, last {last} steps", _losses(evaluations, name, last_terms)))
    return lines


def imagination_table(figures: ImaginationFigures, latent: ImaginationFigures | None = None) -> list[str]:
    """Lays out the figures of imagined frames: those of objects where they are known, else those of frames.

    Args:
        figures: What was measured of imagination in pixels.
        latent: The same of latent imagination, of as many frames.

    Returns:
        Lines: a column for each of some horizons, then the figures that have none.
    """
    rows = _object_rows if figures.objects is not None else _frame_rows
    return rows(figures, latent)


def _object_rows(figures: ImaginationFigures, latent: ImaginationFigures | None) -> list[str]:
    horizons = _horizons(figures.horizon, 1, 5, 10, 20, 30)
    lines = [_row(HORIZONS_LABEL, list(map(str, horizons)))]
    step = min(SHORT_HORIZON, figures.horizon)
    precision = f"reward's average precision, 1-{step}"
    objects, rewards = figures.objects, figures.rewards
    if objects is not None:
        lines += [
            *_curve("position error", objects.position_errors, horizons),
            *_curve(
                "position error, constant velocity and walls", objects.constant_velocity_errors, horizons
            ),
            *_curve("position error of object 1 (the player's)", objects.player_errors, horizons),
            *_curve("... at most its radius", objects.player_within, horizons),
            *_curve("balls still there", objects.alive, horizons),
            *_figure("FG-ARI, last five context frames", objects.fg_ari),
            *_figure(f"shuffled over true actions, object 1, at {step}", objects.shuffled_ratio),
        ]
    if rewards.reward_precision is not None:
        lines += _figure(precision, rewards.reward_precision)
        lines += _figure("... while watching", rewards.reward_precision_watching)
        lines += _figure("... of guessing (rate of rewards)", rewards.reward_rate)
    lines += _end_rows(figures)
    if objects is not None and latent is not None and latent.objects is not None:
        errors = latent.objects.position_errors
        ratio = errors[step - 1] / objects.position_errors[step - 1]
        lines += [
            *_curve("latent: position error", errors, horizons),
            *_curve("latent: balls still there", latent.objects.alive, horizons),
            *_figure(f"latent over pixels, position error at {step}", ratio),
            *_figure(f"latent: {precision}", latent.rewards.reward_precision),
        ]
    # Which of the two ways is the usual one is shown in more detail.
    return lines + (
        _reward_rows(rewards, horizons)
        if latent is None
        else _reward_rows(latent.rewards, horizons, "latent: ")
    )


def _frame_rows(figures: ImaginationFigures, latent: ImaginationFigures | None) -> list[str]:
    horizons = _horizons(figures.horizon, *RETRIEVED_AFTER, 15, 20, 25, 30)
    lines = [_row(HORIZONS_LABEL, list(map(str, horizons)))]
    if figures.lasting:
        lines.append(_row("episodes that still last", [str(figures.lasting[h - 1]) for h in horizons]))
    for prefix, entry in (("", figures), ("latent: ", latent)):
        if entry is None:
            continue
        frames, player = entry.frames, entry.player
        # A label without prefix stands for what doesn't depend on how the model imagines.
        rows: list[tuple[str, Sequence[float] | Mapping[str, float]]] = [
            (f"{prefix}cross-entropy, nats a frame", frames.bce),
            (f"{prefix}... binarised, told its reliability", frames.told_bce),
            ("... of the best copy of the last frame", frames.copy_bce),
            (f"{prefix}wrong pixels", frames.wrong_pixels),
            (f"{prefix}... under shuffled actions", frames.wrong_pixels_shuffled),
            ("... of a copy of the last frame", frames.copy_wrong_pixels),
            (f"{prefix}foreground's IoU", frames.foreground_iou),
            (f"{prefix}... under shuffled actions", frames.foreground_iou_shuffled),
            ("... of a copy of the last frame", frames.copy_foreground_iou),
            *((f"{prefix}channel {name} exact", curve) for name, curve in frames.exact_channels.items()),
            (f"{prefix}Hits@1 of slots", frames.hits),
            (f"{prefix}MRR of slots", frames.mean_reciprocal_rank),
            ("... Hits@1 of slots left as they were", frames.copy_hits),
        ]
        if player is not None:
            rows += [
                (f"{prefix}player's error, pixels", player.player_error),
                (f"{prefix}... under shuffled actions", player.player_error_shuffled),
                ("... of a player that stays", player.player_error_copy),
                (f"{prefix}frames that show a player", player.player_found),
            ]
        for label, curve in rows:
            if label.startswith(prefix):
                lines += _curve(label, curve, horizons)
        lines += _figure(f"{prefix}rewards' average precision", entry.rewards.reward_precision)
        lines += _end_rows(entry, prefix)
    if figures.rewards.reward_precision_watching is not None:
        lines += _figure("... while watching", figures.rewards.reward_precision_watching)
        lines += _figure("... of guessing (rate of rewards)", figures.rewards.reward_rate)
    lines += _figure("small moving objects' pixels, one ahead", figures.frames.small_recall)
    return lines + (
        _reward_rows(figures.rewards, horizons)
        if latent is None
        else _reward_rows(latent.rewards, horizons, "latent: ")
    )


def _end_rows(figures: ImaginationFigures, prefix: str = "") -> list[str]:
    """Lays out how ends are told, where an episode ended at all."""
    ends = figures.ends
    if not ends.ends:
        return []
    return [
        *_figure(f"{prefix}ends' average precision", ends.end_precision),
        *_figure("... of guessing (rate of ends)", ends.end_rate),
        *_figure(f"{prefix}ends within a step: precision", ends.told_precision),
        *_figure(f"{prefix}ends within a step: recall", ends.told_recall),
    ]


def _horizons(last: int, *horizons: int) -> list[int]:
    """Chooses the horizons to print: some near ones, every 25th beyond them, and the last that was asked for."""
    further = range(25 * (horizons[-1] // 25 + 1), last, 25)
    return [horizon for horizon in (*horizons, *further) if horizon < last] + [last]


def _reward_rows(rewards: RewardFigures, horizons: Sequence[int], prefix: str = "") -> list[str]:
    """Lays out how rewards are told: how far off, and which for which; no line if nobody knows the true ones."""
    if not rewards.reward_counts:
        return []
    lines = []
    if rewards.reward_errors:
        errors = dict(zip(map(str, itertools.count(1)), rewards.reward_errors, strict=False))
        lines += [
            *_curve(f"{prefix}rewards' mean error", errors, horizons),
            *_figure(f"{prefix}... while watching", rewards.reward_error_watching),
            *_figure("... of always telling the median", rewards.reward_error_guessing),
        ]
    # Signs say nothing where all are the same.
    occurring = [
        value
        for value, row in zip(rewards.reward_values, rewards.reward_counts["watching"], strict=True)
        if any(row)
    ]
    if not rewards.reward_errors or len(occurring) > 1:
        lines += _count_rows(rewards, prefix)
    lines += [
        _row(f"told too much for a step, {name}", [f"{bias:.4f}"])
        for name, bias in rewards.reward_bias.items()
    ]
    return lines


def _count_rows(rewards: RewardFigures, prefix: str) -> list[str]:
    """Lays out which reward was told for which."""
    values = [f"{value:.4g}" for value in rewards.reward_values]
    lines = [_row(f"{prefix}rewards (rows) told to be", values)]
    for name, matrix in rewards.reward_counts.items():
        where = name if name == "watching" else f"after {name}"
        lines += [
            _row(f"{where}: {value}", [str(count) for count in counts])
            for value, counts in zip(values, matrix, strict=True)
        ]
    return lines


def _curve(label: str, curve: Sequence[float] | Mapping[str, float], horizons: Sequence[int]) -> list[str]:
    """Lays out a curve's values after so many frames; no line if there are none."""
    if isinstance(curve, Mapping):
        return [_row(label, [_cell(curve.get(str(horizon))) for horizon in horizons])]
    values = [curve[horizon - 1] for horizon in horizons] if curve else []
    return [_row(label, [_cell(None if value == NOTHING else value) for value in values])] if curve else []


def _figure(label: str, value: float | None) -> list[str]:
    """Lays out a single figure; no line if there is none."""
    return [] if value is None else [_row(label, [_cell(value)])]


def _losses(evaluations: Sequence[Evaluation], name: str, terms: Sequence[str]) -> list[str]:
    return [_cell(evaluation.losses[name][term]) for evaluation in evaluations for term in terms]


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def _row(label: str, cells: Sequence[str], width: int = CELL) -> str:
    return f"{label:<{LABEL}}" + "".join(f"{cell:>{width}}" for cell in cells)

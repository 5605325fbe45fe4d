"""The figures of evaluations as tables of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rnem_world.evaluation.evaluate import TERMS, Evaluation
from rnem_world.evaluation.imagination import HORIZONS, ImaginationFigures
from rnem_world.evaluation.open_loop import RETRIEVED_AFTER, OpenLoopFigures

LOSSES = {
    "loss": "loss",
    "upper_bound": "upper bound",
    "relational": "relational loss",
    "relational_upper_bound": "relational upper bound",
}
SCORES = {
    "plain_bce": "plain BCE (its gamma never saw the frame)",
    "ari": "ARI (the paper's)",
    "fg_ari": "FG-ARI",
    "miou": "mean IoU",
    "confidence": "confidence",
    "ami": "AMI (over the first sequences)",
}
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
    """Lays out the figures of dreams.

    Args:
        figures: What was measured of imagination in pixels.
        latent: The same of latent imagination, of as many frames.

    Returns:
        Lines: a column for each of some horizons, then the figures that have none.
    """
    horizons = [horizon for horizon in HORIZONS if horizon <= figures.horizon]
    lines = [_row("after so many imagined frames", [str(horizon) for horizon in horizons])]
    for label, curve in (
        ("position error", figures.position_errors),
        ("position error, constant velocity and walls", figures.constant_velocity_errors),
        ("position error of object 1 (the player's)", figures.player_errors),
        ("balls still there", figures.alive),
    ):
        lines.append(_row(label, [_cell(curve[horizon - 1]) for horizon in horizons]))
    lines.append(_row("FG-ARI, last five context frames", [_cell(figures.fg_ari)]))
    step = min(10, figures.horizon)
    if figures.shuffled_ratio is not None:
        label = f"shuffled over true actions, object 1, at {step}"
        lines.append(_row(label, [_cell(figures.shuffled_ratio)]))
    if figures.reward_precision is not None:
        lines.append(_row(f"reward's average precision, 1-{step}", [_cell(figures.reward_precision)]))
        lines.append(_row("... of guessing (rate of rewards)", [_cell(figures.reward_rate)]))
    if latent is not None:
        for label, curve in (("position error", latent.position_errors), ("balls still there", latent.alive)):
            lines.append(_row(f"latent: {label}", [_cell(curve[horizon - 1]) for horizon in horizons]))
        ratio = latent.position_errors[step - 1] / figures.position_errors[step - 1]
        lines.append(_row(f"latent over pixels, position error at {step}", [_cell(ratio)]))
        if latent.reward_precision is not None:
            lines.append(
                _row(f"latent: reward's average precision, 1-{step}", [_cell(latent.reward_precision)])
            )
    return lines


def open_loop_table(figures: OpenLoopFigures, latent: OpenLoopFigures | None = None) -> list[str]:
    """Lays out the figures of dreams without known objects.

    Args:
        figures: What was measured of imagination in pixels.
        latent: The same of latent imagination, of as many frames.

    Returns:
        Lines: a column for each of some horizons, then the figures that have none.
    """
    horizons = [horizon for horizon in (*RETRIEVED_AFTER, 15, 20, 25, 30) if horizon <= figures.horizon]
    lines = [_row("after so many imagined frames", [str(horizon) for horizon in horizons])]

    def add(label: str, curve: Sequence[float] | Mapping[str, float]) -> None:
        if isinstance(curve, Mapping):
            cells = [curve.get(str(horizon)) for horizon in horizons]
        else:
            cells = [curve[horizon - 1] for horizon in horizons] if curve else []
        if cells:
            lines.append(_row(label, [_cell(value) for value in cells]))

    for prefix, entry in (("", figures), ("latent: ", latent)):
        if entry is None:
            continue
        add(f"{prefix}cross-entropy, nats a frame", entry.bce)
        add(f"{prefix}... binarised, told its reliability", entry.told_bce)
        if not prefix:
            add("... of the best copy of the last frame", entry.copy_bce)
        add(f"{prefix}wrong pixels", entry.wrong_pixels)
        if not prefix:
            add("... of a copy of the last frame", entry.copy_wrong_pixels)
        add(f"{prefix}Hits@1 of slots", entry.hits)
        add(f"{prefix}MRR of slots", entry.mean_reciprocal_rank)
        if not prefix:
            add("... Hits@1 of slots left as they were", entry.copy_hits)
        add(f"{prefix}player's error, pixels", entry.player_error)
        add(f"{prefix}... under shuffled actions", entry.player_error_shuffled)
        if not prefix:
            add("... of a player that stays", entry.player_error_copy)
        add(f"{prefix}frames that show a player", entry.player_found)
        if entry.reward_precision is not None:
            lines.append(_row(f"{prefix}rewards' average precision", [_cell(entry.reward_precision)]))
    if figures.reward_precision_watching is not None:
        lines.append(_row("... while watching", [_cell(figures.reward_precision_watching)]))
        lines.append(_row("... of guessing (rate of rewards)", [_cell(figures.reward_rate)]))
    if figures.small_recall is not None:
        lines.append(_row("small moving objects' pixels, one ahead", [_cell(figures.small_recall)]))
    return lines


def _losses(evaluations: Sequence[Evaluation], name: str, terms: Sequence[str]) -> list[str]:
    return [_cell(evaluation.losses[name][term]) for evaluation in evaluations for term in terms]


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def _row(label: str, cells: Sequence[str], width: int = CELL) -> str:
    return f"{label:<{LABEL}}" + "".join(f"{cell:>{width}}" for cell in cells)

"""The figures of evaluations as a table of text."""

from __future__ import annotations

from collections.abc import Sequence

from rnem_world.evaluation.evaluate import TERMS, Evaluation

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


def _losses(evaluations: Sequence[Evaluation], name: str, terms: Sequence[str]) -> list[str]:
    return [_cell(evaluation.losses[name][term]) for evaluation in evaluations for term in terms]


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def _row(label: str, cells: Sequence[str], width: int = CELL) -> str:
    return f"{label:<{LABEL}}" + "".join(f"{cell:>{width}}" for cell in cells)

"""The table of the paper's claims, and their curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Figures = Mapping[str, Mapping[str, Any]]
"""By variant and seed, what `rnem_world.benchmarks.claims.measure_all` found."""


@dataclass(frozen=True)
class Claim:
    """A row of the table: a figure, or the ratio of two, of each seed.

    Attributes:
        text: What is claimed.
        figure: The variant and the figure, its parts joined by dots; a number picks from a list, ``mean`` its mean.
        over: Likewise the figure that it is divided by, of the same seed; None for the figure itself.
        most: The claim holds if the mean is at most this; None where there is no such limit.
        least: ... at least this.
    """

    text: str
    figure: tuple[str, str]
    over: tuple[str, str] | None = None
    most: float | None = None
    least: float | None = None

    @property
    def goal(self) -> str:
        """The limit as text."""
        if self.most is not None:
            return f"<= {self.most:g}"
        return "" if self.least is None else f">= {self.least:g}"


@dataclass(frozen=True)
class Row:
    """What came of a claim.

    Attributes:
        claim: The claim.
        values: A value for each seed that has been trained.
    """

    claim: Claim
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return float(np.mean(self.values))

    @property
    def error(self) -> float:
        """The standard error of the mean; NaN of a single seed."""
        count = len(self.values)
        return float(np.std(self.values, ddof=1)) / math.sqrt(count) if count > 1 else math.nan

    @property
    def holds(self) -> bool | None:
        """Whether the mean is within the limit; None if nothing is known, or there is no limit."""
        claim = self.claim
        if not self.values or (claim.most is None and claim.least is None):
            return None
        return self.mean <= claim.most if claim.most is not None else self.mean >= (claim.least or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Gives the row as JSON-ready values."""
        known = (
            {"mean": self.mean, "error": self.error if len(self.values) > 1 else None} if self.values else {}
        )
        return {
            "claim": self.claim.text,
            "goal": self.claim.goal,
            "values": list(self.values),
            "holds": self.holds,
            **known,
        }


def _against(text: str, kind: str, figure: str, rivals: Mapping[str, float]) -> list[Claim]:
    """R-NEM's figure over that of each rival."""
    names = {
        "rnn_em": "RNN-EM",
        "lstm": "LSTM",
        "rnn": "RNN",
        "r_nem_no_attention": "R-NEM without attention",
    }
    return [
        Claim(
            f"{text}, R-NEM over {names[rival]}",
            ("r_nem", f"{kind}.{figure}"),
            (rival, f"{kind}.{figure}"),
            most,
        )
        for rival, most in rivals.items()
    ]


CLAIMS: tuple[Claim, ...] = (
    Claim("ARI of R-NEM, 4 balls, 5 slots", ("r_nem", "four.ari"), least=0.95),
    Claim("ARI of R-NEM, 6 to 8 balls, 8 slots", ("r_nem", "more.ari"), least=0.85),
    Claim("ARI of RNN-EM, 4 balls, 5 slots", ("rnn_em", "four.ari")),
    Claim("ARI of R-NEM without attention, 4 balls, 5 slots", ("r_nem_no_attention", "four.ari")),
    *_against(
        "plain BCE, 4 balls (never seen)",
        "four",
        "plain_bce",
        {"rnn_em": 0.9, "lstm": 0.8, "rnn": 0.8, "r_nem_no_attention": 1.0},
    ),
    *_against(
        "plain BCE, 2 balls (as trained)",
        "two",
        "plain_bce",
        {"rnn_em": 0.9, "lstm": 0.8, "rnn": 0.8, "r_nem_no_attention": 1.0},
    ),
    *_against("relational loss, 4 balls", "four", "relational", {"rnn_em": 0.9, "r_nem_no_attention": 1.0}),
    *_against(
        "plain BCE, 6 to 8 balls, 8 slots",
        "more",
        "plain_bce",
        {"rnn_em": 0.9, "lstm": 0.8, "rnn": 0.8, "r_nem_no_attention": 1.0},
    ),
    Claim(
        "plain BCE of R-NEM, 6 to 8 balls, 8 slots over 5",
        ("r_nem", "more.plain_bce"),
        ("r_nem", "more_5_slots.plain_bce"),
        1.0,
    ),
    Claim(
        "attention of R-NEM, balls that touch over those that don't",
        ("r_nem", "attention.touching"),
        ("r_nem", "attention.apart"),
        least=1.5,
    ),
    Claim("attention of R-NEM to balls that touch", ("r_nem", "attention.touching")),
    Claim(
        "closed loop, position error over 20 frames, R-NEM over RNN-EM",
        ("r_nem", "pixels.position.mean"),
        ("rnn_em", "pixels.position.mean"),
        1.0,
    ),
    Claim(
        "closed loop, position error over 20 frames, our rollout over the original's",
        ("r_nem", "pixels.position.mean"),
        ("r_nem", "soft.position.mean"),
        1.0,
    ),
    Claim(
        "closed loop, position error over 20 frames, R-NEM over constant velocity",
        ("r_nem", "pixels.position.mean"),
        ("r_nem", "pixels.constant_velocity.mean"),
        1.0,
    ),
    *(
        Claim(
            f"curtain: error of a ball hidden for {number} frames, {label} over constant velocity",
            (f"{name}_curtain", f"hidden.slots.{number}"),
            (f"{name}_curtain", f"hidden.constant_velocity.{number}"),
            1.0,
        )
        for number in (5, 10, 15)
        for name, label in (("r_nem", "R-NEM"), ("rnn_em", "RNN-EM"))
    ),
    Claim(
        "curtain: R-NEM's slots that take their ball again", ("r_nem_curtain", "hidden.same_slot"), least=0.9
    ),
    Claim("slots: ARI, trained with 3 on two balls", ("r_nem_3_slots", "four.ari")),
    Claim(
        "slots: ARI of R-NEM, 8 instead of 5 for 4 balls",
        ("r_nem", "four_8_slots.ari"),
        ("r_nem", "four.ari"),
    ),
    Claim("noise: ARI of R-NEM with 20 % of the pixels flipped", ("r_nem", "four_noisy.ari")),
    Claim("noise: ARI, trained without", ("r_nem_no_noise", "four.ari")),
)
"""The rows of the table."""


def rows(figures: Figures, claims: Sequence[Claim] = CLAIMS) -> list[Row]:
    """Works out claims.

    Args:
        figures: What was measured.
        claims: Which.
    """
    return [Row(claim, _values(claim, figures)) for claim in claims]


def table(found: Sequence[Row]) -> str:
    """Lays out the claims as a Markdown table."""
    lines = ["| claim | seeds | mean +- s.e. | goal | |", "|---|---|---|---|---|"]
    for row in found:
        value, verdict = "not trained", ""
        if row.values:
            value = _short(row.mean)
            value += f" +- {_short(row.error)}" if len(row.values) > 1 else ""
            verdict = {True: "holds", False: "**does not hold**", None: ""}[row.holds]
        lines.append(f"| {row.claim.text} | {len(row.values)} | {value} | {row.claim.goal} | {verdict} |")
    return "\n".join(lines) + "\n"


def figures_table(figures: Figures) -> str:
    """Lays out the models' own figures as a Markdown table: means over the seeds."""
    columns = {
        "four.plain_bce": "BCE, 4 balls",
        "four.relational": "relational loss",
        "four.ari": "ARI",
        "two.plain_bce": "BCE, 2 balls",
        "two.ari": "ARI",
        "more.plain_bce": "BCE, 6 to 8 balls",
        "more.ari": "ARI",
        "pixels.position.mean": "position error, 20 imagined frames",
        "pixels.foreground_iou.19": "IoU of the 20th",
    }
    lines = [f"| model | seeds | {' | '.join(columns.values())} |", "|---" * (len(columns) + 2) + "|"]
    for name, seeds in figures.items():
        if not any("four" in each for each in seeds.values()):
            continue
        cells = []
        for path in columns:
            values = [
                value for value in (look_up(each, path) for each in seeds.values()) if value is not None
            ]
            is_split = not path.endswith("ari") or look_up(next(iter(seeds.values())), "four_8_slots.ari")
            cells.append(_short(float(np.mean(values))) if values and is_split else "-")
        lines.append(f"| {name} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(
    curves: Mapping[str, Sequence[tuple[str, list[dict[str, Any]]]]], figures: Figures, out: Path
) -> None:
    """Draws training curves and errors over imagined frames.

    Args:
        curves: The log entries of each run by its label, by stages.
        figures: What was measured.
        out: The picture to write.

    Raises:
        OutputError: If it can't be written.
    """
    from matplotlib.figure import Figure

    from rnem_world.evaluation.pictures import save_figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplots(2, 2)
    names = list(dict.fromkeys(label.rpartition("-")[0] for label in curves))
    colours = {name: f"C{number}" for number, name in enumerate(names)}
    labelled: set[str] = set()
    for label, stages in curves.items():
        name = label.rpartition("-")[0]
        entries = [entry for entry in stages[-1][1] if entry["kind"] == "training"] if stages else []
        updates = [entry["update"] for entry in entries]
        losses = [float(np.mean(entry["steps"][8:])) for entry in entries]
        style = {"color": colours[name], "label": None if name in labelled else name, "linewidth": 1.2}
        labelled.add(name)
        axes[0, 0].plot(updates, losses, **style)
        if any(entry.get("ari") for entry in entries):
            axes[0, 1].plot(updates, [entry.get("ari", math.nan) for entry in entries], **style)
    axes[0, 0].set(
        title="training loss from step 8 on", xlabel="update of the last stage", ylabel="nats a frame"
    )
    axes[0, 0].set_yscale("log")
    axes[0, 1].set(title="ARI of training batches", xlabel="update of the last stage", ylim=(0, 1.02))
    for name, seeds in figures.items():
        for axis, path in ((axes[1, 0], "four.curve"), (axes[1, 1], "pixels.position")):
            found = [value for value in (look_up(each, path) for each in seeds.values()) if value is not None]
            if found:
                values = np.mean(found, axis=0)
                axis.plot(range(1, len(values) + 1), values, color=colours.get(name, "0.5"), label=name)
    straight = look_up(next(iter(figures.get("r_nem", {}).values()), {}), "pixels.constant_velocity")
    if straight is not None:
        axes[1, 1].plot(range(1, len(straight) + 1), straight, "k:", label="constant velocity")
    axes[1, 0].set(title="plain BCE, four balls", xlabel="step", ylabel="nats a frame")
    axes[1, 0].set_yscale("log")
    axes[1, 1].set(title="imagined: position error, four balls", xlabel="imagined frame", ylabel="radii")
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
    save_figure(figure, out)


def _values(claim: Claim, figures: Figures) -> tuple[float, ...]:
    name, path = claim.figure
    values = []
    for seed, found in figures.get(name, {}).items():
        value = look_up(found, path)
        if claim.over is not None:
            other = look_up(figures.get(claim.over[0], {}).get(seed, {}), claim.over[1])
            value = None if value is None or not other else value / other
        if value is not None and math.isfinite(value):
            values.append(float(value))
    return tuple(values)


def look_up(found: Any, path: str) -> Any:
    """Follows a path of names, numbers and ``mean``, joined by dots; None where it leads nowhere."""
    for part in path.split("."):
        if isinstance(found, Mapping):
            found = found.get(part)
        elif isinstance(found, list):
            if part == "mean":
                found = float(np.mean(found))
            else:
                found = found[int(part)] if int(part) < len(found) else None
        else:
            return None
    return found


def _short(value: float) -> str:
    return "-" if not math.isfinite(value) else f"{value:.3g}"

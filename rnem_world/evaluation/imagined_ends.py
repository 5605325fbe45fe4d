"""How well dreams tell that an episode ends: frame by frame, and whether they end when it does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from rnem_world.evaluation.metrics import average_precision

TOLERANCE = 1
"""Steps by which the end of a dream may be too early or too late."""


@dataclass(frozen=True)
class EndFigures:
    """How well ends are told; empty without heads, or where nobody knows the true ones.

    Attributes:
        end_precision: Average precision of the imagined ends, over the transitions of episodes that still last.
        end_rate: Part of these transitions that end an episode: the precision of guessing.
        ends: Episodes that ended while they were imagined.
        told_precision: Of the dreams that end, the part that ends within a step of the episode.
        told_recall: Of the episodes that end, the part whose dream ends within a step of it.
    """

    end_precision: float | None = None
    end_rate: float | None = None
    ends: int | None = None
    told_precision: float | None = None
    told_recall: float | None = None


def end_figures(
    logits: Float[Tensor, "n t"], ended: Bool[Tensor, "n t"], lasts: Bool[Tensor, "n t"]
) -> EndFigures:
    """Compares imagined with true ends.

    A dream ends with the first transition of which it gives the end more than even odds, as an environment of it does.
    Where an episode was cut off, or the record of it is over, nobody knows when it would have ended: a dream's end from
    there on tells nothing.

    Args:
        logits: Of the end, for every imagined transition.
        ended: Which transitions ended an episode in truth.
        lasts: Which transitions are still of the episode that is imagined.
    """
    horizon = logits.shape[1]
    true, told = _first(ended & lasts), _first(logits > 0.0)
    known = lasts.sum(dim=1)
    has_ended = true < horizon
    # Of an episode that has ended all is known: nothing comes after.
    counts = (told < horizon) & (has_ended | (told < known))
    right = (told - true).abs() <= TOLERANCE
    number, right_ones = int(has_ended.sum()), int((right & has_ended & (told < horizon)).sum())
    of_dreams = int(counts.sum())
    return EndFigures(
        end_precision=average_precision(ended[lasts], logits[lasts]),
        end_rate=float(ended[lasts].double().mean()),
        ends=number,
        told_precision=right_ones / of_dreams if of_dreams else None,
        told_recall=right_ones / number if number else None,
    )


def _first(events: Bool[Tensor, "n t"]) -> Int64[Tensor, " n"]:
    """Gives when something first happens; the number of steps where it never does."""
    steps = events.shape[1]
    return torch.where(events.any(dim=1), events.to(torch.int64).argmax(dim=1), steps)

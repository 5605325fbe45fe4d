"""How well rewards are told, while the model watches and while it imagines: average precision, and which for which."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from rnem_world.evaluation.metrics import average_precision

COUNTED_AFTER = (1, 5, 10)
"""Which reward is told for which is counted after so many imagined frames."""

MOST_VALUES = 8
"""Rewards that take more values than these are counted by their signs."""


class ToldRewards(NamedTuple):
    """What a model says that transitions earn.

    Attributes:
        expected: Float (n, t), the reward.
        likeliest: Float (n, t), the value that it holds for the most likely; the same where it tells numbers.
    """

    expected: Tensor
    likeliest: Tensor


@dataclass(frozen=True)
class RewardFigures:
    """How well rewards are told; empty without heads, or where nobody knows the true ones.

    Attributes:
        reward_precision: Average precision of imagined rewards, over ten frames where balls are known, else over all.
        reward_precision_watching: The same one step ahead, while the model watches.
        reward_rate: Part of those transitions that have a reward: the precision of guessing.
        reward_values: The rewards that occur, in increasing order; -1, 0 and 1 for the signs of more than eight.
        reward_counts: How often each of them (rows) was told to be each of them (columns): ``watching``, and after so
            many imagined frames, by their number as text.
        reward_bias: What is told too much on average, per transition: while ``watching`` and ``imagining``.
        reward_errors: The mean distance from the true reward after so many imagined frames, up to the last that an
            episode has. Only of rewards that take more than eight values, as the next two.
        reward_error_watching: The same one step ahead, while the model watches.
        reward_error_guessing: That of telling the median reward always.
    """

    reward_precision: float | None = None
    reward_precision_watching: float | None = None
    reward_rate: float | None = None
    reward_values: list[float] = field(default_factory=list)
    reward_counts: dict[str, list[list[int]]] = field(default_factory=dict)
    reward_bias: dict[str, float] = field(default_factory=dict)
    reward_errors: list[float] = field(default_factory=list)
    reward_error_watching: float | None = None
    reward_error_guessing: float | None = None


def reward_figures(
    true: Float[Tensor, "n t"],
    lasts: Bool[Tensor, "n t"],
    imagined: ToldRewards,
    watched: ToldRewards,
    scored: int,
) -> RewardFigures:
    """Compares rewards that are told with true ones.

    Args:
        true: The true ones.
        lasts: Which transitions are still of the episode that is imagined.
        imagined: Those of imagined frames.
        watched: Those of the same transitions, each told from the real frames before it.
        scored: Imagined frames over which average precision and bias are taken.
    """
    counts, rewards = lasts[:, :scored], true[:, :scored]
    earned = (rewards != 0)[counts]
    has_losses = bool((true < 0).any())

    def precision(told: ToldRewards) -> float | None:
        # Where rewards may be negative, how far a guess is from none tells how sure it is of one.
        guesses = told.expected[:, :scored][counts]
        return average_precision(earned, guesses.abs() if has_losses else guesses)

    def bias(told: ToldRewards) -> float:
        return float((told.expected[:, :scored] - rewards)[counts].double().mean())

    values = true[lasts].unique()
    found = {"watching": _counts(true[lasts], watched.likeliest[lasts], values)}
    for step in COUNTED_AFTER:
        if step <= true.shape[1]:
            there = lasts[:, step - 1]
            found[str(step)] = _counts(true[there, step - 1], imagined.likeliest[there, step - 1], values)
    many = len(values) > MOST_VALUES
    figures = RewardFigures(
        reward_precision=precision(imagined),
        reward_precision_watching=precision(watched),
        reward_rate=float(earned.double().mean()),
        reward_values=[-1.0, 0.0, 1.0] if many else values.tolist(),
        reward_counts={name: matrix.tolist() for name, matrix in found.items()},
        reward_bias={"watching": bias(watched), "imagining": bias(imagined)},
    )
    if not many:
        return figures
    steps = [step for step in range(true.shape[1]) if lasts[:, step].any()]
    return replace(
        figures,
        reward_errors=[_error(true[:, s], imagined.expected[:, s], lasts[:, s]) for s in steps],
        reward_error_watching=_error(true, watched.expected, lasts),
        reward_error_guessing=_error(true, true[lasts].median().expand_as(true), lasts),
    )


def _error(true: Float[Tensor, "*n"], told: Float[Tensor, "*n"], counts: Bool[Tensor, "*n"]) -> float:
    """Returns the mean distance of what is told from the truth."""
    return float((told - true)[counts].abs().double().mean())


def _counts(
    true: Float[Tensor, " n"], told: Float[Tensor, " n"], values: Float[Tensor, " v"]
) -> Int64[Tensor, "w w"]:
    """Counts how often each value (rows) was told to be each (columns), what is told being rounded to the nearest."""
    if len(values) > MOST_VALUES:
        # What is nearer to 0 than half of the least reward stands for none.
        least = values[values != 0].abs().min() / 2
        true, told = (each.sign() * (each.abs() > least) for each in (true, told))
        values = torch.tensor([-1.0, 0.0, 1.0], device=true.device, dtype=true.dtype)
    rows, columns = ((each[:, None] - values).abs().argmin(dim=1) for each in (true, told))
    number = len(values)
    return torch.bincount(rows * number + columns, minlength=number * number).view(number, number)

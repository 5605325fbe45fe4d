"""Which reward is told for which."""

from __future__ import annotations

import pytest
import torch

from rnem_world.evaluation.imagined_rewards import RewardFigures, ToldRewards, reward_figures
from rnem_world.evaluation.report import _horizons, _reward_rows

N, T = 40, 12


def truth(values: tuple[float, ...] = (-1.0, 0.0, 2.0)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.tensor(values)[torch.randint(len(values), (N, T), generator=generator)]


def told(true: torch.Tensor) -> ToldRewards:
    return ToldRewards(true, true)


def always() -> torch.Tensor:
    return torch.ones(N, T, dtype=torch.bool)


def test_rewards_that_are_told_right_lie_on_the_diagonal():
    true = truth()
    figures = reward_figures(true, always(), told(true), told(true), 10)
    assert figures.reward_values == [-1.0, 0.0, 2.0]
    assert set(figures.reward_counts) == {"watching", "1", "5", "10"}
    for name, matrix in figures.reward_counts.items():
        counts = torch.tensor(matrix)
        assert torch.equal(counts, torch.diag(counts.diagonal()))
        assert counts.sum() == (N * T if name == "watching" else N)
    assert figures.reward_precision == figures.reward_precision_watching == pytest.approx(1.0)
    assert figures.reward_rate == pytest.approx(float((true[:, :10] != 0).double().mean()))
    assert figures.reward_bias == {"watching": 0.0, "imagining": 0.0}


def test_rows_are_what_was_true_and_columns_what_was_told():
    true = truth()
    wrong = torch.where(true == 2.0, 0.0, true)  # never says 2
    figures = reward_figures(true, always(), told(wrong), told(true), 10)
    for step in (1, 5, 10):
        matrix = figures.reward_counts[str(step)]
        twos = int((true[:, step - 1] == 2.0).sum())
        assert matrix[2] == [0, twos, 0]
        assert matrix[0][1:] == [0, 0]
    assert figures.reward_bias["imagining"] == pytest.approx(float((wrong - true)[:, :10].double().mean()))
    assert figures.reward_bias["watching"] == 0.0


def test_only_transitions_of_the_episode_count():
    true, lasts = truth(), always()
    lasts[: N // 2, 4:] = False
    wrong = torch.where(lasts, true, 7.0)
    figures = reward_figures(true, lasts, told(wrong), told(wrong), T)
    counted = {name: torch.tensor(matrix) for name, matrix in figures.reward_counts.items()}
    assert int(counted["1"].sum()) == N
    assert int(counted["5"].sum()) == N // 2
    assert int(counted["watching"].sum()) == int(lasts.sum())
    assert figures.reward_bias["imagining"] == 0.0
    assert all(torch.equal(matrix, torch.diag(matrix.diagonal())) for matrix in counted.values())


def test_of_many_values_the_signs_are_counted():
    true = torch.randn(N, T, generator=torch.Generator().manual_seed(0))
    true[:, ::3] = 0.0
    figures = reward_figures(true, always(), told(0.9 * true), told(true), T)
    assert figures.reward_values == [-1.0, 0.0, 1.0]
    counts = torch.tensor(figures.reward_counts["watching"])
    assert counts.diagonal().tolist() == [int((true.sign() == sign).sum()) for sign in (-1, 0, 1)]


@pytest.mark.parametrize(
    ("horizon", "expected"),
    [(5, [1, 5]), (30, [1, 5, 10, 20, 30]), (7, [1, 5, 7]), (100, [1, 5, 10, 20, 30, 50, 75, 100])],
)
def test_the_horizon_that_was_asked_for_is_printed(horizon, expected):
    assert _horizons(horizon, 1, 5, 10, 20, 30) == expected


def test_the_table_names_what_was_true_in_each_row():
    true = truth()
    figures = reward_figures(true, always(), told(true), told(true), 10)
    lines = _reward_rows(figures, [1, 5, 10], "latent: ")
    assert lines[0].split() == ["latent:", "rewards", "(rows)", "told", "to", "be", "-1", "0", "2"]
    assert len([line for line in lines if line.startswith("after 10: ")]) == 3
    assert lines[1].startswith("watching: -1")
    assert _reward_rows(RewardFigures(), [1, 5, 10]) == []
    assert figures.reward_errors == []
    assert not [line for line in lines if "error" in line]


def test_of_many_values_the_distance_from_the_truth_is_told():
    true = -torch.rand(N, T, generator=torch.Generator().manual_seed(0)) - 0.1
    lasts = always()
    lasts[: N // 2, 6:], lasts[:, 9:] = False, False
    off = true + torch.arange(T) * lasts - 7.0 * ~lasts  # one more with every frame, and what doesn't count
    figures = reward_figures(true, lasts, ToldRewards(off, off), told(true), T)
    assert figures.reward_errors == pytest.approx(list(range(9)))
    assert figures.reward_error_watching == 0.0
    median = true[lasts].median()
    assert figures.reward_error_guessing == pytest.approx(float((true - median)[lasts].abs().mean()))
    lines = _reward_rows(figures, [1, 5, 12])
    assert lines[0].split() == ["rewards'", "mean", "error", "0.000", "4.000", "-"]
    assert not [line for line in lines if "told to be" in line]  # all are negative

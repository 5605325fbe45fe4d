from __future__ import annotations

import json

import pytest

from rnem_world.models import affine
from rnem_world.training.benchmark import BenchmarkConfig, floating_point_operations, make_step

SMALL = "--architecture conv32 --batch-size 2 --slots 2 --steps 2 --pairs 1"


def test_figures_of_a_small_step(rnem, tmp_path):
    outcome = rnem("bench", "train", *SMALL.split(), "--out", tmp_path / "bench.json")
    assert outcome.code == 0, outcome
    figures = outcome.json_file
    assert figures["config"]["architecture"] == "conv32"
    for variant in ("plain", "ours"):
        row = figures[variant]
        assert row["seconds"] > 0
        assert row["gigaflop_per_second"] == pytest.approx(row["gigaflop"] / row["seconds"])
        assert 50e6 < row["peak_memory_bytes"] < 4e9
    assert figures["ratio"] == pytest.approx(figures["plain"]["seconds"] / figures["ours"]["seconds"])
    assert "plain / ours" in outcome.out
    assert json.dumps(figures)


def test_both_variants_learn_the_same():
    config = BenchmarkConfig("conv32", batch_size=2, slots=2, steps=2)
    plain, ours = make_step("plain", config), make_step("ours", config)
    losses = [(plain(), ours()) for _ in range(3)]
    assert losses[2][0] < losses[0][0]
    for expected, loss in losses:
        assert loss == pytest.approx(expected, rel=1e-4)


def test_products_by_onednn_are_counted_as_others(monkeypatch):
    step = make_step("ours", BenchmarkConfig("conv32", batch_size=16, slots=2, steps=2))
    count = floating_point_operations(step)
    monkeypatch.setattr(affine, "FEWEST_PRODUCTS", 10**12)
    assert count == floating_point_operations(step)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--steps 0", "steps is 0"),
        ("--architecture projection32", "no plain version"),
        ("--architecture conv63", "did you mean 'conv64'"),
        ("--slots 1", "at least 2 slots"),
    ],
)
def test_senseless_options_are_refused(rnem, flag, message):
    outcome = rnem("bench", "train", *flag.split())
    assert outcome.code == 2
    assert message in outcome.err

from __future__ import annotations

import json

import pytest

from rnem_world.benchmarks.training import StepBenchmarkConfig, floating_point_operations, make_step
from rnem_world.models import layers

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
    config = StepBenchmarkConfig("conv32", batch_size=2, slots=2, steps=2)
    plain, ours = make_step("plain", config), make_step("ours", config)
    losses = [(plain(), ours()) for _ in range(3)]
    assert losses[2][0] < losses[0][0]
    for expected, loss in losses:
        assert loss == pytest.approx(expected, rel=1e-4)


def test_products_by_onednn_are_counted_as_others(monkeypatch):
    step = make_step("ours", StepBenchmarkConfig("conv32", batch_size=16, slots=2, steps=2))
    count = floating_point_operations(step)
    monkeypatch.setattr(layers, "FEWEST_PRODUCTS", 10**12)
    assert count == floating_point_operations(step)


def test_our_step_is_measured_in_bfloat16(monkeypatch):
    from rnem_world import device

    monkeypatch.setattr(device, "has_bfloat16", lambda place: True)  # what has none computes it all the same
    losses = {
        (variant, precision): make_step(
            variant, StepBenchmarkConfig("conv32", 2, 3, 3, precision=precision)
        )()
        for variant in ("plain", "ours")
        for precision in ("float32", "bf16")
    }
    assert losses["plain", "bf16"] == losses["plain", "float32"]
    assert losses["ours", "bf16"] != losses["ours", "float32"]
    assert losses["ours", "bf16"] == pytest.approx(losses["ours", "float32"], rel=0.01)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--steps 0", "steps is 0"),
        ("--architecture projection32", "no plain version"),
        ("--architecture conv63", "did you mean 'conv64'"),
        ("--slots 1", "at least 2 slots"),
        ("--precision tf32", "'float32', 'bf16'"),
    ],
)
def test_senseless_options_are_refused(rnem, flag, message):
    outcome = rnem("bench", "train", *flag.split())
    assert outcome.code == 2
    assert message in outcome.err


def test_the_loader_is_measured_beside_training(rnem, tiny, tmp_path):
    words = ["bench", "loader", tiny.data, "--batch-size", 4, "--steps", 3, "--batches", 5, "--updates", 1]
    outcome = rnem(*words, "--threads", 1, "--out", tmp_path / "loader.json")
    assert outcome.code == 0, outcome
    figures = outcome.json_file
    training = figures["training"]["sequences_per_second"]
    for source in ("memory", "files"):
        row = figures[source]
        assert row["times_training"] == pytest.approx(row["sequences_per_second"] / training)
        assert 0 <= row["waiting"] < 1
        assert source in outcome.out


def test_a_split_that_does_not_fit_is_measured_from_files_alone(tiny):
    import torch

    from rnem_world.benchmarks.training import compare_loader
    from rnem_world.data.dataset import Dataset

    config = tiny.config(memory_gigabytes=1e-9)
    with Dataset.open(tiny.data) as dataset:
        figures = compare_loader(dataset, config, torch.device("cpu"), 2, 1)
    assert figures.keys() == {"files", "training"}

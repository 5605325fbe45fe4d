"""What a training is said to cost, beside what it costs; and that saying so changes nothing."""

from __future__ import annotations

import dataclasses
import time

import pytest
import torch

from rnem_world.config import build, merged
from rnem_world.training import checkpoint
from rnem_world.training import forecast as module
from rnem_world.training.config import RunConfig
from rnem_world.training.forecast import describe_cost, duration, forecast
from rnem_world.training.trainer import train


def configured(tiny, **options):
    return build(RunConfig, merged(dataclasses.asdict(tiny.config()), options))


def cost_of(tiny, place, **options):
    config = configured(tiny, **options)
    with tiny.trainer(place, config) as trainer:
        return forecast(trainer.model, trainer.config, trainer.training, trainer.validation)


def test_training_goes_as_it_would_have_gone(tiny, tmp_path):
    torch.manual_seed(0)
    lines: list[str] = []
    train(tiny.data, tiny.config(epochs=2), tmp_path / "told", device="cpu", report=lines.append)
    tiny.fit(tmp_path / "untold", epochs=2)
    told, untold = (
        checkpoint.read_weights(checkpoint.find_checkpoint(tmp_path / name)) for name in ("told", "untold")
    )
    assert all(torch.equal(told[name], untold[name]) for name in told)
    assert any(line.startswith("an epoch: 3 batches of 4 sequences, about") for line in lines)
    assert any(line.startswith("memory: about") for line in lines)
    first = next(number for number, line in enumerate(lines) if line.startswith("an epoch"))
    assert not any("update" in line and "loss" in line for line in lines[:first])


def test_the_model_and_global_random_numbers_are_left_alone(tiny, tmp_path):
    with tiny.trainer(tmp_path / "run") as trainer:
        before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        torch.manual_seed(3)
        expected = torch.rand(3)
        torch.manual_seed(3)
        assert forecast(trainer.model, trainer.config, trainer.training, trainer.validation) is not None
        assert torch.equal(torch.rand(3), expected)
        assert all(torch.equal(before[name], tensor) for name, tensor in trainer.model.state_dict().items())
        assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_a_resumed_run_is_not_measured_again(tiny, tmp_path):
    train(tiny.data, tiny.config(epochs=1), tmp_path / "run", device="cpu")
    lines: list[str] = []
    config = checkpoint.read_config(tmp_path / "run")
    longer = dataclasses.replace(config, training=dataclasses.replace(config.training, epochs=2))
    train(tiny.data, longer, tmp_path / "run", device="cpu", resume=True, report=lines.append)
    assert not any(line.startswith("an epoch: 3 batches") for line in lines)


@pytest.mark.parametrize("steps", [5, 7])
def test_what_is_kept_for_the_backward_pass_is_counted(tiny, tmp_path, steps):
    """The forecast is of a part of the steps; all of them, counted, are about what it says."""
    config = configured(tiny, training={"sequence_steps": steps})
    with tiny.trainer(tmp_path / "run", config) as trainer:
        cost = forecast(trainer.model, trainer.config, trainer.training, trainer.validation)
        batch = next(trainer.training.epoch(0))
        with module._counted(trainer.model) as kept:
            trainer.learner.learn(batch, 0, with_score=False)
    assert cost is not None
    assert cost.activation_bytes == pytest.approx(kept.peak, rel=0.2)


def test_nothing_is_kept_once_the_backward_pass_is_done():
    layer = torch.nn.Linear(8, 8)
    with module._counted(layer) as kept:
        for _ in range(3):
            layer(torch.ones(4, 8)).relu().sum().backward()
    assert kept._now == 0
    # The input, and the result of the relu; the weights are the model's.
    assert kept.peak == 2 * 4 * 8 * 4


def test_micro_batches_and_chunks_save_memory(tiny, tmp_path):
    whole = cost_of(tiny, tmp_path / "whole", training={"sequence_steps": 6})
    halves = cost_of(tiny, tmp_path / "halves", training={"sequence_steps": 6, "accumulate": 2})
    chunks = cost_of(tiny, tmp_path / "chunks", training={"sequence_steps": 6, "chunk_steps": 2})
    assert halves.activation_bytes == pytest.approx(whole.activation_bytes / 2, rel=0.01)
    assert chunks.activation_bytes < 0.5 * whole.activation_bytes
    assert (whole.updates_per_batch, chunks.updates_per_batch) == (1, 3)
    assert whole.data_bytes > 0
    unread = cost_of(tiny, tmp_path / "unread", training={"memory_gigabytes": 0.0})
    assert unread.data_bytes == 0
    assert "the data is read as it goes" in "".join(describe_cost(unread, configured(tiny)))


def test_what_begins_later_is_measured_too(tiny, tmp_path):
    config = {"training": {"closed_loop": {"fraction": 0.5, "steps": 1, "after_updates": 40}}}
    cost = cost_of(tiny, tmp_path / "run", **config)
    assert cost.late_after == 40
    assert cost.late_batch_seconds is not None
    assert "once all parts train, after update 40" in "".join(describe_cost(cost, configured(tiny, **config)))
    assert cost_of(tiny, tmp_path / "other").late_batch_seconds is None


def test_a_limit_of_updates_bounds_the_whole(tiny, tmp_path):
    cost = cost_of(tiny, tmp_path / "run")
    assert "; 3 epochs at most: " in next(describe_cost(cost, configured(tiny)))
    limited = configured(tiny, training={"max_updates": 6})
    assert "; 2 epochs at most: " in next(describe_cost(cost, limited))
    assert "at most" not in next(describe_cost(cost, configured(tiny, training={"max_updates": 3})))


def test_a_loss_that_is_not_finite_is_left_to_training(tiny, tmp_path):
    with tiny.trainer(tmp_path / "run") as trainer:
        with torch.no_grad():
            next(trainer.model.parameters()).fill_(torch.nan)
        assert forecast(trainer.model, trainer.config, trainer.training, trainer.validation) is None


def test_the_time_is_that_of_a_batch(tiny, tmp_path):
    """Within a factor of four, on a machine that does other things beside."""
    config = configured(tiny, training={"sequence_steps": 7, "batch_size": 12})
    with tiny.trainer(tmp_path / "run", config) as trainer:
        batch = next(trainer.training.epoch(0))
        trainer.learner.learn(batch, 0, with_score=False)
        times = []
        for _ in range(5):
            started = time.perf_counter()
            trainer.learner.learn(batch, 0, with_score=False)
            times.append(time.perf_counter() - started)
        costs = [
            forecast(trainer.model, trainer.config, trainer.training, trainer.validation) for _ in range(5)
        ]
    told = min(cost.batch_seconds for cost in costs if cost is not None)
    assert min(times) / 4 < told < min(times) * 4


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 s"), (40, "40 s"), (700, "12 min"), (3 * 3600, "3 h"), (86400 * 3.3, "3.3 days")],
)
def test_durations_are_written_for_people(seconds, text):
    assert duration(seconds) == text

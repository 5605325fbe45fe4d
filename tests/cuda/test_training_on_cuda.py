"""Training on a graphics card: precisions, what the host waits for, resuming, and checkpoints that change devices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_learner import make_batch
from worlds_to_train import MODEL, SIZE, STEPS

from rnem_world.device import has_bfloat16, has_tf32
from rnem_world.models.world_model import WorldModel
from rnem_world.training import checkpoint
from rnem_world.training.config import (
    ClosedLoopConfig,
    ExecutionConfig,
    OptimizerConfig,
    PriorCodeConfig,
    RunConfig,
    TrainingConfig,
)
from rnem_world.training.learner import Learner
from rnem_world.training.trainer import Trainer, train

pytestmark = pytest.mark.cuda

# Plain gradient descent: Adam's first steps make much of rounding.
PLAIN = OptimizerConfig("momentum", 1e-5)


def learner_on(device: torch.device, **options) -> Learner:
    torch.manual_seed(0)
    model = replace(MODEL, number_of_actions=3)
    training = {
        "sequence_steps": STEPS,
        "batch_size": SIZE,
        "chunk_steps": 2,
        "closed_loop": ClosedLoopConfig(1.0, 2, latent_fraction=0.5),
        "prior_code": PriorCodeConfig(0.5, 2),
        "optimizer": replace(PLAIN, clip_factor=1.05),
        **options,
    }
    config = RunConfig(model, TrainingConfig(**training))
    return Learner(checkpoint.to_device(WorldModel(model), device), config)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_precisions_learn_alike(device, precision):
    if not {"float32": True, "tf32": has_tf32(device), "bf16": has_bfloat16(device)}[precision]:
        pytest.skip(f"{device} has no {precision}")
    exact = learner_on(device)
    rounded = learner_on(device, execution=ExecutionConfig(precision))
    for update in range(0, 9, 3):
        expected = exact.learn(make_batch(), update, with_score=True)
        found = rounded.learn(make_batch(), update, with_score=True)
        assert found.loss == pytest.approx(expected.loss, rel=1e-4 if precision == "float32" else 0.02)
        assert found.figures.keys() == expected.figures.keys() == {"heads", "prior_code", "ari"}
    assert all(parameter.dtype == torch.float32 for parameter in rounded.model.parameters())


def test_the_host_waits_once_an_update(device, counting_waits):
    learner = learner_on(device)
    learner.learn(make_batch(), 0, with_score=False)
    with counting_waits() as waits:
        lesson = learner.learn(make_batch(), 3, with_score=False)
    assert lesson.updates == 3
    assert len(waits) == (3 if device.type == "cuda" else 0), waits


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [parameter.detach().cpu() for parameter in trainer.model.parameters()]


def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(device, tiny, tmp_path):
    options = {"epochs": 10, "optimizer": PLAIN}
    whole = train(tiny.data, tiny.config(max_updates=5, **options), tmp_path / "whole", device=device)
    train(tiny.data, tiny.config(max_updates=2, **options), tmp_path / "parts", device=device)
    config = checkpoint.read_config(tmp_path / "parts")
    config = replace(config, training=replace(config.training, max_updates=5))
    parts = train(tiny.data, config, tmp_path / "parts", device=device, resume=True)
    assert parts.progress.updates == whole.progress.updates == 5
    for one, other in zip(weights(whole), weights(parts), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    assert whole.evaluation is not None
    assert parts.evaluation is not None
    assert parts.evaluation.loss == pytest.approx(whole.evaluation.loss, rel=1e-4)
    assert whole.overview().ndim == 3


@pytest.mark.parametrize("begins_on_the_card", [True, False])
def test_a_run_goes_on_elsewhere(device, begins_on_the_card, tiny, tmp_path):
    places = [device, torch.device("cpu")]
    first, second = places if begins_on_the_card else places[::-1]
    run = tmp_path / "run"
    options = {"max_updates": 2, "epochs": 10, "optimizer": PLAIN}
    before = train(tiny.data, tiny.config(**options), run, device=first)
    model, config = checkpoint.load_model(run, second, "last")
    assert {parameter.device for parameter in model.parameters()} == {second}
    for one, other in zip(weights(before), model.parameters(), strict=True):
        assert torch.equal(one, other.detach().cpu())
    config = replace(config, training=replace(config.training, max_updates=4))
    after = train(tiny.data, config, run, device=second, resume=True)
    assert after.progress.updates == 4
    assert np.isfinite(after.learner.gradient_norm)
    assert {parameter.device for parameter in after.model.parameters()} == {second}

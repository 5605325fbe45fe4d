"""The world model against the same model written plainly: only the order of additions may differ."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rnem_world.benchmarks.plain import PlainModel
from rnem_world.errors import ConfigError
from rnem_world.models.config import LossConfig, ModelConfig
from rnem_world.models.rollout import observe
from rnem_world.models.world_model import SlotState, WorldModel
from rnem_world.training.config import HeadLossConfig
from rnem_world.training.losses import SequenceBatch, SequenceLoss

SMALL = ModelConfig(architecture="conv32", slots=3, hidden_size=24, attention_size=10)
CONFIGS = {
    "attention": SMALL,
    "no attention": replace(SMALL, core="relational_no_attention"),
    "actions": replace(SMALL, number_of_actions=4, slots=2),
    "channels": replace(SMALL, channels=3),
    "conv64": replace(SMALL, architecture="conv64", slots=2),
    "conv84 with actions": replace(SMALL, architecture="conv84", slots=2, number_of_actions=4),
}


def example(
    config: ModelConfig, dtype: torch.dtype = torch.float64
) -> tuple[WorldModel, SlotState, SequenceBatch]:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = WorldModel(config).to(dtype)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=dtype)
    size, steps = config.frame_size[0], 3
    frames = torch.rand(2, steps + 1, config.channels, size, size, generator=generator) < 0.2
    flips = torch.rand(frames[:, 1:].shape, generator=generator) < 0.2
    actions = None
    if config.number_of_actions:
        actions = torch.randint(config.number_of_actions, (2, steps), generator=generator)
    return model, model.initial_state(2, generator=generator), SequenceBatch(frames.to(dtype), flips, actions)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_predictions_losses_and_gradients_are_the_plain_ones(config: ModelConfig) -> None:
    model, state, batch = example(config)
    plain = PlainModel(model)
    expected = plain(state, batch.frames, batch.noise, batch.actions)
    seen = model.likelihood.add_noise(batch.frames[:, :-1], batch.noise)
    with torch.no_grad():
        steps = list(observe(model, state, seen, batch.frames[:, 1:], batch.actions))
    predictions = torch.stack([transition.prediction for transition, _ in steps], dim=1)
    torch.testing.assert_close(predictions, expected.predictions, atol=1e-9, rtol=0)
    gammas = torch.stack([after.gamma for _, after in steps], dim=1)
    torch.testing.assert_close(gammas, expected.gammas, atol=1e-9, rtol=0)
    loss = SequenceLoss(model, LossConfig(), HeadLossConfig())(state, batch, torch.ones(3)).loss
    torch.testing.assert_close(loss, expected.loss, atol=0, rtol=1e-9)
    loss.backward()
    expected.loss.backward()
    for (name, parameter), value in zip(model.named_parameters(), plain.values, strict=True):
        assert parameter.grad is not None
        assert value.grad is not None
        scale = float(value.grad.abs().max())
        torch.testing.assert_close(parameter.grad, value.grad, atol=1e-9 * scale, rtol=1e-9, msg=name)


def test_single_precision_follows_double_precision() -> None:
    gradients = []
    for dtype in (torch.float32, torch.float64):
        model, state, batch = example(SMALL, torch.float64)
        state = SlotState(*(value.to(dtype) for value in (state.theta, state.prediction, state.gamma)))
        loss = SequenceLoss(model.to(dtype), LossConfig(), HeadLossConfig())
        loss(state, batch._replace(frames=batch.frames.to(dtype)), torch.ones(3)).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for single, double in zip(*gradients, strict=True):
        error = (single.double() - double).norm() / double.norm()
        assert error < 1e-3


def test_the_plain_model_has_weights_of_its_own() -> None:
    model = WorldModel(SMALL)
    plain = PlainModel(model)
    plain.values[0].data.zero_()
    assert model.encoder.linear.weight.abs().max() > 0
    assert next(model.parameters()).abs().max() > 0


@pytest.mark.parametrize(
    "options", [{"core": "rnn"}, {"architecture": "projection32"}, {"heads": True}, {"theta_update": "gated"}]
)
def test_only_the_model_of_the_paper_has_a_plain_version(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="plain version"):
        PlainModel(WorldModel(replace(SMALL, **options)))

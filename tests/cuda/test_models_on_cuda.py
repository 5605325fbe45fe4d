"""The models on a graphics card against the original's numbers, and training's loss against the processor's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import GOLDENS, load, original_layout
from worlds_to_train import MODEL, SIZE, STEPS

from rnem_world.device import multiplying
from rnem_world.models.config import LossConfig
from rnem_world.models.tensorflow_names import tensorflow_parameters
from rnem_world.models.world_model import SlotState, WorldModel
from rnem_world.training.checkpoint import to_device
from rnem_world.training.config import HeadLossConfig, PriorCodeConfig
from rnem_world.training.losses import SequenceBatch, SequenceLoss

pytestmark = pytest.mark.cuda

# Ten times what the processor's own order of additions needs.
TOLERANCES = {
    "c1x_rnem_k5_sharp": (1e-4, 6e-5),
    "c3_rnn_k5": (2e-5, 1.2e-5),
    "c5_atari_b1": (1e-5, 8e-6),
    "c5_atari_b3_repeat": (1e-5, 1e-5),
    "c7b_rollout_bias": (6e-6, 8e-6),
}


@pytest.mark.parametrize("name", TOLERANCES)
def test_predictions_and_gammas_are_the_originals(device, name):
    on_cpu = load(name)
    state = on_cpu.state
    reference = replace(
        on_cpu,
        model=to_device(on_cpu.model, device),
        frames=on_cpu.frames.to(device),
        actions=None if on_cpu.actions is None else on_cpu.actions.to(device),
        state=SlotState(state.theta.to(device), state.prediction.to(device), state.gamma.to(device)),
    )
    assert len(tensorflow_parameters(reference.model)) == len(reference.variables)
    rollout, rows = reference.run(), reference.pixels
    assert rollout.predictions.device == device
    for values, key, limit in zip(
        (rollout.predictions, rollout.gammas), ("preds_sub", "gammas_sub"), TOLERANCES[name], strict=True
    ):
        sub = original_layout(values.cpu())[:, :, :, rows][:, :, :, :, rows]
        np.testing.assert_allclose(sub, reference.expected[key], atol=limit, rtol=0, err_msg=key)
    assert (GOLDENS / f"{name}.npz").is_file()


def losses_and_gradients(device: torch.device) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """A batch with everything that training has, on a device."""
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(0)
    model = WorldModel(MODEL)
    state = model.initial_state(SIZE, generator=generator)
    frames = (torch.rand(SIZE, STEPS + 1, 1, 32, 32, generator=generator) < 0.2).float()
    flips = torch.rand(SIZE, STEPS, 1, 32, 32, generator=generator) < 0.1
    actions = torch.randint(0, 9, (SIZE, STEPS), generator=generator)
    rewards = -torch.rand(SIZE, STEPS, generator=generator)
    ends = (torch.rand(SIZE, STEPS, generator=generator) < 0.2).float()
    own = np.zeros((SIZE, STEPS), bool)
    own[1, 2:4] = own[2, 5] = True
    codes = own & (np.arange(STEPS) != 3)
    model = to_device(model, device).train()
    there = [tensor.to(device) for tensor in (frames, flips, actions, rewards, ends)]
    batch = SequenceBatch(*there, own, codes, np.array([2.0, 0.0, 2.0, 0.0], np.float32))
    first = {name: None if value is None else value.to(device) for name, value in vars(state).items()}
    loss = SequenceLoss(model, LossConfig(motion_weight=2.0), HeadLossConfig(), PriorCodeConfig(0.5, 3))
    with multiplying("float32", device):
        result = loss(SlotState(**first), batch, torch.ones(STEPS, device=device), with_gammas=True)
        result.loss.backward()
    found = [result.loss, result.steps, result.heads, result.prior, result.gammas]
    return [value.detach().cpu() for value in found], [
        parameter.grad.cpu() for parameter in model.parameters() if parameter.grad is not None
    ]


def test_the_loss_and_its_gradient_are_the_processors(device):
    expected, gradients = losses_and_gradients(torch.device("cpu"))
    found, others = losses_and_gradients(device)
    for value, there in zip(expected, found, strict=True):
        torch.testing.assert_close(there, value, rtol=1e-4, atol=1e-4)
    for gradient, other in zip(gradients, others, strict=True):
        assert (gradient - other).abs().max() <= 2e-3 * gradient.abs().max() + 1e-6

"""What world models' slots see, and how they keep what they know."""

from __future__ import annotations

import pytest
import torch
from worlds import disc, videos, world_model

from rnem_world.config import build
from rnem_world.errors import ConfigError
from rnem_world.models.config import ModelConfig
from rnem_world.models.rollout import imagine, observe
from rnem_world.models.world_model import SlotState


def set_gate(model, value: float) -> None:
    """Sets the gate's logits."""
    size = model.core.state_size
    with torch.no_grad():
        model.core.update.weight[:size] = 0.0
        model.core.update.bias[:size] = value


@torch.no_grad()
def test_a_closed_gate_keeps_theta_and_an_open_one_replaces_it() -> None:
    frames, actions = videos(2, 1)
    for gate, keeps in ((-40.0, True), (40.0, False)):
        model = world_model()
        state = model.initial_state(2)
        state = SlotState(0.3 * torch.randn_like(state.theta), state.prediction, state.gamma, state.frame)
        set_gate(model, gate)
        after = model.predict(state, frames[:, 0], actions[:, 0]).theta
        assert torch.allclose(after, state.theta, atol=1e-6) == keeps
    # An open gate takes the candidate, which doesn't know theta but through the core.
    assert after.abs().max() <= 1.0


@torch.no_grad()
def test_the_gate_weighs_old_against_new() -> None:
    model = world_model()
    frames, actions = videos(2, 1)
    state = model.initial_state(2)
    state = SlotState(torch.randn_like(state.theta), state.prediction, state.gamma, state.frame)
    set_gate(model, 40.0)
    candidate = model.predict(state, frames[:, 0], actions[:, 0]).theta
    set_gate(model, 1.0)  # sigmoid(1 - 1) = 1/2
    torch.testing.assert_close(
        model.predict(state, frames[:, 0], actions[:, 0]).theta, (state.theta + candidate) / 2
    )


@pytest.mark.parametrize("core", ["rnn", "lstm"])
def test_gates_belong_to_relational_cores(core: str) -> None:
    with pytest.raises(ConfigError, match=f"not to {core}: choose sigmoid"):
        ModelConfig(core=core, theta_update="gated")


@pytest.mark.parametrize("name", ["slot_inputs", "theta_update"])
def test_unknown_options_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is 'gate'"):
        build(ModelConfig, {name: "gate"})


@torch.no_grad()
def test_the_state_keeps_the_previous_input() -> None:
    model = world_model()
    frames, actions = videos(2, 5)
    state = model.initial_state(2)
    assert state.frame is not None
    assert state.frame.abs().max() == 0
    for step, (_, after) in enumerate(observe(model, state, frames, frames[:, 1:], actions)):
        assert after.frame is not None
        torch.testing.assert_close(after.frame, frames[:, step])
    fed = imagine(model, after, 3, actions, "pixels")
    for frame, _, imagined in fed:
        torch.testing.assert_close(imagined.frame, frame)
    assert world_model(slot_inputs="error").initial_state(1).frame is None


@torch.no_grad()
def test_a_still_video_has_no_motion_and_a_moving_one_has() -> None:
    model = world_model()
    actions = torch.zeros(1, dtype=torch.int64)
    still, moved = disc(12, 12)[None, None], disc(13, 12)[None, None]
    plain = model.initial_state(1, generator=torch.Generator().manual_seed(0))
    seen = []
    model.encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    for previous, frame in ((still, still), (still, moved)):
        state = SlotState(plain.theta, plain.prediction, plain.gamma, previous)
        model.predict(state, frame, actions)
    assert seen[0].shape == (4, 3, 32, 32)  # slots; error, frame and motion
    assert seen[0][:, 2].abs().max() == 0
    torch.testing.assert_close(seen[0][:, 1:2].sum(dim=0), still[0])  # gamma shares the frame out
    torch.testing.assert_close(seen[1][:, 2:].sum(dim=0), (moved - still)[0])

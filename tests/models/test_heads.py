from __future__ import annotations

import pytest
import torch
from worlds import videos, world_model

from rnem_world.models.cores import Heads


def test_shares_add_up_over_slots() -> None:
    torch.manual_seed(0)
    heads, slots = Heads(8).double(), torch.randn(3, 4, 8, dtype=torch.float64)
    together = heads(slots)
    assert together.rewards.shape == (3, 4)
    assert together.termination.shape == (3,)
    alone = [heads(slots[:, slot : slot + 1]) for slot in range(4)]
    torch.testing.assert_close(together.rewards, torch.cat([one.rewards for one in alone], dim=1))
    torch.testing.assert_close(together.termination, sum(one.termination for one in alone))
    assert together.rewards.std() > 1e-3


def test_permuting_slots_permutes_shares() -> None:
    torch.manual_seed(0)
    heads, slots, order = Heads(8), torch.randn(3, 4, 8), [3, 1, 0, 2]
    torch.testing.assert_close(heads(slots[:, order]).rewards, heads(slots).rewards[:, order])
    torch.testing.assert_close(heads(slots[:, order]).termination, heads(slots).termination)


@pytest.mark.parametrize("figure", ["rewards", "termination"])
def test_the_gradient_reaches_the_core_and_the_actions(figure: str) -> None:
    model = world_model()
    frames, actions = videos(2, 2)
    transition = model.predict(model.initial_state(2), frames[:, 0], actions[:, 0])
    getattr(transition.heads, figure).sum().backward()
    assert model.action_embedding is not None
    for module in (model.heads, model.core, model.encoder, model.action_embedding):
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        assert max(float(gradient.abs().max()) for gradient in gradients) > 0
    assert all(parameter.grad is None for parameter in model.decoder.parameters())


def test_a_model_without_heads_tells_nothing() -> None:
    model = world_model(heads=False)
    frames, actions = videos(1, 1)
    assert model.predict(model.initial_state(1), frames[:, 0], actions[:, 0]).heads is None

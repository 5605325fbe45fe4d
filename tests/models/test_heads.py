from __future__ import annotations

import pytest
import torch
from worlds import videos, world_model

from rnem_world.errors import ConfigError
from rnem_world.models.cores import CoreOutput
from rnem_world.models.heads import ClassHeads, Heads, shares_of_values


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


VALUES = (-1.0, 0.0, 0.5, 3.0)


def class_heads(seed: int = 0) -> ClassHeads:
    torch.manual_seed(seed)
    heads = ClassHeads(8, VALUES).double()
    with torch.no_grad():
        heads.parts.weight.normal_()
        heads.parts.bias.normal_()
    return heads


def test_the_reward_is_the_expectation_over_the_values_and_never_beyond_them() -> None:
    heads, slots = class_heads(), 5.0 * torch.randn(50, 4, 8, dtype=torch.float64)
    output = heads(slots)
    assert output.classes is not None
    expected = output.classes.softmax(dim=1) @ torch.tensor(VALUES, dtype=torch.float64)
    torch.testing.assert_close(output.rewards.sum(dim=1), expected)
    assert output.rewards.sum(dim=1).min() >= -1.0
    assert output.rewards.sum(dim=1).max() <= 3.0
    assert output.rewards.sum(dim=1).std() > 0.3


def test_logits_add_up_over_slots_and_shares_follow_the_slots() -> None:
    heads, slots, order = class_heads(), torch.randn(3, 4, 8, dtype=torch.float64), [3, 1, 0, 2]
    together, permuted = heads(slots), heads(slots[:, order])
    torch.testing.assert_close(permuted.rewards, together.rewards[:, order])
    alone = [heads(slots[:, slot : slot + 1]) for slot in range(4)]
    torch.testing.assert_close(together.classes, sum(one.classes for one in alone))
    torch.testing.assert_close(together.termination, sum(one.termination for one in alone))


def test_the_slot_that_speaks_for_a_reward_gets_most_of_it() -> None:
    heads = ClassHeads(8, (0.0, 1.0)).double()
    slots = torch.randn(1, 3, 8, dtype=torch.float64)
    with torch.no_grad():
        hidden = torch.nn.functional.elu(heads.norm(heads.hidden(slots)))[0]
        # The logit of 1 is large where a slot looks like the second one.
        heads.parts.weight[1] = torch.linalg.pinv(hidden) @ torch.tensor([0.0, 8.0, 0.0], dtype=torch.float64)
    output = heads(slots)
    assert output.rewards[0].sum() > 0.95
    assert output.rewards[0, 1] > 0.9


def test_new_heads_tell_all_values_alike_and_learn_from_the_first_step() -> None:
    heads, slots = ClassHeads(8, VALUES), torch.randn(2, 4, 8)
    output = heads(slots)
    assert output.classes is not None
    assert not output.classes.any()
    assert not output.termination.any()
    torch.nn.functional.cross_entropy(output.classes, torch.tensor([0, 3])).backward()
    assert heads.parts.weight.grad.abs().max() > 0


def test_a_single_value_is_always_earned() -> None:
    heads = ClassHeads(8, (1.0,))
    torch.testing.assert_close(heads(torch.randn(5, 4, 8)).rewards.sum(dim=1), torch.ones(5))


def test_rewards_are_shared_out_between_the_values_around_them() -> None:
    values = torch.tensor(VALUES)
    shares = shares_of_values(torch.tensor([[-1.0, 0.0, 0.5, 3.0], [-0.25, 0.1, 2.0, 1.75]]), values)
    torch.testing.assert_close(shares[0], torch.eye(4))
    torch.testing.assert_close(shares[1] @ values, torch.tensor([-0.25, 0.1, 2.0, 1.75]))
    assert ((shares > 0).sum(dim=-1) <= 2).all()
    torch.testing.assert_close(shares_of_values(torch.tensor([-7.0, 9.0]), values), torch.eye(4)[[0, 3]])
    torch.testing.assert_close(shares_of_values(torch.tensor([4.0]), torch.tensor([1.0])), torch.ones(1, 1))


def test_heads_that_see_effects_tell_from_what_slots_did_to_each_other() -> None:
    model = world_model(heads_see="slots_and_effects", reward_values=VALUES)
    torch.nn.init.normal_(model.heads.parts.weight)
    frames, actions = videos(2, 2)
    told = model.predict(model.initial_state(2), frames[:, 0], actions[:, 0]).heads
    step = CoreOutput(torch.ones(2, 4, 24), torch.ones(2, 4, 24), None, torch.zeros(2, 4, 24))
    assert told.classes.shape == (2, 4)
    assert not torch.equal(
        model.tell(step).classes, model.tell(step._replace(effect=torch.ones(2, 4, 24))).classes
    )
    told.rewards[:, 0].sum().backward()
    assert model.core.pair.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward_values": ()}, "at least one"),
        ({"reward_values": (1.0, 0.0)}, "increasing order"),
        ({"reward_values": (0.0, 0.0)}, "increasing order"),
        ({"reward_values": (0.0, float("inf"))}, "finite"),
        ({"heads_see": "slots_and_effects", "core": "rnn", "theta_update": "sigmoid"}, "relational cores"),
    ],
)
def test_heads_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        world_model(**options)

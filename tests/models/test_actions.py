"""Actions of every kind, from the configuration to the core."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor

from rnem_world.config import build
from rnem_world.errors import ConfigError
from rnem_world.evaluation.imagination import evaluate_imagination
from rnem_world.evaluation.truth import Truth
from rnem_world.models.actions import ActionEmbedding
from rnem_world.models.config import ActionsConfig, ModelConfig
from rnem_world.models.rollout import RolloutConfig, roll_out
from tests.models.worlds import CONFIG, videos, world_model

KINDS = {
    "discrete": None,
    "multi_discrete": ActionsConfig("multi_discrete", (3, 2, 4)),
    "multi_binary": ActionsConfig("multi_binary", (2, 2)),
    "box": ActionsConfig("box", low=(-1.0, 0.0), high=(1.0, 10.0)),
}


def options(kind: str) -> dict[str, object]:
    return {"number_of_actions": 4 if kind == "discrete" else 0, "actions": KINDS[kind]}


def embedding(kind: str) -> ActionEmbedding:
    torch.manual_seed(0)
    return ActionEmbedding(replace(CONFIG, **options(kind)))


def some_actions(kind: str, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    actions = KINDS[kind]
    if actions is None:
        return torch.randint(4, shape, generator=generator)
    if actions.kind == "box":
        low, high = torch.tensor(actions.low), torch.tensor(actions.high)
        return low + torch.rand(*shape, actions.length, generator=generator) * (high - low)
    parts = [torch.randint(size, shape, generator=generator) for size in actions.sizes]
    return torch.stack(parts, dim=-1)


def by_hand(embedding: ActionEmbedding, features: Tensor) -> Tensor:
    return torch.relu(embedding.norm(embedding.linear(features)))


class TestEmbedding:
    def test_one_number(self) -> None:
        layer = embedding("discrete")
        torch.testing.assert_close(layer(torch.tensor([2, 0])), by_hand(layer, torch.eye(4)[[2, 0]]))

    def test_several_numbers(self) -> None:
        layer = embedding("multi_discrete")
        features = torch.zeros(2, 9)
        features[0, [1, 3, 8]] = 1.0
        features[1, [2, 4, 5]] = 1.0
        torch.testing.assert_close(layer(torch.tensor([[1, 0, 3], [2, 1, 0]])), by_hand(layer, features))

    def test_bits(self) -> None:
        layer = embedding("multi_binary")
        bits = torch.tensor([[0, 1], [1, 1], [0, 0]])
        torch.testing.assert_close(layer(bits), by_hand(layer, bits.float()))

    def test_real_numbers(self) -> None:
        layer = embedding("box")
        features = torch.zeros(3, 2, 5)
        features[0, 0, 2] = features[0, 1, 0] = 1.0  # 0 is the middle of -1 to 1, and the least of 0 to 10
        features[1, 0, 4] = features[2, 0, 4] = 1.0  # the greatest, and beyond it
        features[1, 1, 1] = features[2, 1, 1] = 0.6  # 3.5 lies between 2.5 and 5
        features[1, 1, 2] = features[2, 1, 2] = 0.4
        actions = torch.tensor([[0.0, 0.0], [1.0, 3.5], [7.0, 3.5]])
        torch.testing.assert_close(layer(actions), by_hand(layer, features.flatten(1)))
        torch.testing.assert_close(layer(actions.double()), layer(actions))

    def test_how_large_a_number_is_shows_from_the_start(self) -> None:
        layer = ActionEmbedding(
            replace(CONFIG, number_of_actions=0, actions=ActionsConfig("box", (), (-2.0,), (2.0,)))
        )
        embedded = layer(torch.linspace(-2, 2, 9)[:, None]).detach()
        assert float((embedded[1:] - embedded[:-1]).norm(dim=1).min()) > 0.05

    @pytest.mark.parametrize("kind", KINDS)
    def test_zeros(self, kind: str) -> None:
        layer, like = embedding(kind), some_actions(kind, 3)
        zeros = layer.zeros(3)
        assert (zeros.shape, zeros.dtype) == (like.shape, like.dtype)
        assert not zeros.any()
        assert layer(zeros).shape == (3, CONFIG.action_size)

    @pytest.mark.parametrize(
        ("kind", "given"), [("discrete", "box"), ("box", "discrete"), ("multi_binary", "multi_discrete")]
    )
    def test_other_kinds_are_refused(self, kind: str, given: str) -> None:
        with pytest.raises(ConfigError, match="the model knows"):
            embedding(kind)(some_actions(given, 3))


class TestConfig:
    @pytest.mark.parametrize("kind", KINDS)
    def test_it_comes_back_from_json(self, kind: str) -> None:
        config = replace(CONFIG, **options(kind))
        assert config.takes_actions
        assert build(ModelConfig, json.loads(json.dumps(asdict(config)))) == config

    def test_configurations_of_before(self) -> None:
        values = {
            name: value for name, value in asdict(CONFIG).items() if name not in ("actions", "likelihood")
        }
        assert build(ModelConfig, values) == CONFIG
        assert not ModelConfig().takes_actions

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"kind": "box_"}, "did you mean 'box'"),
            ({"kind": "box"}, "as many low as high"),
            ({"kind": "box", "low": (0.0,), "high": (1.0, 2.0)}, "as many low as high"),
            ({"kind": "box", "low": (0.0,), "high": (float("inf"),)}, "those that occur in the data"),
            ({"kind": "box", "low": (1.0,), "high": (1.0,)}, "the first less"),
            ({"kind": "multi_discrete"}, "sizes alone"),
            ({"kind": "multi_discrete", "sizes": (3,), "low": (0.0,), "high": (1.0,)}, "sizes alone"),
            ({"kind": "multi_discrete", "sizes": (3, 0)}, "at least 1"),
            ({"kind": "multi_binary", "sizes": (2, 3)}, "2 for bits"),
        ],
    )
    def test_senseless_ones_are_refused(self, values: dict[str, object], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            build(ActionsConfig, values)

    def test_two_kinds_at_once_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="choose one"):
            ModelConfig(number_of_actions=3, actions=KINDS["box"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_takes_them(kind: str) -> None:
    model = world_model(prior_code=True, **options(kind))
    frames, _ = videos(4, 8)
    actions, others = some_actions(kind, 4, 8), some_actions(kind, 4, 8, seed=1)
    for imagination in ("soft", "pixels", "latent"):
        how = RolloutConfig(3, 4, imagination)
        told, told_others = (
            roll_out(model, frames, how, given, torch.Generator().manual_seed(0))
            for given in (actions, others)
        )
        assert not torch.equal(told.logits, told_others.logits)
    figures = evaluate_imagination(
        model, Truth(frames, actions), RolloutConfig(3, 4, "pixels"), torch.Generator().manual_seed(0)
    )
    assert len(figures.frames.bce) == 4
    # Beside the true actions those of another sequence.
    assert len(figures.frames.wrong_pixels_shuffled) == len(figures.frames.foreground_iou_shuffled) == 4
    state = model.initial_state(4)
    model.predict(state, frames[:, 0], actions[:, 0]).output.sum().backward()
    assert model.action_embedding is not None
    assert model.action_embedding.linear.weight.grad is not None

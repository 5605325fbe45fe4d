"""Learning from what the model imagines."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from test_learner import SIZE, STEPS, learner_of, make_batch
from worlds_to_train import MODEL as WORLD

from rnem_world.errors import ConfigError
from rnem_world.models.rollout import imagine
from rnem_world.models.world_model import SlotState
from rnem_world.training.config import HeadLossConfig, OptimizerConfig, PriorCodeConfig
from rnem_world.training.imagination import _imagine_on, imagination_losses
from rnem_world.training.learner import Learner

MODEL = dataclasses.replace(WORLD, number_of_actions=3, reward_values=(-1.0, -0.5, 0.0))


def watched(learner: Learner) -> tuple[SlotState, torch.Tensor, torch.Tensor]:
    """Slots that have seen a frame, the frame that follows, and actions from there on."""
    batch = learner._sequences(make_batch())
    state = learner.model.initial_state(SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        transition = learner.model.predict(state, batch.frames[:, 0], batch.actions[:, 0])
        return learner.model.update(transition, batch.frames[:, 1]), batch.frames[:, 1], batch.actions[:, 1:]


@torch.no_grad()
def test_imagining_before_is_imagining_for_as_long_as_each_sequence_draws() -> None:
    learner = learner_of(MODEL)
    torch.nn.init.normal_(learner.model.decoder.profiles.weight, 0.0, 0.3)
    state, frame, actions = watched(learner)
    numbers = np.array([3, 0, 1, 2])
    before, after, shown = _imagine_on(
        learner.model, state, learner.model.encode(state, frame), frame, actions, numbers
    )
    steps = list(imagine(learner.model, state, 3, actions, "latent", first_frame=frame))
    thetas = [state.theta, *(own.theta for _, _, own in steps)]
    gammas = [state.gamma, *(own.gamma for _, _, own in steps)]
    frames = [frame, *(learner.model.likelihood.own_frame(own.prediction) for _, _, own in steps)]
    inputs = [state.frame, *frames]
    for row, number in enumerate(numbers):
        torch.testing.assert_close(after.theta[row], thetas[number][row])
        torch.testing.assert_close(after.gamma[row], gammas[number][row])
        torch.testing.assert_close(shown[row], frames[number][row])
        torch.testing.assert_close(after.frame[row], inputs[number][row])
        torch.testing.assert_close(before[row], thetas[max(number - 1, 0)][row])


def test_long_dreams_teach_the_prior_code_something_else() -> None:
    learner = learner_of(MODEL)
    state, frame, actions = watched(learner)
    weights = np.full(SIZE, 1 / SIZE, np.float32)
    losses = [
        imagination_losses(learner.model, state, frame, actions, 3, weights, np.full(SIZE, number)).codes
        for number in (0, 20)
    ]
    assert losses[0] != losses[1]
    losses[1].backward()
    moved = {name.split(".")[0] for name, one in learner.model.named_parameters() if one.grad is not None}
    assert moved == {"prior_code"}


def test_heads_learn_from_imagined_frames_and_nothing_else_does() -> None:
    learner = learner_of(MODEL)
    state, frame, actions = watched(learner)
    weights = np.array([0.5, 0.5, 0.0, 0.0], np.float32)
    asked: list[int] = []

    def judge(heads, step):
        asked.append(step)
        return heads.classes.square().sum(dim=1) + heads.termination + 1.0

    found = imagination_losses(
        learner.model, state, frame, actions, 3, weights, np.array([0, 9, 0, 0]), judge
    )
    assert asked == [0, 1, 2]
    # New heads say nothing; of the sequences that count one began with a real frame, and it counts half.
    assert float(found.heads.detach()) == pytest.approx(0.5)
    found.heads.backward()
    moved = {name.split(".")[0] for name, one in learner.model.named_parameters() if one.grad is not None}
    assert moved == {"heads"}


def test_what_comes_after_an_episode_is_not_asked_of_the_dream_before() -> None:
    learner = learner_of(MODEL, head_loss=HeadLossConfig(1.0, 0.0, 1.0), prior_code=PriorCodeConfig(1.0, 3))
    whole = learner._sequences(make_batch())._replace(imagined=np.ones(SIZE, np.float32))
    state, _, _ = watched(learner)
    begins = np.zeros((SIZE, STEPS), np.bool_)
    losses = []
    for first in (None, 3, 2, 1, 0):  # the first frame of the next episode
        if first is not None:
            begins[:, first] = True
        losses.append(float(learner.loss._imagine(state, whole._replace(begins=begins)).heads.detach()))
    # New heads find every reward as costly as any other.
    assert losses == pytest.approx([np.log(3.0) * part for part in (1.0, 1.0, 2 / 3, 1 / 3, 0.0)], rel=1e-5)


def test_half_of_the_sequences_begin_with_what_is_real() -> None:
    learner = learner_of(MODEL, prior_code=PriorCodeConfig(1.0, 3, before=40))
    drawn = np.concatenate([learner._imagined_before(64) for _ in range(50)])
    assert (drawn == 0).mean() == pytest.approx(0.5, abs=0.03)
    assert drawn.max() == 40
    assert drawn[drawn > 0].mean() == pytest.approx(20.5, abs=1.0)
    assert learner_of(MODEL, prior_code=PriorCodeConfig(1.0, 3))._imagined_before(64) is None


def test_imagined_rewards_are_learned_through_a_whole_update() -> None:
    options = {
        "prior_code": PriorCodeConfig(1.0, 3, before=5),
        "chunk_steps": 3,
        "optimizer": OptimizerConfig("adam", 1e-3),
        "train_only": ("heads",),
    }
    gradients = []
    for weight in (0.0, 1.0):
        learner = learner_of(MODEL, head_loss=HeadLossConfig(imagined_weight=weight), **options)
        learner.learn(make_batch(), 0, with_score=False)
        gradients.append(learner.model.heads.parts.bias.grad.clone())
    assert not torch.allclose(*gradients)


def test_only_the_parts_that_are_named_learn() -> None:
    alone = {"train_only": ("prior_code",), "prior_code": PriorCodeConfig(1.0, 3)}
    lesson = learner_of(MODEL, chunk_steps=3, **alone).learn(make_batch(), 0, with_score=False)
    assert lesson.updates == 2  # the first chunk has nothing for it
    options = {"train_only": ("heads", "prior_code"), "optimizer": OptimizerConfig("adam", 1e-3)}
    learner = learner_of(MODEL, chunk_steps=3, prior_code=PriorCodeConfig(1.0, 3), **options)
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    learner.learn(make_batch(), 0, with_score=False)
    moved = {
        name.split(".")[0]
        for name, value in learner.model.state_dict().items()
        if (value != before[name]).any()
    }
    assert moved == {"heads", "prior_code"}
    resumed = learner_of(MODEL, chunk_steps=3, prior_code=PriorCodeConfig(1.0, 3), **options)
    resumed.load_state_dict(learner.state_dict())
    resumed.learn(make_batch(), 2, with_score=False)
    resumed.state_dict()  # holds nothing of parts that don't learn
    with pytest.raises(ConfigError, match="did you mean 'heads'"):
        learner_of(MODEL, train_only=("head",))
    with pytest.raises(ConfigError, match="train_only names prior_code, which this model hasn't"):
        learner_of(dataclasses.replace(MODEL, prior_code=False), train_only=("prior_code",))


def test_classes_cost_their_cross_entropy_and_numbers_their_squared_error() -> None:
    batch = make_batch()
    rewards = batch.rewards[:, 0]
    for values in ((-1.0, -0.5, 0.0), None):
        model = dataclasses.replace(MODEL, reward_values=values)
        learner = learner_of(model, head_loss=HeadLossConfig(2.0, 0.0))
        whole = learner._sequences(batch)
        state = learner.model.initial_state(SIZE, generator=torch.Generator().manual_seed(0))
        heads = learner.model.predict(state, whole.frames[:, 0], whole.actions[:, 0]).heads
        loss = learner.loss._head_loss(heads, whole, 0)
        assert loss.shape == (SIZE,)
        if values is None:
            torch.testing.assert_close(loss, 2.0 * (heads.rewards.sum(dim=1) - rewards).square())
        else:
            torch.testing.assert_close(loss, torch.full((SIZE,), 2.0 * np.log(3.0), dtype=torch.float32))
    weighted = learner.loss._head_loss(heads, whole._replace(head_weights=torch.arange(4.0)), 0)
    torch.testing.assert_close(weighted, loss * torch.arange(4.0))


def test_a_prior_code_knows_whether_it_has_learned() -> None:
    learner = learner_of(MODEL, prior_code=PriorCodeConfig(0.5, 3, after_updates=1))
    assert learner.model.prior_code is not None
    learner.learn(make_batch(), 0, with_score=False)
    assert not learner.model.prior_code.has_learned
    learner.learn(make_batch(), 1, with_score=False)
    assert learner.model.prior_code.has_learned

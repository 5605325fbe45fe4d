from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rnem_world.errors import ConfigError
from rnem_world.evaluation import imagination
from rnem_world.evaluation.imagination import evaluate_imagination
from rnem_world.evaluation.imagination_figures import FrameFigures, ImaginationFigures
from rnem_world.evaluation.report import imagination_table
from rnem_world.evaluation.truth import (
    PlayerLane,
    Truth,
)
from rnem_world.models.bernoulli import Bernoulli
from rnem_world.models.config import ModelConfig
from rnem_world.models.heads import HeadOutput
from rnem_world.models.rollout import RolloutConfig, roll_out
from rnem_world.models.world_model import SlotState, Transition, WorldModel
from tests.models.worlds import videos, world_model

CONTEXT, HORIZON, FRAMES, N = 4, 6, 12, 5
MODEL = ModelConfig(
    architecture="projection32", hidden_size=8, attention_size=4, number_of_actions=9, heads=True
)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def measure(
    model: WorldModel,
    truth: Truth,
    context: int = CONTEXT,
    horizon: int = HORIZON,
    batch_size: int = 32,
    **options,
) -> ImaginationFigures:
    how = RolloutConfig(context, horizon, "pixels", **options)
    return evaluate_imagination(model, truth, how, generator(), batch_size)


def masks_of(truth: Truth) -> torch.Tensor:
    """Float (b, t, balls, 1, h, w): each ball's pixels."""
    balls = torch.arange(1, truth.objects.positions.shape[2] + 1, dtype=torch.uint8)
    return (truth.objects.groups[:, :, None] == balls[:, None, None]).float()[:, :, :, None]


def perfect(truth: Truth, monkeypatch, disobey: float = 0.0) -> WorldModel:
    """A model that knows the future: a slot for each ball, in another order, and one for nothing.

    Under other actions than the truth's it draws the player so many pixels to the right.
    """
    order = [2, 4, 0, 3, 1]

    balls = torch.cat([masks_of(truth), torch.zeros(N, FRAMES, 1, 1, 32, 32)], dim=2)
    likelihood = Bernoulli(1)

    def step(rows, frame, obeys=True):
        """What it draws of a frame, the responsibilities, and rewards of the transition that led there."""
        masks = balls[rows, frame].clone()
        if not obeys:
            masks[:, 0] = masks[:, 0].roll(int(disobey), dims=-1)
        prediction = masks[:, order].clamp(1e-4, 1 - 1e-4)
        gamma = likelihood.e_step(prediction, prediction.amax(dim=1).round())
        rewards = torch.zeros(len(rows), len(order))
        rewards[:, 2] = truth.rewards[rows, frame - 1]
        theta = torch.zeros(len(rows), len(order), MODEL.hidden_size)
        heads = HeadOutput(rewards, torch.zeros(len(rows)))
        transition = Transition(theta, theta, prediction, prediction, None, heads)
        return transition, SlotState(theta, prediction, gamma)

    def find(frames, number):
        return [
            int((truth.frames[:, number] == frame).flatten(1).all(dim=1).nonzero()[0]) for frame in frames
        ]

    def observe(model, state, frames, targets, actions):
        begin = CONTEXT if frames.shape[1] == HORIZON else 0
        rows = find(frames[:, 0], begin)
        for number in range(targets.shape[1]):
            yield step(rows, begin + number + 1)

    def imagine(model, state, horizon, actions, imagination, noise, generator, first_frame):
        rows = find(first_frame, CONTEXT)
        obeys = torch.equal(actions, truth.actions[rows, CONTEXT : CONTEXT + horizon])
        for number in range(horizon):
            yield first_frame, *step(rows, CONTEXT + number + 1, obeys)

    monkeypatch.setattr(imagination, "observe", observe)
    monkeypatch.setattr(imagination, "imagine", imagine)
    return WorldModel(MODEL)


def test_a_perfect_dream_has_no_error_and_keeps_every_ball(truth, monkeypatch):
    model = perfect(truth, monkeypatch)
    earning = replace(truth, rewards=-(torch.rand(N, FRAMES, generator=generator()) < 0.3).float())
    with monkeypatch.context() as patch:
        figures = measure(perfect(earning, patch), earning, batch_size=2)
    assert figures.sequences == N
    assert len(figures.objects.position_errors) == len(figures.objects.alive) == HORIZON
    # Discs of pixels have their centre of mass where the ball is, but for half a pixel.
    assert max(figures.objects.position_errors) < 0.5 / float(truth.objects.radii.min())
    assert max(figures.objects.player_errors) < 0.5 / float(truth.objects.radii.min())
    assert figures.objects.player_within == figures.objects.alive == [1.0] * HORIZON
    assert figures.objects.fg_ari == pytest.approx(1.0)
    assert figures.rewards.reward_precision == pytest.approx(1.0)
    assert figures.rewards.reward_rate == pytest.approx(
        float((earning.rewards[:, CONTEXT : CONTEXT + HORIZON] != 0).float().mean())
    )
    whole = measure(model, truth)
    assert whole.objects.position_errors == figures.objects.position_errors  # whatever the batch size


def test_constant_velocity_is_worse_where_balls_meet(truth, monkeypatch):
    figures = measure(perfect(truth, monkeypatch), truth)
    assert figures.objects.constant_velocity_errors[-1] > figures.objects.position_errors[-1]
    assert figures.objects.constant_velocity_errors[-1] > figures.objects.constant_velocity_errors[0]


def test_shuffled_actions_cost_a_model_that_obeys_and_not_one_that_does_not(truth, monkeypatch):
    for disobey, ratio in ((0.0, 1.0), (3.0, None)):
        model = perfect(truth, monkeypatch, disobey)
        figures = measure(model, truth)
        assert figures.objects.shuffled_ratio is not None
        if ratio is None:
            assert figures.objects.shuffled_ratio > 2
        else:
            assert figures.objects.shuffled_ratio == pytest.approx(ratio)


def test_a_lost_ball_and_a_doubled_one_count_as_gone(truth, monkeypatch):
    model = perfect(truth, monkeypatch)
    whole = imagination.imagine

    def lossy(*arguments):
        for number, (frame, transition, after) in enumerate(whole(*arguments)):
            if number >= 2:
                transition.prediction[:, 2] *= 0.5  # half of the first ball's mass
            yield frame, transition, after

    monkeypatch.setattr(imagination, "imagine", lossy)
    figures = measure(model, truth)
    balls = truth.objects.positions.shape[2]
    assert figures.objects.alive == pytest.approx([1.0, 1.0] + [1 - 1 / balls] * (HORIZON - 2), abs=1e-4)


def test_a_model_without_actions_dreams_of_data_with_actions(truth):
    model = WorldModel(replace(MODEL, number_of_actions=0, heads=False))
    figures = measure(model, truth, slots=4)
    assert figures.objects.shuffled_ratio is None
    assert figures.rewards.reward_precision is None
    assert np.isfinite(figures.objects.position_errors).all()
    noisy = measure(model, truth, slots=4, noise=0.5)
    assert noisy.objects.position_errors != figures.objects.position_errors


@pytest.mark.parametrize(
    ("context", "horizon", "options", "message"),
    [
        (1, 3, {}, "at least 2 and 1"),
        (3, 0, {}, "at least 2 and 1"),
        (6, 6, {}, "sequences of 13 frames, and these have 12"),
        (3, 3, {"slots": 3}, "3 slots can't be matched to 4 balls"),
        (3, 3, {"batch_size": 0}, "at least 1 of each"),
    ],
)
def test_what_makes_no_sense_is_refused(context, horizon, options, message, truth):
    with pytest.raises(ConfigError, match=message):
        measure(WorldModel(MODEL), truth, context, horizon, **options)


def test_no_sequences_are_refused(truth):
    with pytest.raises(ConfigError, match="0 sequences"):
        measure(WorldModel(MODEL), truth.rows(slice(0)))


def test_the_table_has_the_horizons_that_were_dreamt(truth, monkeypatch):
    figures = measure(perfect(truth, monkeypatch), truth)
    lines = imagination_table(figures)
    assert lines[0].split()[-3:] == ["1", "5", "6"]
    rows = {line[:44].strip(): line[44:].split() for line in lines[1:]}
    assert rows["balls still there"] == ["1.000"] * 3
    assert rows["position error"] == [f"{figures.objects.position_errors[step]:.3f}" for step in (0, 4, 5)]
    assert "shuffled over true actions, object 1, at 6" in rows


def recorded(n: int = 6, frames: int = 12, lane: PlayerLane | None = None) -> Truth:
    pixels, actions = videos(n, frames)
    return Truth(pixels, actions, (actions == 1).float(), lane=lane)


def of_frames(model, truth: Truth) -> FrameFigures:
    return measure(model, truth).frames


def test_figures_are_those_of_a_rollout():
    model, data = world_model().eval(), recorded(lane=PlayerLane(10, 20, 4))
    whole = measure(model, data, batch_size=6)
    figures, player, rewards = whole.frames, whole.player, whole.rewards
    generator = torch.Generator().manual_seed(0)
    rollout = roll_out(model, data.frames, RolloutConfig(4, 6, "pixels"), data.actions[:, :10], generator)
    imagined = rollout.predictions[:, 4:]
    true = data.frames[:, 5:11]
    frames = torch.stack([model.likelihood.soft_frame(p) for p in imagined.unbind(1)], dim=1)
    expected = model.likelihood.frame_loss(frames, true).mean(dim=0)
    torch.testing.assert_close(torch.tensor(figures.bce), expected, atol=1e-3, rtol=1e-4)
    wrong = ((imagined.sum(dim=2) > 0.4).float() != true).sum(dim=(2, 3, 4)).float().mean(dim=0)
    torch.testing.assert_close(torch.tensor(figures.wrong_pixels), wrong, atol=1e-3, rtol=0)
    assert (
        figures.hits.keys() == figures.mean_reciprocal_rank.keys() == {"1", "5"}
    )  # 10 lies beyond the horizon
    assert len(player.player_error) == len(player.player_error_shuffled) == 6
    assert 0.0 < rewards.reward_rate < 1.0
    assert rewards.reward_rate <= rewards.reward_precision <= 1.0 or rewards.reward_precision > 0.0
    assert all(math.isfinite(value) for value in player.player_error)
    table = "\n".join(imagination_table(whole))
    for words in ("Hits@1", "MRR", "cross-entropy", "player's error", "average precision"):
        assert words in table


def test_where_dreams_come_true_the_slots_are_found():
    """A model that draws nothing, in videos whose objects vanish with the last frame that it watches."""
    model = world_model(number_of_actions=0, heads=False).eval()
    with torch.no_grad():
        model.decoder.profiles.weight.zero_()
        model.decoder.profiles.bias.zero_()
        model.decoder.profiles.bias.view(2, -1, 32)[:, 0] = -20.0
    pixels, _ = videos(5, 12)
    pixels[:, 5:] = 0.0
    whole = measure(model, Truth(pixels))
    figures = whole.frames
    assert figures.wrong_pixels == [0.0] * 6
    assert figures.hits == {"1": 1.0, "5": 1.0}
    assert figures.mean_reciprocal_rank == {"1": 1.0, "5": 1.0}
    assert figures.small_recall is None
    assert whole.player is None
    assert whole.rewards.reward_precision is None
    pixels[:, 8:] = videos(5, 12, seed=1)[0][:, 8:]  # something else comes than what was dreamt
    assert of_frames(model, Truth(pixels)).hits["1"] == 1.0
    assert of_frames(model, Truth(pixels)).mean_reciprocal_rank["5"] < 1.0


def test_too_little_data_is_named():
    model = world_model().eval()
    alone = measure(model, recorded(1)).frames
    assert alone.hits == {}  # there are no others among which it could be found
    assert len(alone.bce) == 6
    with pytest.raises(ConfigError, match="need sequences of 11 frames"):
        measure(model, recorded(3, 9))

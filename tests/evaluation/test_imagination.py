from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from rnem_world import physics
from rnem_world.agents.collecting import collect
from rnem_world.data.dataset import Dataset
from rnem_world.errors import ConfigError, DataError
from rnem_world.evaluation import imagination
from rnem_world.evaluation.imagination import evaluate_imagination, match_slots
from rnem_world.evaluation.metrics import slot_centroids
from rnem_world.evaluation.table import imagination_table
from rnem_world.evaluation.truth import Truth, constant_velocity, read_truth
from rnem_world.models.config import ModelConfig
from rnem_world.models.likelihood import Bernoulli
from rnem_world.models.rollout import Rollout
from rnem_world.models.world_model import WorldModel
from rnem_world.physics.balls import BallsConfig, BallsState

CONTEXT, HORIZON, FRAMES, N = 4, 6, 12, 5
MODEL = ModelConfig(
    architecture="projection32", hidden_size=8, attention_size=4, number_of_actions=9, heads=True
)


@pytest.fixture(scope="module")
def avoid(tmp_path_factory):
    return collect(
        "balls",
        tmp_path_factory.mktemp("avoid") / "a.h5",
        preset="avoid",
        num_train=4,
        num_valid=2,
        num_test=N,
        frames=FRAMES,
        progress=False,
    )


@pytest.fixture(scope="module")
def truth(avoid) -> Truth:
    with Dataset.open(avoid) as dataset:
        return read_truth(dataset, "test", N, FRAMES, torch.device("cpu"))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def masks_of(truth: Truth) -> torch.Tensor:
    """Float (b, t, balls, 1, h, w): each ball's pixels."""
    balls = torch.arange(1, truth.positions.shape[2] + 1, dtype=torch.uint8)
    return (truth.groups[:, :, None] == balls[:, None, None]).float()[:, :, :, None]


def perfect(truth: Truth, monkeypatch, disobey: float = 0.0) -> WorldModel:
    """A model that knows the future: a slot for each ball, in another order, and one for nothing.

    Under other actions than the truth's it draws the player so many pixels to the right.
    """
    order = [2, 4, 0, 3, 1]

    def dreamt(model, frames, context, horizon, actions, slots, imagination, noise, generator):
        rows = [int((truth.frames == frame).flatten(1).all(dim=1).nonzero()[0]) for frame in frames]
        part = torch.cat([masks_of(truth), torch.zeros(N, FRAMES, 1, 1, 32, 32)], dim=2)[rows]
        if not torch.equal(actions, truth.actions[rows]):
            part[:, context + 1 :, 0] = part[:, context + 1 :, 0].roll(int(disobey), dims=-1)
        predictions = part[:, 1 : context + horizon + 1, order].clamp(1e-4, 1 - 1e-4)
        targets = predictions.amax(dim=2).round()
        gammas = (
            Bernoulli(1)
            .e_step(predictions.flatten(0, 1), targets.flatten(0, 1))
            .unflatten(0, targets.shape[:2])
        )
        rewards = torch.zeros(*predictions.shape[:3])
        rewards[:, :, 2] = truth.rewards[rows, : context + horizon]
        return Rollout(Bernoulli(1), context, frames, predictions, predictions, gammas, gammas, None, rewards)

    monkeypatch.setattr(imagination, "roll_out", dreamt)
    return WorldModel(MODEL)


def test_a_perfect_dream_has_no_error_and_keeps_every_ball(truth, monkeypatch):
    model = perfect(truth, monkeypatch)
    earning = replace(truth, rewards=-(torch.rand(N, FRAMES, generator=generator()) < 0.3).float())
    with monkeypatch.context() as patch:
        figures = evaluate_imagination(
            perfect(earning, patch), earning, CONTEXT, HORIZON, generator(), batch_size=2
        )
    assert figures.sequences == N
    assert len(figures.position_errors) == len(figures.alive) == HORIZON
    # Discs of pixels have their centre of mass where the ball is, but for half a pixel.
    assert max(figures.position_errors) < 0.5 / float(truth.radii.min())
    assert max(figures.player_errors) < 0.5 / float(truth.radii.min())
    assert figures.alive == [1.0] * HORIZON
    assert figures.fg_ari == pytest.approx(1.0)
    assert figures.reward_precision == pytest.approx(1.0)
    assert figures.reward_rate == pytest.approx(
        float((earning.rewards[:, CONTEXT : CONTEXT + HORIZON] != 0).float().mean())
    )
    whole = evaluate_imagination(model, truth, CONTEXT, HORIZON, generator())
    assert whole.position_errors == figures.position_errors  # whatever the batch size


def test_constant_velocity_is_worse_where_balls_meet(truth, monkeypatch):
    figures = evaluate_imagination(perfect(truth, monkeypatch), truth, CONTEXT, HORIZON, generator())
    assert figures.constant_velocity_errors[-1] > figures.position_errors[-1]
    assert figures.constant_velocity_errors[-1] > figures.constant_velocity_errors[0]


def test_shuffled_actions_cost_a_model_that_obeys_and_not_one_that_does_not(truth, monkeypatch):
    for disobey, ratio in ((0.0, 1.0), (3.0, None)):
        model = perfect(truth, monkeypatch, disobey)
        figures = evaluate_imagination(model, truth, CONTEXT, HORIZON, generator())
        assert figures.shuffled_ratio is not None
        if ratio is None:
            assert figures.shuffled_ratio > 2
        else:
            assert figures.shuffled_ratio == pytest.approx(ratio)


def test_a_lost_ball_and_a_doubled_one_count_as_gone(truth, monkeypatch):
    model = perfect(truth, monkeypatch)
    whole = imagination.roll_out

    def lossy(*arguments):
        rollout = whole(*arguments)
        rollout.predictions[:, CONTEXT + 2 :, 2] *= 0.5  # half of the first ball's mass
        return rollout

    monkeypatch.setattr(imagination, "roll_out", lossy)
    figures = evaluate_imagination(model, truth, CONTEXT, HORIZON, generator())
    balls = truth.positions.shape[2]
    assert figures.alive == pytest.approx([1.0, 1.0] + [1 - 1 / balls] * (HORIZON - 2), abs=1e-4)


def test_a_model_without_actions_dreams_of_data_with_actions(truth):
    model = WorldModel(replace(MODEL, number_of_actions=0, heads=False))
    figures = evaluate_imagination(model, truth, CONTEXT, HORIZON, generator(), slots=4)
    assert figures.shuffled_ratio is None
    assert figures.reward_precision is None
    assert np.isfinite(figures.position_errors).all()
    noisy = evaluate_imagination(model, truth, CONTEXT, HORIZON, generator(), slots=4, noise=0.5)
    assert noisy.position_errors != figures.position_errors


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
        evaluate_imagination(WorldModel(MODEL), truth, context, horizon, generator(), **options)


def test_no_sequences_are_refused(truth):
    with pytest.raises(ConfigError, match="0 sequences"):
        evaluate_imagination(WorldModel(MODEL), truth.part(slice(0)), CONTEXT, HORIZON, generator())


def test_matching_is_a_choice_of_different_slots_and_the_best():
    places = torch.rand(6, 5, 2, generator=generator()) * 30
    balls = torch.rand(6, 3, 2, generator=generator()) * 30
    match = match_slots(places, torch.full((6, 5), 20.0), balls)
    distances = torch.cdist(balls, places)
    for row in range(6):
        chosen = match[row].tolist()
        assert len(set(chosen)) == 3
        costs = [
            sum(float(distances[row, ball, slot]) for ball, slot in enumerate(choice))
            for choice in itertools.permutations(range(5), 3)
        ]
        cost = sum(float(distances[row, ball, slot]) for ball, slot in enumerate(chosen))
        assert cost == pytest.approx(min(costs))


def test_slots_without_mass_are_matched_last():
    places = torch.tensor([[[5.0, 5.0], [6.0, 5.0], [20.0, 20.0]]])
    ball = torch.tensor([[[5.0, 5.0]]])
    assert match_slots(places, torch.tensor([[1.0, 20.0, 20.0]]), ball).tolist() == [[1]]
    missing = torch.tensor([[[float("nan")] * 2, [20.0, 19.0]]])
    assert match_slots(places, torch.full((1, 3), 20.0), missing)[0, 1] == 2


@pytest.mark.parametrize("velocity", [(0.3, 0.1), (1.7, -2.3), (4.1, -3.0)])
def test_constant_velocity_is_the_true_physics_of_a_lone_ball(velocity):
    """Walls included, even several in one frame's flight."""
    rules = BallsConfig(numbers_of_balls=(1,), kinds=((1.1, 1.0),), image_size=32)
    state = BallsState(
        np.array([[[4.0, 6.0]]]),
        np.array([[velocity]]),
        np.array([[1.1]]),
        np.array([[1.0]]),
        np.ones((1, 1), dtype=np.bool_),
        np.zeros((1, 2), dtype=np.int64),
    )
    places = [state.positions]
    for _ in range(30):
        state, _ = physics.step(state, rules)
        places.append(state.positions)
    positions = torch.from_numpy(np.stack(places, axis=1)) * 3.2
    radii = torch.tensor([[1.1 * 3.2]], dtype=torch.float64)
    errors = constant_velocity(positions, radii, 1, 29, 32)
    first = (positions[:, 1] - positions[:, 0]) / 3.2
    straight = torch.allclose(first[0, 0], torch.tensor(velocity, dtype=torch.float64))
    assert straight  # no wall in the frame that the velocity is taken from
    assert errors.shape == (1, 29, 1)
    assert errors.max() < 1e-6


def test_truth_is_in_pixels_where_the_groups_are(truth):
    masks = masks_of(truth)[:, :, :, 0]
    found = slot_centroids(masks)
    # Where nothing hides a part of the ball.
    whole = found.masses > 0.95 * np.pi * truth.radii[:, None] ** 2
    assert whole.float().mean() > 0.5
    distances = (found.positions - truth.positions).norm(dim=3)
    assert distances[whole].max() < 0.5
    assert truth.radii.unique().tolist() == pytest.approx([1.1 * 3.2])
    assert truth.frames.shape == (N, FRAMES, 1, 32, 32)
    assert truth.actions is not None
    assert truth.rewards is not None


def test_truth_of_balls_that_differ(tmp_path):
    data = collect(
        "balls",
        tmp_path / "b.h5",
        preset="balls678mass64",
        num_train=2,
        num_valid=2,
        num_test=6,
        frames=8,
        progress=False,
    )
    with Dataset.open(data) as dataset:
        truth = read_truth(dataset, "test", 6, 8, torch.device("cpu"))
    there = truth.positions.isfinite().all(dim=3).all(dim=1)
    assert set(there.sum(dim=1).tolist()) <= {6, 7, 8}
    assert not there.all()
    sizes = truth.radii[there] / 6.4
    light, heavy = (sizes - 0.8).abs() < 0.06, (sizes - 1.0).abs() < 0.06
    assert (light | heavy).all()
    assert light.any()
    assert heavy.any()


def test_data_without_positions_or_rules_is_refused(tmp_path, make_discs, avoid):
    with (
        Dataset.open(make_discs(tmp_path / "d.h5")) as dataset,
        pytest.raises(DataError, match="no array 'positions' in 'test'"),
    ):
        read_truth(dataset, "test", 2, 5, torch.device("cpu"))
    with Dataset.open(avoid) as dataset:
        dataset.attributes = replace(dataset.attributes, settings={})
        with pytest.raises(DataError, match="doesn't say the rules"):
            read_truth(dataset, "test", 2, 5, torch.device("cpu"))


def test_the_table_has_the_horizons_that_were_dreamt(truth, monkeypatch):
    figures = evaluate_imagination(perfect(truth, monkeypatch), truth, CONTEXT, HORIZON, generator())
    lines = imagination_table(figures)
    assert lines[0].split()[-2:] == ["1", "5"]
    rows = {line[:44].strip(): line[44:].split() for line in lines[1:]}
    assert rows["balls still there"] == ["1.000", "1.000"]
    assert rows["position error"] == [f"{figures.position_errors[step]:.3f}" for step in (0, 4)]
    assert "shuffled over true actions, object 1, at 6" in rows

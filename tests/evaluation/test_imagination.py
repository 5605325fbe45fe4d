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
from rnem_world.evaluation.imagination import ImaginationFigures, evaluate_imagination
from rnem_world.evaluation.metrics import slot_centroids
from rnem_world.evaluation.report import imagination_table
from rnem_world.evaluation.truth import Objects, Truth, constant_velocity, match_slots, read_truth
from rnem_world.models.config import ModelConfig
from rnem_world.models.heads import HeadOutput
from rnem_world.models.likelihood import Bernoulli
from rnem_world.models.rollout import RolloutConfig
from rnem_world.models.world_model import SlotState, Transition, WorldModel
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
    assert figures.objects.alive == [1.0] * HORIZON
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
    errors = constant_velocity(
        Objects(torch.zeros(1, 31, 32, 32, dtype=torch.uint8), positions, radii), 1, 29, 32
    )
    first = (positions[:, 1] - positions[:, 0]) / 3.2
    straight = torch.allclose(first[0, 0], torch.tensor(velocity, dtype=torch.float64))
    assert straight  # no wall in the frame that the velocity is taken from
    assert errors.shape == (1, 29, 1)
    assert errors.max() < 1e-6


def test_truth_is_in_pixels_where_the_groups_are(truth):
    masks = masks_of(truth)[:, :, :, 0]
    found = slot_centroids(masks)
    # Where nothing hides a part of the ball.
    whole = found.masses > 0.95 * np.pi * truth.objects.radii[:, None] ** 2
    assert whole.float().mean() > 0.5
    distances = (found.positions - truth.objects.positions).norm(dim=3)
    assert distances[whole].max() < 0.5
    assert truth.objects.radii.unique().tolist() == pytest.approx([1.1 * 3.2])
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
    there = truth.objects.positions.isfinite().all(dim=3).all(dim=1)
    assert set(there.sum(dim=1).tolist()) <= {6, 7, 8}
    assert not there.all()
    sizes = truth.objects.radii[there] / 6.4
    light, heavy = (sizes - 0.8).abs() < 0.06, (sizes - 1.0).abs() < 0.06
    assert (light | heavy).all()
    assert light.any()
    assert heavy.any()


def test_data_without_positions_knows_no_objects_and_without_rules_is_refused(tmp_path, make_discs, avoid):
    with Dataset.open(make_discs(tmp_path / "d.h5")) as dataset:
        truth = read_truth(dataset, "test", 2, 5, torch.device("cpu"))
    assert truth.objects is None
    with pytest.raises(DataError, match="no positions of its objects"):
        truth.require_objects()
    with Dataset.open(avoid) as dataset:
        dataset.attributes = replace(dataset.attributes, settings={})
        with pytest.raises(DataError, match="doesn't say the rules"):
            read_truth(dataset, "test", 2, 5, torch.device("cpu"))


def test_the_table_has_the_horizons_that_were_dreamt(truth, monkeypatch):
    figures = measure(perfect(truth, monkeypatch), truth)
    lines = imagination_table(figures)
    assert lines[0].split()[-2:] == ["1", "5"]
    rows = {line[:44].strip(): line[44:].split() for line in lines[1:]}
    assert rows["balls still there"] == ["1.000", "1.000"]
    assert rows["position error"] == [f"{figures.objects.position_errors[step]:.3f}" for step in (0, 4)]
    assert "shuffled over true actions, object 1, at 6" in rows

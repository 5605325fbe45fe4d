from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from rnem_world import physics
from rnem_world.agents.collecting import collect
from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import DatasetAttributes, EpisodeBatch
from rnem_world.data.writer import write_shard
from rnem_world.errors import DataError
from rnem_world.evaluation.metrics import slot_centroids
from rnem_world.evaluation.truth import (
    LANES,
    Objects,
    PlayerLane,
    Truth,
    constant_velocity,
    match_slots,
    read_truth,
)
from rnem_world.physics.balls import BallsState
from rnem_world.physics.rules import BallsConfig

FRAMES, N = 12, 5


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def masks_of(truth: Truth) -> torch.Tensor:
    """Float (b, t, balls, 1, h, w): each ball's pixels."""
    balls = torch.arange(1, truth.objects.positions.shape[2] + 1, dtype=torch.uint8)
    return (truth.objects.groups[:, :, None] == balls[:, None, None]).float()[:, :, :, None]


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


def write_positions(path):
    """What an environment of others may record: where something is, and not which pixels it has."""
    frames = np.zeros((6, 4, 8, 8, 1), np.uint8)
    batch = EpisodeBatch(features=frames, positions=np.ones((6, 4, 3, 2), np.float32))
    write_shard(path, dict.fromkeys(("training", "validation", "test"), batch), DatasetAttributes())
    return path


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
        # What trains on it, and doesn't ask where they are, needs no rules.
        assert read_truth(dataset, "test", 2, 5, torch.device("cpu"), with_objects=False).objects is None


def test_positions_of_others_without_groups_are_no_objects(tmp_path):
    with Dataset.open(write_positions(tmp_path / "p.h5")) as dataset:
        assert read_truth(dataset, "test", 2, 5, torch.device("cpu")).objects is None


def test_a_player_is_found_where_it_is_drawn():
    lane = LANES["SpaceInvaders"]
    frames = torch.zeros(3, 1, 84, 84)
    frames[0, 0, 74:78, 40:47] = 1.0
    frames[0, 0, 60:70, 5:12] = 1.0  # not in the lane
    frames[1, 0, 74:78, 10:12] = 1.0  # a bomb
    found = lane.find(frames)
    assert found.found.tolist() == [True, False, False]
    assert float(found.positions[0]) == 43.0
    upright = PlayerLane(70, 71, 5, upright=True).find(
        frames.new_zeros(1, 2, 1, 84, 84).index_fill(4, torch.tensor(70), 1)
    )
    assert upright.positions.shape == (1, 2)
    assert upright.found.all()

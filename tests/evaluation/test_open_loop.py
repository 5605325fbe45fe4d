from __future__ import annotations

import itertools
import math

import pytest
import torch

from rnem_world.errors import ConfigError
from rnem_world.evaluation.imagination import FrameFigures, ImaginationFigures, evaluate_imagination
from rnem_world.evaluation.metrics import retrieve, slot_distances, small_object_recall, told_cross_entropy
from rnem_world.evaluation.report import imagination_table
from rnem_world.evaluation.truth import LANES, PlayerLane, Truth
from rnem_world.models.likelihood import Bernoulli
from rnem_world.models.rollout import RolloutConfig, roll_out
from tests.models.worlds import videos, world_model


def slots(n: int, k: int = 3, d: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, k, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [1, 3])
def test_distances_are_those_of_the_best_pairing_of_all(k):
    one, other = slots(4, k), slots(5, k, seed=1)
    distances = slot_distances(one, other)
    for i, j in itertools.product(range(4), range(5)):
        pairings = [
            (one[i] - other[j, list(order)]).square().sum() for order in itertools.permutations(range(k))
        ]
        torch.testing.assert_close(distances[i, j], torch.stack(pairings).min())


def test_the_order_of_slots_does_not_count():
    true = slots(8)
    assert retrieve(true[:, [2, 0, 1]], true) == (1.0, 1.0)


def test_ranks():
    true = 10.0 * slots(6) + torch.arange(6.0)[:, None, None] * 100
    # Each imagines what its neighbour sees: the neighbour is nearest.
    result = retrieve(true.roll(1, dims=0), true)
    assert result.hits == 0.0
    assert 1 / 6 <= result.mean_reciprocal_rank <= 0.5
    half = true.clone()
    half[:3] = true[[1, 2, 0]]
    assert retrieve(half, true).hits == 0.5


def test_slots_that_are_all_alike_are_not_found():
    alike = torch.zeros(5, 2, 3)
    assert retrieve(alike, alike) == (0.0, 1 / 5)
    with pytest.raises(ConfigError, match="at least 2"):
        retrieve(alike[:1], alike[:1])


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


def test_the_best_copy():
    generator = torch.Generator().manual_seed(0)
    last = (torch.rand(50, 1, 8, 8, generator=generator) < 0.3).float()
    assert float(told_cross_entropy(last, last)) == 0.0
    later = torch.where(torch.rand(last.shape, generator=generator) < 0.1, 1 - last, last)
    on, off = later[last == 1].mean(), later[last == 0].mean()
    means = torch.where(last == 1, on, off)
    expected = Bernoulli(1).frame_loss(means, later).mean()
    torch.testing.assert_close(told_cross_entropy(last, later).float(), expected, rtol=1e-4, atol=1e-4)


def test_small_moving_objects():
    before, true, predicted = torch.zeros(3, 1, 2, 1, 20, 20).unbind()
    true[0, 0, 0, 5, 5:7] = 1.0  # two pixels of a bullet
    true[0, 0, 0, 6, 7] = 1.0  # ... that touches by a corner
    true[0, 0, 0, 10:14, 10:14] = 1.0  # large
    true[0, 1, 0, 5, 5:7] = before[0, 1, 0, 5, 5:7] = 1.0  # small, but it stays
    predicted[0, 0, 0, 5, 5:7] = 1.0
    assert small_object_recall(before, true, predicted) == round(2 / 3, 4)
    assert small_object_recall(before, before, predicted) is None


def recorded(n: int = 6, frames: int = 12, lane: PlayerLane | None = None) -> Truth:
    pixels, actions = videos(n, frames)
    return Truth(pixels, actions, (actions == 1).float(), lane=lane)


def measure(model, truth: Truth, batch_size: int = 4) -> ImaginationFigures:
    how = RolloutConfig(4, 6, "pixels")
    return evaluate_imagination(model, truth, how, torch.Generator().manual_seed(0), batch_size)


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

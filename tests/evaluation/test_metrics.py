from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from torch.nn import functional

from rnem_world.errors import ConfigError
from rnem_world.evaluation.metrics import (
    adjusted_mutual_information,
    adjusted_rand_index,
    foreground_ari,
    mean_iou,
    retrieve,
    slot_centroids,
    slot_distances,
    small_object_recall,
    told_cross_entropy,
)
from rnem_world.models.bernoulli import Bernoulli

GOLDENS = Path(__file__).parents[1] / "goldens" / "metrics.npz"
STEP_WEIGHTS = {"ones": [1.0, 1.0, 1.0, 1.0], "list": [0.5, 1.0, 2.0, 0.0]}


def golden_inputs(name: str) -> tuple[Tensor, Tensor]:
    """The stored arrays are time first, end in a channel and begin with the initial responsibilities."""
    with np.load(GOLDENS, allow_pickle=False) as arrays:
        gammas = torch.from_numpy(arrays[f"gammas_{name}"][1:, ..., 0]).transpose(0, 1)
        groups = torch.from_numpy(arrays[f"groups_{name}"][1:, :, 0, ..., 0]).transpose(0, 1)
    return gammas, groups


def golden(key: str) -> np.ndarray:
    with np.load(GOLDENS, allow_pickle=False) as arrays:
        return arrays[key]


def one_hot_gammas(labels: Tensor, slots: int) -> Tensor:
    return functional.one_hot(labels.long(), slots).movedim(-1, 2).float()


def random_scene(seed: int, slots: int = 5, objects: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randint(0, objects + 1, (3, 4, 20, 24), generator=generator, dtype=torch.uint8)
    gammas = torch.rand(3, 4, slots, 20, 24, generator=generator)
    # Half of the pixels of an object go to its own slot, so that scores are far from 0 and from 1.
    own = one_hot_gammas(groups.long() % slots, slots)
    gammas = gammas + own * torch.randint(0, 2, (3, 4, 1, 20, 24), generator=generator)
    return gammas / gammas.sum(dim=2, keepdim=True), groups


@pytest.mark.parametrize("weights", STEP_WEIGHTS)
@pytest.mark.parametrize("name", ["A", "B"])
def test_ari_is_the_original_programs(name: str, weights: str) -> None:
    scores = adjusted_rand_index(*golden_inputs(name), torch.tensor(STEP_WEIGHTS[weights]))
    found = torch.stack([scores.ari, scores.last_ari, scores.confidence, scores.last_confidence])
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), golden(f"ARI_{name}_{weights}"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("weights", STEP_WEIGHTS)
@pytest.mark.parametrize("name", ["A", "B"])
def test_ami_is_the_original_programs(name: str, weights: str) -> None:
    scores, confidences = adjusted_mutual_information(
        *golden_inputs(name), torch.tensor(STEP_WEIGHTS[weights])
    )
    np.testing.assert_allclose(scores.numpy(), golden(f"AMI_{name}_{weights}"), rtol=0, atol=1e-6)
    np.testing.assert_allclose(confidences.numpy(), golden(f"AMIconf_{name}_{weights}"), rtol=0, atol=1e-6)


def test_ami_is_normalised_by_the_larger_entropy() -> None:
    # Every object is halved: mutual information log 2, entropies log 2 and log 4.
    groups = torch.tensor([1, 1, 2, 2], dtype=torch.uint8).repeat(16).sort().values.reshape(1, 1, 8, 8)
    gammas = one_hot_gammas(torch.arange(4).repeat_interleave(16).reshape(1, 1, 8, 8), 4)
    scores, _ = adjusted_mutual_information(gammas, groups, torch.ones(1))
    assert scores.item() == pytest.approx(1 / 2, abs=0.02)


def test_ari_of_frames_with_less_than_two_foreground_pixels_is_zero_not_nan() -> None:
    gammas = torch.full((2, 1, 3, 4, 4), 1 / 3)
    groups = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    groups[1, 0, 2, 2] = 1
    scores = adjusted_rand_index(gammas, groups, torch.ones(1))
    assert scores.ari == 0
    assert scores.confidence.item() == pytest.approx(1 / 6)


def test_ami_of_a_frame_without_foreground_is_finite() -> None:
    groups = torch.zeros(1, 2, 4, 4, dtype=torch.uint8)
    scores, confidences = adjusted_mutual_information(torch.full((1, 2, 2, 4, 4), 0.5), groups, torch.ones(2))
    assert scores.tolist() == [1.0]
    assert confidences.tolist() == [0.0]


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_foreground_ari_is_scikit_learns_on_every_frame(slots: int) -> None:
    gammas, groups = random_scene(seed=slots, slots=slots)
    found = foreground_ari(gammas, groups)
    for i, j in np.ndindex(*found.shape):
        foreground = groups[i, j] > 0
        expected = adjusted_rand_score(groups[i, j][foreground], gammas[i, j].argmax(0)[foreground])
        assert found[i, j].item() == pytest.approx(expected, abs=1e-12)


def test_foreground_ari_of_degenerate_frames() -> None:
    groups = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    groups[0, 1, 0, 0] = 3  # a single pixel
    groups[0, 2:] = 1  # one object ...
    labels = torch.zeros(1, 4, 4, 4)
    labels[0, 3, :2] = 1  # ... split between two slots in the last frame
    found = foreground_ari(one_hot_gammas(labels, 2), groups)
    assert found.tolist() == [[1.0, 1.0, 1.0, 0.0]]


@pytest.mark.parametrize("score", ["ari", "foreground_ari", "iou"])
def test_scores_ignore_the_names_of_slots_and_objects(score: str) -> None:
    gammas, groups = random_scene(seed=3)

    def value(gammas: Tensor, groups: Tensor) -> Tensor:
        if score == "ari":
            return adjusted_rand_index(gammas, groups, torch.ones(4)).ari
        return foreground_ari(gammas, groups) if score == "foreground_ari" else mean_iou(gammas, groups)

    renamed = torch.tensor([0, 3, 1, 7, 2], dtype=torch.uint8)[groups.long()]
    expected = value(gammas, groups)
    assert 0.1 < expected.mean() < 0.9
    torch.testing.assert_close(value(gammas[:, :, [4, 2, 0, 1, 3]], renamed), expected)


def test_perfect_grouping_scores_one() -> None:
    _, groups = random_scene(seed=4)
    gammas = one_hot_gammas(groups, 5)
    assert adjusted_rand_index(gammas, groups, torch.ones(4)).ari.item() == pytest.approx(1, abs=1e-6)
    assert foreground_ari(gammas, groups).eq(1).all()
    assert mean_iou(gammas, groups).eq(1).all()


def test_random_grouping_scores_about_zero() -> None:
    generator = torch.Generator().manual_seed(5)
    _, groups = random_scene(seed=5)
    gammas = torch.rand(3, 4, 5, 20, 24, generator=generator)
    assert abs(adjusted_rand_index(gammas, groups, torch.ones(4)).ari.item()) < 0.01
    assert foreground_ari(gammas, groups).abs().max() < 0.03


def test_iou_by_hand() -> None:
    groups = torch.tensor([[1, 1, 1, 1], [2, 2, 0, 0]], dtype=torch.uint8).reshape(1, 1, 2, 4)
    labels = torch.tensor([[0, 0, 0, 1], [1, 1, 1, 0]]).reshape(1, 1, 2, 4)
    gammas = one_hot_gammas(labels, 3)
    # Object 1 shares 3 of 4 pixels with slot 0, object 2 shares 2 of 3 with slot 1; both hold background too.
    assert mean_iou(gammas, groups).item() == pytest.approx((3 / 4 + 2 / 3) / 2)


def test_iou_counts_objects_without_a_slot_as_zero_and_hidden_ones_not_at_all() -> None:
    groups = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    groups[0, 0, 0], groups[0, 0, 1], groups[0, 0, 2] = 1, 2, 3  # two slots for three objects
    groups[0, 1, 0] = 3  # objects 1 and 2 are hidden
    labels = (torch.arange(4) == 1).reshape(1, 1, 4, 1).expand(1, 3, 4, 4)
    gammas = one_hot_gammas(labels, 2)
    assert mean_iou(gammas, groups)[0].tolist() == pytest.approx([(1 / 2 + 1 + 0) / 3, 1.0, 1.0])


@pytest.mark.parametrize("slots", [1, 2, 9])
def test_iou_lies_between_zero_and_one(slots: int) -> None:
    found = mean_iou(*random_scene(seed=6, slots=slots))
    assert found.min() >= 0
    assert found.max() <= 1


def test_centroid_of_a_disc_is_its_centre() -> None:
    rows, columns = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(40) + 0.5, indexing="ij")
    disc = ((columns - 25) ** 2 + (rows - 9) ** 2 <= 36).float()
    found = slot_centroids(torch.stack([disc * 0.3, torch.zeros_like(disc)]).reshape(1, 1, 2, 32, 40))
    torch.testing.assert_close(found.positions, torch.tensor([[[[25.0, 9.0], [20.0, 16.0]]]]))
    torch.testing.assert_close(found.masses, torch.tensor([[[0.3 * disc.sum().item(), 0.0]]]))


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

"""How well slots match objects, and how well frames are predicted.

Two families stand beside each other. :func:`adjusted_rand_index` and :func:`adjusted_mutual_information`
reproduce the scores of the program published with the R-NEM paper (van Steenkiste et al., 2018), its
conventions for degenerate frames included, so that its tables can be compared with. :func:`foreground_ari`,
:func:`mean_iou` and :func:`bernoulli_cross_entropy` are the usual scores, given for each frame.

All of them score each frame by itself: none notices slots that swap their objects from one frame to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

_EPSILON = 1e-6


@dataclass(frozen=True)
class GroupingScores:
    """Scores of a batch of sequences, as tensors on the device that they were computed on.

    Attributes:
        ari: Adjusted Rand index, weighted over steps, mean over sequences.
        last_ari: The same of the last step alone.
        confidence: Largest responsibility of a foreground pixel, averaged over those pixels, then as ``ari``.
        last_confidence: The same of the last step alone.
    """

    ari: Float[Tensor, ""]
    last_ari: Float[Tensor, ""]
    confidence: Float[Tensor, ""]
    last_confidence: Float[Tensor, ""]


@dataclass(frozen=True)
class SlotCentroids:
    """Where the slots are.

    Attributes:
        positions: (x, y) in pixels: x to the right, y downwards, pixel (row i, column j) has its centre at
            (j + 0.5, i + 0.5), so that an image of width w spans 0 to w. A slot without mass has the centre
            of the image; look at ``masses`` to leave it out.
        masses: Sum of a slot's weights over the pixels.
    """

    positions: Float[Tensor, "b t k 2"]
    masses: Float[Tensor, "b t k"]


def adjusted_rand_index(
    gammas: Float[Tensor, "b t k h w"],
    groups: UInt8[Tensor, "b t h w"],
    step_weights: Float[Tensor, " t"],
) -> GroupingScores:
    """Computes the adjusted Rand index exactly as the program published with the paper does.

    A frame with fewer than two foreground pixels scores 0, because of the original's clipped denominator; the
    confidence of a frame without any is 0, not NaN. :func:`foreground_ari` follows the usual conventions.

    Args:
        gammas: Responsibilities after each step, without the initial ones.
        groups: Objects of the frames that ``gammas`` explain: 0 background (ignored), 1..n objects.
        step_weights: Weight of each step, not all of them 0.

    Returns:
        The four scores, float32.
    """
    pairs = _pair_counts(_contingency(gammas, groups)[..., 1:, :].float())
    expected = pairs.in_objects * pairs.in_slots / (pairs.total + _EPSILON)
    maximum = (pairs.in_objects + pairs.in_slots) / 2
    scores = (pairs.in_both - expected) / (maximum - expected).clamp(_EPSILON, 1 / _EPSILON)
    confidences = _confidences(gammas, groups)
    weights = (step_weights / step_weights.sum()).to(scores)
    return GroupingScores(
        ari=(scores @ weights).mean(),
        last_ari=scores[:, -1].mean(),
        confidence=(confidences @ weights).mean(),
        last_confidence=confidences[:, -1].mean(),
    )


def adjusted_mutual_information(
    gammas: Float[Tensor, "b t k h w"],
    groups: UInt8[Tensor, "b t h w"],
    step_weights: Float[Tensor, " t"],
    average_method: Literal["min", "geometric", "arithmetic", "max"] = "max",
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Computes the adjusted mutual information of each sequence with scikit-learn, on the CPU.

    Args:
        gammas: Responsibilities after each step, without the initial ones.
        groups: Objects of the frames that ``gammas`` explain: 0 background (ignored), 1..n objects.
        step_weights: Weight of each step, not all of them 0.
        average_method: How the two entropies are averaged to normalise the score. The paper's is "max";
            scikit-learn's own default has since become "arithmetic".

    Returns:
        Scores (float64) and confidences (float32), both averaged over the steps by weight. A frame without
        foreground scores 1, as it does in scikit-learn, with confidence 0.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    assignments = gammas.argmax(dim=2).flatten(2).cpu().numpy()
    objects = groups.flatten(2).cpu().numpy()
    batch, steps = objects.shape[:2]
    scores = np.ones((batch, steps))
    for i, j in np.ndindex(batch, steps):
        foreground = objects[i, j] > 0
        if foreground.any():
            scores[i, j] = adjusted_mutual_info_score(
                objects[i, j, foreground], assignments[i, j, foreground], average_method=average_method
            )
    weights = (step_weights / step_weights.sum()).cpu()
    mean_scores = torch.from_numpy(scores) @ weights.double()
    return mean_scores, _confidences(gammas, groups).cpu() @ weights.float()


def foreground_ari(
    gammas: Float[Tensor, "b t k h w"], groups: UInt8[Tensor, "b t h w"]
) -> Float[Tensor, "b t"]:
    """Computes the adjusted Rand index over the foreground pixels of each frame (FG-ARI).

    Where the score would be 0 / 0, slots and objects are the same partition and the score is 1: no
    foreground, a single foreground pixel, one object that a single slot owns. One object split between slots
    scores 0.

    Args:
        gammas: Responsibilities.
        groups: 0 background (ignored), 1..n objects.

    Returns:
        Scores of the frames, float64: at most 1, about 0 for slots that have nothing to do with the objects.
    """
    pairs = _pair_counts(_contingency(gammas, groups)[..., 1:, :].double())
    expected = pairs.in_objects * pairs.in_slots / pairs.total.clamp(min=1)
    excess = (pairs.in_objects + pairs.in_slots) / 2 - expected
    same_partition = (pairs.in_both == pairs.in_objects) & (pairs.in_both == pairs.in_slots)
    scores = (pairs.in_both - expected) / torch.where(same_partition, 1, excess)
    return torch.where(same_partition, 1, scores)


def mean_iou(
    gammas: Float[Tensor, "b t k h w"],
    groups: UInt8[Tensor, "b t h w"],
    *,
    foreground_only: bool = True,
) -> Float[Tensor, "b t"]:
    """Computes the mean intersection over union of objects and the slots matched to them, for each frame.

    A slot's mask holds the pixels in which its responsibility is the largest. Slots are matched to objects
    one to one so that the sum of the scores is the largest possible; objects beyond the number of slots score
    0.

    Args:
        gammas: Responsibilities.
        groups: 0 background, 1..n objects.
        foreground_only: Restrict the masks to the true foreground. R-NEM has no slot for a background: on
            black pixels all slots explain the frame equally well and the largest responsibility says nothing.

    Returns:
        Mean over the objects that are visible in the frame, float64 in [0, 1]; 1 for a frame without objects.
    """
    from scipy.optimize import linear_sum_assignment

    counts = _contingency(gammas, groups).double()
    intersection = counts[..., 1:, :]
    objects = intersection.sum(dim=-1, keepdim=True)
    slots = (intersection if foreground_only else counts).sum(dim=-2, keepdim=True)
    scores = (intersection / (objects + slots - intersection).clamp(min=1)).cpu().numpy()
    # Rows of objects that are hidden in a frame are zero, so they never take a slot from a visible one.
    matched = np.zeros(scores.shape[:2])
    for frame in np.ndindex(*scores.shape[:2]):
        matched[frame] = scores[frame][linear_sum_assignment(scores[frame], maximize=True)].sum()
    visible = (objects[..., 0] > 0).sum(dim=-1)
    means = torch.from_numpy(matched).to(counts.device) / visible.clamp(min=1)
    return torch.where(visible > 0, means, 1)


def bernoulli_cross_entropy(
    prediction: Float[Tensor, "b t c h w"], frames: Float[Tensor, "b t c h w"]
) -> Float[Tensor, "b t"]:
    """Computes how many nats the frames cost under the predicted Bernoulli means.

    Args:
        prediction: Means in [0, 1], clipped to [1e-6, 1 - 1e-6].
        frames: What came true, in [0, 1].

    Returns:
        Nats a frame: the sum over channels and pixels.
    """
    means = prediction.clamp(_EPSILON, 1 - _EPSILON)
    return -(frames * means.log() + (1 - frames) * torch.log1p(-means)).sum(dim=(2, 3, 4))


def slot_centroids(weights: Float[Tensor, "b t k h w"]) -> SlotCentroids:
    """Computes the centre of mass of each slot.

    Args:
        weights: How much a slot has of each pixel, at least 0. ``gamma * prediction`` locates objects; gamma
            alone doesn't, since the background's responsibilities mean nothing.

    Returns:
        Positions in pixels and the masses.
    """
    height, width = weights.shape[-2:]
    columns, rows = weights.sum(dim=-2), weights.sum(dim=-1)
    masses = rows.sum(dim=-1)
    present = masses > 0
    divisor = torch.where(present, masses, 1)
    x = (columns @ (torch.arange(width, device=weights.device) + 0.5).to(weights)) / divisor
    y = (rows @ (torch.arange(height, device=weights.device) + 0.5).to(weights)) / divisor
    positions = torch.stack([torch.where(present, x, width / 2), torch.where(present, y, height / 2)], dim=-1)
    return SlotCentroids(positions=positions, masses=masses)


@dataclass(frozen=True)
class _PairCounts:
    """Ordered pairs of foreground pixels: all, in the same object, in the same slot, in both the same."""

    total: Float[Tensor, "b t"]
    in_objects: Float[Tensor, "b t"]
    in_slots: Float[Tensor, "b t"]
    in_both: Float[Tensor, "b t"]


def _contingency(
    gammas: Float[Tensor, "b t k h w"], groups: UInt8[Tensor, "b t h w"]
) -> Int[Tensor, "b t groups k"]:
    """Counts the pixels of each group (0 the background) whose largest responsibility is each slot's."""
    batch, steps, slots = gammas.shape[:3]
    number_of_groups = max(int(groups.max()), 1) + 1
    labels = gammas.argmax(dim=2) + slots * groups.long()
    frames = torch.arange(batch * steps, device=gammas.device).reshape(batch, steps, 1, 1)
    labels += frames * (number_of_groups * slots)
    counts = torch.bincount(labels.flatten(), minlength=batch * steps * number_of_groups * slots)
    return counts.reshape(batch, steps, number_of_groups, slots)


def _pair_counts(counts: Float[Tensor, "b t objects k"]) -> _PairCounts:
    objects, slots = counts.sum(dim=3), counts.sum(dim=2)
    total = objects.sum(dim=2)
    return _PairCounts(
        total=total * (total - 1),
        in_objects=(objects * (objects - 1)).sum(dim=2),
        in_slots=(slots * (slots - 1)).sum(dim=2),
        in_both=(counts * (counts - 1)).sum(dim=(2, 3)),
    )


def _confidences(
    gammas: Float[Tensor, "b t k h w"], groups: UInt8[Tensor, "b t h w"]
) -> Float[Tensor, "b t"]:
    """Averages the largest responsibility over the foreground pixels of each frame."""
    foreground = groups > 0
    total = (gammas.amax(dim=2).float() * foreground).sum(dim=(2, 3))
    return total / foreground.sum(dim=(2, 3)).clamp(min=1)

"""How well slots match objects, and how well frames are predicted.

Two families stand beside each other. :func:`adjusted_rand_index` and :func:`adjusted_mutual_information`
reproduce the scores of the program published with the R-NEM paper (van Steenkiste et al., 2018), its
conventions for degenerate frames included, so that its tables can be compared with. :func:`foreground_ari` and
:func:`mean_iou` are the usual scores, given for each frame.

All of these score each frame by itself: none notices slots that swap their objects from one frame to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from rnem_world.errors import ConfigError

_EPSILON = 1e-6
SMALL_OBJECT = 8
"""Most pixels of a small object, a bullet or a ball."""


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
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Computes the adjusted mutual information of each sequence with scikit-learn, on the CPU.

    It is normalised by the larger of the two entropies as in the paper; scikit-learn's default has since changed.

    Args:
        gammas: Responsibilities after each step, without the initial ones.
        groups: Objects of the frames that ``gammas`` explain: 0 background (ignored), 1..n objects.
        step_weights: Weight of each step, not all of them 0.

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
                objects[i, j, foreground], assignments[i, j, foreground], average_method="max"
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


def mean_iou(gammas: Float[Tensor, "b t k h w"], groups: UInt8[Tensor, "b t h w"]) -> Float[Tensor, "b t"]:
    """Computes the mean intersection over union of objects and the slots matched to them, for each frame.

    A slot's mask holds the pixels of the true foreground in which its responsibility is the largest: R-NEM has no
    slot for a background, and on black pixels, which all slots explain equally well, the largest responsibility says
    nothing. Slots are matched to objects one to one so that the sum of the scores is the largest possible; objects
    beyond the number of slots score 0.

    Args:
        gammas: Responsibilities.
        groups: 0 background, 1..n objects.

    Returns:
        Mean over the objects that are visible in the frame, float64 in [0, 1]; 1 for a frame without objects.
    """
    from scipy.optimize import linear_sum_assignment

    intersection = _contingency(gammas, groups)[..., 1:, :].double()
    objects = intersection.sum(dim=-1, keepdim=True)
    slots = intersection.sum(dim=-2, keepdim=True)
    scores = (intersection / (objects + slots - intersection).clamp(min=1)).cpu().numpy()
    # Rows of objects that are hidden in a frame are zero, so they never take a slot from a visible one.
    matched = np.zeros(scores.shape[:2])
    for frame in np.ndindex(*scores.shape[:2]):
        matched[frame] = scores[frame][linear_sum_assignment(scores[frame], maximize=True)].sum()
    visible = (objects[..., 0] > 0).sum(dim=-1)
    means = torch.from_numpy(matched).to(intersection.device) / visible.clamp(min=1)
    return torch.where(visible > 0, means, 1)


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


class Retrieval(NamedTuple):
    """How well the true slots are found among those of all sequences: Hits@1 and MRR (C-SWM; Kipf et al., 2020).

    Attributes:
        hits: Part of the sequences whose own true slots are the nearest of all.
        mean_reciprocal_rank: Mean of one over their rank.
    """

    hits: float
    mean_reciprocal_rank: float


def slot_distances(imagined: Float[Tensor, "n k d"], true: Float[Tensor, "m k d"]) -> Float[Tensor, "n m"]:
    """Squared distances between sets of slots: of all pairings of their slots, the one with the least sum."""
    from scipy.optimize import linear_sum_assignment

    n, k, _ = imagined.shape
    m = true.shape[0]
    pairs = torch.cdist(imagined.flatten(0, 1).double(), true.flatten(0, 1).double()).square()
    costs = pairs.view(n, k, m, k).permute(0, 2, 1, 3).reshape(n * m, k, k).cpu().numpy()
    if k == 1:
        return torch.from_numpy(costs[:, 0, 0]).view(n, m).to(imagined)
    # SciPy solves one assignment at a time.
    matches = np.stack([linear_sum_assignment(cost)[1] for cost in costs])
    totals = np.take_along_axis(costs, matches[:, :, None], axis=2).sum(axis=(1, 2))
    return torch.from_numpy(totals).view(n, m).to(imagined)


def retrieve(imagined: Float[Tensor, "n k d"], true: Float[Tensor, "n k d"]) -> Retrieval:
    """Ranks the true slots of all sequences by their distance from each sequence's imagined ones.

    Slots have no order, and the slots of two sequences are not of the same objects: each pair is compared by the best
    pairing of its slots (Hungarian method), also a sequence with itself. Others at the same distance count as nearer.

    Args:
        imagined: Slots of n sequences after imagining.
        true: Slots of the same sequences after watching instead.

    Raises:
        ConfigError: If there is nothing to choose from.
    """
    n = imagined.shape[0]
    if n < 2:
        raise ConfigError(f"{n} sequence is too few to find one among others: at least 2 are needed")
    distances = slot_distances(imagined, true)
    own = distances.diagonal()[:, None]
    # One's own is at its own distance too: it makes the ranks begin at 1.
    ranks = (distances <= own).sum(dim=1).double()
    return Retrieval(float((ranks == 1).double().mean()), float((1.0 / ranks).mean()))


def told_cross_entropy(guess: Float[Tensor, "b c h w"], true: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """The cross-entropy of frames given guesses in black and white, in nats a frame.

    The guesser is told how often pixels that are on, and pixels that are off in the guess, are on in truth.
    """
    total = guess.new_zeros((), dtype=torch.float64)
    for value in (0.0, 1.0):
        chosen = guess == value
        number = chosen.sum()
        rate = (true * chosen).sum(dtype=torch.float64) / number.clamp(min=1)
        total = total + number * (torch.special.entr(rate) + torch.special.entr(1.0 - rate))
    return total / guess.shape[0]


def small_object_recall(
    before: Float[Tensor, "b t c h w"],
    true: Float[Tensor, "b t c h w"],
    predicted: Float[Tensor, "b t c h w"],
) -> float | None:
    """The part of small moving objects' pixels that a prediction has.

    Args:
        before: The frames before the true ones.
        true: The true frames. An object is a group of pixels that touch (corners too); it is small if it has at most
            `SMALL_OBJECT` pixels, and moving if none of them was on before.
        predicted: The predictions, in black and white.

    Returns:
        None if there are no such objects.
    """
    from scipy import ndimage

    frames = (true.flatten(0, 1)[:, 0] > 0).cpu().numpy()
    # Objects of a frame touch only within it.
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1] = True
    labels, count = ndimage.label(frames, structure)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    overlap = np.bincount(labels.ravel(), (before.flatten(0, 1)[:, 0] > 0).cpu().numpy().ravel(), count + 1)
    chosen = (sizes <= SMALL_OBJECT) & (overlap == 0)
    chosen[0] = False
    pixels = torch.from_numpy(chosen[labels])
    if not pixels.any():
        return None
    return round(float(predicted.flatten(0, 1)[:, 0].cpu()[pixels].double().mean()), 4)


def average_precision(happened: Bool[Tensor, "..."], guesses: Float[Tensor, "..."]) -> float | None:
    """The average precision of guesses at what happened; None if it always did or never."""
    from sklearn.metrics import average_precision_score

    truth, scores = happened.flatten().cpu().numpy(), guesses.flatten().cpu().numpy()
    return float(average_precision_score(truth, scores)) if 0 < truth.sum() < truth.size else None


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

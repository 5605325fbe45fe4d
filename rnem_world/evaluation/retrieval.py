"""Whether imagined slots are nearest to those that really came: Hits@1 and MRR (C-SWM; Kipf et al., 2020)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rnem_world.errors import ConfigError


class Retrieval(NamedTuple):
    """How well the true slots are found among those of all sequences.

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

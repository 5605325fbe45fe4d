"""Measuring how far dreams go astray, so that their doubt tells an error in pixels."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import Split
from rnem_world.envs.doubt import Calibration, fit_calibration
from rnem_world.envs.learned_world import LearnedWorld
from rnem_world.envs.learned_worlds import LearnedWorlds
from rnem_world.errors import DataError
from rnem_world.evaluation.imagination import match_slots
from rnem_world.evaluation.truth import read_truth

SEQUENCES, CONTEXT = 400, 16
LONGEST_HORIZON, SHORTEST_HORIZON = 50, 10
_LOOKED_AT: tuple[Split, ...] = ("validation", "test", "training")


class Doubts(NamedTuple):
    """Dreams' doubts and their errors, one row a sequence, one column a horizon from 1 on.

    Attributes:
        signs: Float (b, t, 3), those of single frames added up.
        errors: Float (b, t), the mean distance of the balls' slots from the balls, in pixels.
    """

    signs: Tensor
    errors: Tensor


def can_calibrate(dataset: Dataset) -> bool:
    """Whether a dataset tells where balls really are, for long enough."""
    split = _split_of(dataset)
    if split is None or not {"positions", "groups"} <= set(dataset.info(split).arrays):
        return False
    return dataset.info(split).number_of_frames >= CONTEXT + SHORTEST_HORIZON


def _split_of(dataset: Dataset) -> Split | None:
    there = [name for name in _LOOKED_AT if name in dataset.splits]
    return next((name for name in there if dataset.info(name).number_of_sequences > 1), None)


def measure_doubts(
    world: LearnedWorld, path: str | Path, imagination: str, sequences: int = SEQUENCES
) -> Doubts:
    """Dreams on from real contexts, and compares with what really happened.

    Args:
        world: The world.
        path: A dataset of balls, with positions.
        imagination: How to dream.
        sequences: How many at most.

    Raises:
        DataError: If the dataset lacks positions, or its sequences are too short.
    """
    with Dataset.open(path) as dataset:
        split = _split_of(dataset)
        if split is None:
            raise DataError(f"{path} has no sequences")
        info = dataset.info(split)
        horizon = min(LONGEST_HORIZON, info.number_of_frames - CONTEXT)
        if horizon < SHORTEST_HORIZON:
            raise DataError(
                f"the sequences of {path} have {info.number_of_frames} frames, expected at least "
                f"{CONTEXT + SHORTEST_HORIZON} to calibrate uncertainty"
            )
        number = min(sequences, info.number_of_sequences)
        truth = read_truth(dataset, split, number, CONTEXT + horizon, world.device)
    actions = truth.actions
    if actions is None:
        actions = torch.zeros(truth.frames.shape[:2], dtype=torch.int64, device=world.device)
    worlds = LearnedWorlds(world, number, None, imagination, measures_doubt=True)
    context = truth.frames[:, :CONTEXT] > 0.5
    everyone = torch.arange(number, device=world.device)
    worlds.put(everyone, world.encode(context.float(), actions[:, : CONTEXT - 1], worlds.slots))
    places = worlds.details(("centroids", "masses"))
    match = match_slots(places["centroids"], places["masses"], truth.positions[:, CONTEXT - 1])
    signs, errors = [], []
    for step in range(CONTEXT - 1, CONTEXT + horizon - 1):
        worlds.step(actions[:, step])
        found = worlds.details(("centroids",))["centroids"]
        found = found.gather(1, match[..., None].expand(-1, -1, 2))
        errors.append((found - truth.positions[:, step + 1]).norm(dim=2).nanmean(dim=1))
        signs.append(worlds.doubt())
    return Doubts(torch.stack(signs, dim=1), torch.stack(errors, dim=1))


def calibrate(world: LearnedWorld, path: str | Path, sequences: int = SEQUENCES) -> list[Calibration]:
    """Calibrates every way of dreaming that the world knows, half of the sequences held out.

    Raises:
        DataError: As `measure_doubts`.
    """
    ways = ["pixels"] if world.model.prior_code is None else ["latent", "pixels"]
    found = []
    for imagination in ways:
        doubts = measure_doubts(world, path, imagination, sequences)
        half = max(len(doubts.errors) // 2, 1)
        parts = [_flat(doubts.signs[rows], doubts.errors[rows]) for rows in (slice(half), slice(half, None))]
        found.append(fit_calibration(*parts[0], imagination, parts[1] if len(parts[1][1]) else parts[0]))
    return found


def _flat(signs: Tensor, errors: Tensor) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, " n"]]:
    there = errors.isfinite()
    return signs[there].double().cpu().numpy(), errors[there].double().cpu().numpy()

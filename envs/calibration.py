"""Measuring how far dreams go astray, so that their uncertainty tells an error in pixels."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import Split
from rnem_world.envs.dream import DreamBatch
from rnem_world.envs.uncertainty import Calibration
from rnem_world.envs.world import World
from rnem_world.errors import DataError
from rnem_world.evaluation.truth import match_slots, read_truth

SEQUENCES, CONTEXT = 400, 16
LONGEST_HORIZON, SHORTEST_HORIZON = 50, 10
_LOOKED_AT: tuple[Split, ...] = ("validation", "test", "training")


class MeasuredDreams(NamedTuple):
    """Dreams' signs of uncertainty and their errors, one row a sequence, one column a horizon from 1 on.

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


def measure_dreams(
    world: World, path: str | Path, imagination: str, sequences: int = SEQUENCES
) -> MeasuredDreams:
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
    positions, actions = truth.require_objects().positions, truth.actions
    if actions is None:
        actions = world.no_actions(*truth.frames.shape[:2])
    dreams = DreamBatch(world, number, None, imagination, measures_uncertainty=True)
    context = world.model.likelihood.quantise(truth.frames[:, :CONTEXT])
    everyone = torch.arange(number, device=world.device)
    dreams.begin(everyone, world.encode(context, actions[:, : CONTEXT - 1], dreams.slots))
    places = dreams.details(("centroids", "masses"))
    match = match_slots(places["centroids"], places["masses"], positions[:, CONTEXT - 1])
    signs, errors = [], []
    for step in range(CONTEXT - 1, CONTEXT + horizon - 1):
        dreams.step(actions[:, step])
        found = dreams.details(("centroids",))["centroids"]
        found = found.gather(1, match[..., None].expand(-1, -1, 2))
        errors.append((found - positions[:, step + 1]).norm(dim=2).nanmean(dim=1))
        signs.append(dreams.uncertainty_signs())
    return MeasuredDreams(torch.stack(signs, dim=1), torch.stack(errors, dim=1))


def calibrate(world: World, path: str | Path, sequences: int = SEQUENCES) -> list[Calibration]:
    """Calibrates every way of dreaming that the world knows, half of the sequences held out.

    Raises:
        DataError: As `measure_dreams`.
    """
    found = []
    for imagination in world.ways:
        measured = measure_dreams(world, path, imagination, sequences)
        half = max(len(measured.errors) // 2, 1)
        parts = [
            _flat(measured.signs[rows], measured.errors[rows]) for rows in (slice(half), slice(half, None))
        ]
        found.append(fit_calibration(*parts[0], imagination, parts[1] if len(parts[1][1]) else parts[0]))
    return found


def fit_calibration(
    signs_added_up: Float[np.ndarray, "n 3"],
    errors: Float[np.ndarray, " n"],
    imagination: str,
    held_out: tuple[Float[np.ndarray, "m 3"], Float[np.ndarray, " m"]],
    knots: int = 32,
) -> Calibration:
    """Fits weights that aren't negative by least squares, then a curve that doesn't fall.

    Args:
        signs_added_up: Signs of dreams, the first two added up over their steps.
        errors: Their position errors in pixels.
        imagination: How they were dreamt.
        held_out: The same of other sequences.
        knots: Points of the curve.
    """
    from scipy.optimize import nnls
    from scipy.stats import spearmanr
    from sklearn.isotonic import IsotonicRegression

    weights, _ = nnls(signs_added_up.astype(np.float64), errors.astype(np.float64))
    total = signs_added_up @ weights
    curve = IsotonicRegression(out_of_bounds="clip").fit(total, errors)
    places = np.unique(np.quantile(total, np.linspace(0.0, 1.0, knots)))
    expected, errors_held_out = curve.predict(held_out[0] @ weights), held_out[1]
    varies = np.ptp(expected) > 0 and np.ptp(errors_held_out) > 0  # there are no ranks among equals
    correlation = float(spearmanr(expected, errors_held_out)[0]) if varies else 0.0
    return Calibration(
        tuple(weights.tolist()),
        tuple(places.tolist()),
        tuple(curve.predict(places).tolist()),
        imagination,
        correlation,
    )


def _flat(signs: Tensor, errors: Tensor) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, " n"]]:
    there = errors.isfinite()
    return signs[there].double().cpu().numpy(), errors[there].double().cpu().numpy()

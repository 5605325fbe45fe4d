"""What infos of learned environments hold on request, and what a picture tells of it."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from rnem_world.envs.doubt import SIGNS
from rnem_world.errors import ConfigError, suggest
from rnem_world.evaluation.metrics import slot_centroids
from rnem_world.models.imagination import Picture

OF_PICTURES = ("gamma", "prediction", "centroids", "masses")
DOUBTS = (*SIGNS, "uncertainty")
DETAILS = (
    "gamma",
    "prediction",
    "attention",
    "centroids",
    "masses",
    "slot_rewards",
    *DOUBTS,
    "disagreement",
)
"""What ``info`` may hold on request."""


def check_details(details: Sequence[str]) -> tuple[str, ...]:
    """Refuses details that nobody knows.

    Raises:
        ConfigError: If there is one.
    """
    given = (details,) if isinstance(details, str) else tuple(details)
    for name in given:
        if name not in DETAILS:
            raise ConfigError(f"unknown detail {name!r}: {suggest(str(name), DETAILS)}")
    return given


def details_of_picture(picture: Picture) -> dict[str, Float[Tensor, "b k ..."]]:
    """Measures what a picture tells of the slots.

    Returns:
        ``gamma`` (b, k, h, w); ``prediction`` (b, k, c, h, w); ``centroids`` (b, k, 2) in pixels, x first; ``masses``
        (b, k) in pixels.
    """
    centres = slot_centroids(_shares(picture)[:, None])
    return {
        "gamma": picture.gamma[:, :, 0],
        "prediction": picture.prediction,
        "centroids": centres.positions[:, 0],
        "masses": centres.masses[:, 0],
    }


def slot_masses(picture: Picture) -> Float[Tensor, "b k"]:
    """Says how many pixels each slot has."""
    masses: Tensor = _shares(picture).sum(dim=(2, 3))
    return masses


def _shares(picture: Picture) -> Float[Tensor, "b k h w"]:
    """Each slot's share of each pixel, as bright as the slot draws it."""
    return picture.gamma[:, :, 0] * picture.prediction.amax(dim=2)

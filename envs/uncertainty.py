"""A dream's uncertainty: signs that it has gone astray, and the error that they tell."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from rnem_world.errors import DataError
from rnem_world.io import write_json
from rnem_world.models.world_model import Picture, WorldModel

CALIBRATION_FILE = "uncertainty.json"
SIGNS = ("unexplained", "doubled", "lost")


def slot_masses(model: WorldModel, picture: Picture) -> Float[Tensor, "b k"]:
    """Says how many pixels each slot has: its share of each, as bright as the slot draws it."""
    return model.likelihood.object_weights(picture.prediction, picture.gamma).sum(dim=(2, 3))


def signs(model: WorldModel, picture: Picture, first_masses: Float[Tensor, "b k"]) -> Float[Tensor, "b 3"]:
    """Measures the signs of uncertainty in a picture, each as a share of the frame's white pixels.

    ``unexplained``: pixels that no slot is sure of, the distance of the brightest slot's mean from black or white;
    ``doubled``: pixels that a second slot claims; ``lost``: pixels that slots gained or lost since the dream began.

    Args:
        model: The model that draws.
        picture: What the slots draw.
        first_masses: What they were when the dream began.
    """
    white = picture.frame.sum(dim=(1, 2, 3)).clamp(min=1.0)
    means, masses = model.likelihood.means(picture.prediction), slot_masses(model, picture)
    brightest = means.topk(min(2, means.shape[1]), dim=1).values
    unexplained = (brightest[:, 0] - picture.frame).abs().sum(dim=(1, 2, 3)) / white
    doubled = torch.zeros_like(white)
    if brightest.shape[1] > 1:
        doubled = brightest[:, 1].sum(dim=(1, 2, 3)) / white
    lost = (masses - first_masses).abs().sum(dim=1) / first_masses.sum(dim=1).clamp(min=1.0)
    return torch.stack([unexplained, doubled, lost], dim=1)


@dataclass(frozen=True)
class Calibration:
    """From signs of uncertainty to the position error to expect.

    The two signs of single frames are added up since the dream began, since errors add up; a weighted sum of all three
    is looked up in a rising curve.

    Attributes:
        weights: One for each of `SIGNS`.
        knots: Values of the weighted sum, rising.
        errors: The expected position error at each of them, in pixels.
        imagination: The way of dreaming that it was measured in.
        rank_correlation: Spearman's, of the expectation with the error, on sequences that it wasn't fitted to.
    """

    weights: tuple[float, ...]
    knots: tuple[float, ...]
    errors: tuple[float, ...]
    imagination: str
    rank_correlation: float

    def curve(self, device: torch.device | str) -> ErrorCurve:
        """Puts it onto a device."""
        return ErrorCurve(
            *(
                torch.tensor(values, dtype=torch.float32, device=device)
                for values in (self.weights, self.knots, self.errors)
            )
        )


class ErrorCurve:
    """A `Calibration` on a device, so that a step copies nothing to it.

    Args:
        weights: One for each of `SIGNS`.
        knots: Values of the weighted sum, rising.
        errors: The expected position error at each of them, in pixels.
    """

    def __init__(
        self, weights: Float[Tensor, " 3"], knots: Float[Tensor, " s"], errors: Float[Tensor, " s"]
    ) -> None:
        self._weights, self._knots, self._errors = weights, knots, errors

    def __call__(self, added_up: Float[Tensor, "b 3"]) -> Float[Tensor, " b"]:
        """Looks up the error to expect, in pixels, between the knots linearly.

        Args:
            added_up: The signs, the first two added up since the dream began.
        """
        knots, errors = self._knots, self._errors
        total = (added_up * self._weights).sum(dim=1)
        inside = total.clamp(min=knots[0], max=knots[-1])
        right = torch.searchsorted(knots, inside).clamp(min=1, max=len(knots) - 1)
        left = right - 1
        share = (inside - knots[left]) / (knots[right] - knots[left])
        return errors[left] + share * (errors[right] - errors[left])


def write_calibrations(folder: Path, calibrations: list[Calibration]) -> None:
    """Writes calibrations beside a checkpoint's weights, one for each way of dreaming.

    Raises:
        OutputError: If they can't be written.
    """
    write_json(folder / CALIBRATION_FILE, {each.imagination: vars(each) for each in calibrations})


def read_calibration(folder: Path, imagination: str) -> Calibration:
    """Reads the calibration of a checkpoint.

    Raises:
        DataError: If there is none, or it is broken.
    """
    path = folder / CALIBRATION_FILE
    try:
        values = json.loads(path.read_text())[imagination]
        sequences = {name: tuple(map(float, values[name])) for name in ("weights", "knots", "errors")}
        correlation = float(values["rank_correlation"])
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} has no {CALIBRATION_FILE}, which uncertainty needs: make one with `rnem-world export RUN "
            "--starts DATASET`, from a dataset with the positions of balls"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} holds no calibration for dreams in the way {imagination} ({error!r})"
        ) from error
    rising = all(a < b for a, b in zip(sequences["knots"], sequences["knots"][1:], strict=False))
    if len(sequences["weights"]) != len(SIGNS) or len(sequences["knots"]) < 2 or not rising:
        raise DataError(f"{path} holds no calibration: its knots must rise, and its weights be {len(SIGNS)}")
    return Calibration(
        sequences["weights"], sequences["knots"], sequences["errors"], imagination, correlation
    )

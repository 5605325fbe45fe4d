"""Pictures of rollouts: the overview figure, and the panels of a video."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from rnem_world.evaluation.plots import colour_grouping, overview_figure, slot_colours
from rnem_world.models.cores import other_slots
from rnem_world.models.rollout import Rollout

if TYPE_CHECKING:
    import matplotlib.figure


def attention_matrix(attention: Float[Tensor, "*b k j"]) -> Float[Tensor, "*b k k"]:
    """Puts each slot's attention to the others (j = k - 1, in increasing order) into a matrix with zero diagonal."""
    slots = attention.shape[-2]
    matrix = attention.new_zeros(*attention.shape[:-1], slots)
    others = other_slots(slots, attention.device)
    return matrix.scatter(-1, others.expand(attention.shape), attention)


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().float().cpu().numpy()
    return array


def overview(
    rollout: Rollout, frames: Float[Tensor, "b t c h w"], index: int, title: str = ""
) -> matplotlib.figure.Figure:
    """Draws one sequence of a rollout, a column for each step; see :func:`overview_figure`.

    Args:
        rollout: The rollout.
        frames: The true frames that it was made from.
        index: Which sequence of the batch.
        title: Written above.
    """
    steps = rollout.predictions.shape[1]
    attention = None
    if rollout.attentions is not None:
        attention = _array(attention_matrix(rollout.attentions[index]))
    return overview_figure(
        _array(frames[index, 1 : steps + 1]),
        _array(rollout.inputs[index]),
        _array(rollout.likelihood.means(rollout.predictions[index])),
        _array(rollout.gammas[index, :, :, 0]),
        attention,
        title,
    )


def _to_bytes(images: np.ndarray) -> UInt8[np.ndarray, "t h w 3"]:
    images = np.broadcast_to(images, (*images.shape[:-1], 3))
    return np.ascontiguousarray((images.clip(0.0, 1.0) * 255.0).round().astype(np.uint8))


def rollout_panels(
    rollout: Rollout, frames: Float[Tensor, "b t c h w"], index: int, with_slots: bool = False
) -> dict[str, UInt8[np.ndarray, "s h w 3"]]:
    """Makes the panels of a video: truth, prediction, grouping in colour, and each slot on request.

    The prediction is the slots' means mixed by the responsibilities, which have seen the true frame only in the
    context; the grouping shows the same in the slots' colours, as the paper's animations do.

    Args:
        rollout: The rollout.
        frames: The true frames that it was made from.
        index: Which sequence of the batch.
        with_slots: Whether to add a panel for each slot, in its colour.

    Returns:
        Panels by their labels.
    """
    steps = rollout.predictions.shape[1]
    truth = _array(frames[index, 1 : steps + 1]).transpose(0, 2, 3, 1)
    predictions, gammas = rollout.predictions[index], rollout.gammas[index]
    mixture = _array(rollout.likelihood.mix(predictions, gammas)).transpose(0, 2, 3, 1)
    panels = {
        "truth": _to_bytes(truth),
        "prediction": _to_bytes(mixture),
        "grouping": _to_bytes(colour_grouping(_array(gammas[:, :, 0]), mixture.mean(axis=3))),
    }
    if with_slots:
        slots = predictions.shape[1]
        means = _array(rollout.likelihood.means(predictions).mean(dim=2))
        for slot, colour in enumerate(slot_colours(slots)):
            panels[f"slot {slot + 1}"] = _to_bytes(means[:, slot, ..., None] * colour)
    return panels

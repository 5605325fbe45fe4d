"""Batches of dreams: stepped part by part, put side by side, and some of them replaced by others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from rnem_world.models.imagination import DreamImagination, DreamState, DreamStep, dream_step
from rnem_world.models.world_model import WorldModel

CHUNK = 256
"""Dreams that are stepped at once; with more of them, pixels no longer fit the processor's caches."""


def chunks(number: int) -> Iterator[slice]:
    """Cuts a batch into parts of at most `CHUNK`."""
    for begin in range(0, number, CHUNK):
        yield slice(begin, min(begin + CHUNK, number))


def join(parts: Sequence[DreamState]) -> DreamState:
    """Puts dreams side by side."""
    if len(parts) == 1:
        return parts[0]
    return DreamState(
        torch.cat([part.theta for part in parts]),
        torch.cat([part.output for part in parts]),
        torch.cat([part.code for part in parts]),
        join_optional([part.frame for part in parts]),
    )


def join_tensors(parts: Sequence[Tensor]) -> Tensor:
    """Puts tensors side by side; a single one isn't copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def join_optional(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Puts tensors side by side; None if there are none."""
    given = [part for part in parts if part is not None]
    return join_tensors(given) if given else None


def tensors_of(dreams: DreamState) -> list[Tensor]:
    """Lists the tensors that are there."""
    every = (dreams.theta, dreams.output, dreams.code, dreams.frame)
    return [tensor for tensor in every if tensor is not None]


def replaced(dreams: DreamState, rows: Int64[Tensor, " m"], others: DreamState) -> DreamState:
    """Copies dreams, with others in the place of some of them."""
    frame = None
    if dreams.frame is not None and others.frame is not None:
        frame = dreams.frame.index_copy(0, rows, others.frame)
    return DreamState(
        dreams.theta.index_copy(0, rows, others.theta),
        dreams.output.index_copy(0, rows, others.output),
        dreams.code.index_copy(0, rows, others.code),
        frame,
    )


def step_in_parts(
    model: WorldModel,
    dreams: DreamState,
    actions: Int64[Tensor, " b"] | None,
    imagination: DreamImagination,
) -> DreamStep:
    """Imagines one transition of every dream as `dream_step` does, so many at once as is fastest.

    Args:
        model: The model.
        dreams: The dreams.
        actions: One action each; None for a model without actions.
        imagination: ``latent`` or ``pixels``.
    """
    steps = [
        dream_step(
            model,
            dreams.map(lambda tensor, rows=rows: tensor[rows]),  # type: ignore[misc]
            None if actions is None else actions[rows],
            imagination,
        )
        for rows in chunks(len(dreams.theta))
    ]
    return DreamStep(
        join([step.state for step in steps]),
        join_optional([step.rewards for step in steps]),
        join_optional([step.termination for step in steps]),
        join_optional([step.attention for step in steps]),
        join_optional([step.prediction for step in steps]),
    )

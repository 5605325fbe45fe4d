"""Recurrent cores without interaction: the plain RNN and the layer-normed LSTM."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rnem_world.models.affine import Affine
from rnem_world.models.layers import VectorNorm

FORGET_BIAS = 1.0


class CoreOutput(NamedTuple):
    """What a recurrent core makes of a step.

    Attributes:
        output: Float (b, k, h), for the decoder.
        theta: Float (b, k, s), the state for the next step.
        attention: Float (b, k, k - 1), how far each slot attends to the others in increasing order; None where
            slots don't attend.
    """

    output: Tensor
    theta: Tensor
    attention: Tensor | None


class RecurrentCore(nn.Module):
    """A sigmoid RNN; with several slots it is the RNN-EM of Greff et al. (2017)."""

    def __init__(self, inputs: int, hidden_size: int, action_size: int) -> None:
        super().__init__()
        self.state_size = hidden_size
        self.update = Affine(inputs + action_size + hidden_size, hidden_size)
        self.output_norm = VectorNorm(hidden_size)

    def forward(
        self,
        theta: Float[Tensor, "b k h"],
        encoding: Float[Tensor, "b k e"],
        action: Float[Tensor, "b k a"] | None,
    ) -> CoreOutput:
        """Updates every slot by itself; see :class:`rnem_world.models.relational.RelationalCore`."""
        actions = [] if action is None else [action]
        update = self.update(torch.cat([encoding, *actions, theta], dim=2))
        return CoreOutput(torch.sigmoid(self.output_norm(update)), torch.sigmoid(update), None)


class LongShortTermMemoryCore(nn.Module):
    """An LSTM with layer norm on each gate and on the stored cell (Ba et al., 2016); theta is (cell, output)."""

    def __init__(self, inputs: int, hidden_size: int, action_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.state_size = 2 * hidden_size
        self.gates = Affine(inputs + action_size + hidden_size, 4 * hidden_size, bias=False)
        self.input_norm = VectorNorm(hidden_size)
        self.candidate_norm = VectorNorm(hidden_size)
        self.forget_norm = VectorNorm(hidden_size)
        self.output_norm = VectorNorm(hidden_size)
        self.cell_norm = VectorNorm(hidden_size)

    def forward(
        self,
        theta: Float[Tensor, "b k s"],
        encoding: Float[Tensor, "b k e"],
        action: Float[Tensor, "b k a"] | None,
    ) -> CoreOutput:
        """Updates every slot by itself; see :class:`rnem_world.models.relational.RelationalCore`."""
        actions = [] if action is None else [action]
        cell, hidden = theta.split(self.hidden_size, dim=2)
        gates = self.gates(torch.cat([encoding, *actions, hidden], dim=2))
        admit, candidate, forget, emit = gates.split(self.hidden_size, dim=2)
        admit = torch.sigmoid(self.input_norm(admit))
        candidate = torch.tanh(self.candidate_norm(candidate))
        forget = torch.sigmoid(self.forget_norm(forget) + FORGET_BIAS)
        cell = self.cell_norm(cell * forget + admit * candidate)
        hidden = torch.tanh(cell) * torch.sigmoid(self.output_norm(emit))
        return CoreOutput(hidden, torch.cat([cell, hidden], dim=2), None)

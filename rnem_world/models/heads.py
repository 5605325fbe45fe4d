"""Heads: slots tell what a transition earns, as a number or as one of the values that rewards take, and its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rnem_world.models.config import ModelConfig
from rnem_world.models.cores import CoreOutput
from rnem_world.models.layers import Affine, VectorNorm


class HeadOutput(NamedTuple):
    """What the heads say of a transition.

    Attributes:
        rewards: Float (b, k), each slot's share of the reward; their sum is the prediction.
        termination: Float (b,), logit that the transition ends the episode.
        classes: Float (b, v), the logits of the values that rewards take; None where the reward is told as a number.
    """

    rewards: Tensor
    termination: Tensor
    classes: Tensor | None = None


class Heads(nn.Module):
    """One hidden layer on every slot, and from each a share of the reward and of the termination's logit.

    Shares that add up make visible which object earns what, and let the number of slots change.

    Args:
        inputs: Width of what the heads see of a slot.
    """

    def __init__(self, inputs: int, hidden_size: int = 64) -> None:
        super().__init__()
        self.hidden = Affine(inputs, hidden_size)
        self.norm = VectorNorm(hidden_size)
        self.shares = Affine(hidden_size, 2)

    def forward(self, slots: Float[Tensor, "b k d"]) -> HeadOutput:
        """Reads the slots after a transition."""
        rewards, terminations = self.shares(F.elu(self.norm(self.hidden(slots)))).unbind(dim=2)
        return HeadOutput(rewards, terminations.sum(dim=1))


class ClassHeads(nn.Module):
    """Tells which of some values the reward is, from logits to which each slot adds its part.

    The reward is the expectation over these values, so that it never leaves the range of the data, and nothing is paid
    where the data surely pays nothing. Each slot's share of it follows from how much the slot speaks for the values
    that are other than the least (the one nearest to 0): by a softmax over the slots. The last layer begins with zeros.

    Args:
        inputs: Width of what the heads see of a slot.
        values: The values that rewards take, in increasing order.
    """

    def __init__(self, inputs: int, values: Sequence[float], hidden_size: int = 128) -> None:
        super().__init__()
        self.hidden = Affine(inputs, hidden_size)
        self.norm = VectorNorm(hidden_size)
        self.parts = Affine(hidden_size, len(values) + 1)
        nn.init.zeros_(self.parts.weight)
        self.least = min(range(len(values)), key=lambda index: abs(values[index]))
        self.register_buffer("values", torch.tensor(values), persistent=False)
        self.values: Tensor

    def forward(self, slots: Float[Tensor, "b k d"]) -> HeadOutput:
        """Reads the slots after a transition."""
        parts = self.parts(F.elu(self.norm(self.hidden(slots))))
        said, ends = parts[:, :, :-1], parts[:, :, -1]
        classes = said.sum(dim=1)
        chances = classes.softmax(dim=1)
        reward = (chances * self.values).sum(dim=1)
        evidence = ((said - said[:, :, self.least, None]) * chances[:, None]).sum(dim=2)
        return HeadOutput(reward[:, None] * evidence.softmax(dim=1), ends.sum(dim=1), classes)


def make_heads(config: ModelConfig) -> Heads | ClassHeads | None:
    """Makes the heads that a model is configured with."""
    if not config.heads:
        return None
    inputs = config.hidden_size * (2 if config.heads_see == "slots_and_effects" else 1)
    return Heads(inputs) if config.reward_values is None else ClassHeads(inputs, config.reward_values)


def read_heads(heads: Heads | ClassHeads, step: CoreOutput, sees: str) -> HeadOutput:
    """Lets the heads read what a step has made of the slots.

    Args:
        heads: The heads.
        step: The step.
        sees: ``slots`` or ``slots_and_effects``.
    """
    slots = step.output
    if sees == "slots_and_effects" and step.effect is not None:
        slots = torch.cat([slots, step.effect], dim=2)
    output: HeadOutput = heads(slots)
    return output


def shares_of_values(rewards: Float[Tensor, "*n"], values: Float[Tensor, " v"]) -> Float[Tensor, "*n v"]:
    """Shares each reward out between the two values around it, so that their mean with these weights is the reward.

    A reward that is one of the values is that one alone. Beyond the range of the values it is the nearest.

    Args:
        rewards: The rewards.
        values: In increasing order.
    """
    if len(values) == 1:
        return torch.ones_like(rewards)[..., None]
    inside = rewards.clamp(values[0], values[-1])
    above = torch.searchsorted(values, inside.contiguous()).clamp(1, len(values) - 1)
    low, high = values[above - 1], values[above]
    part = (inside - low) / (high - low)
    return torch.lerp(
        F.one_hot(above - 1, len(values)).to(rewards.dtype),
        F.one_hot(above, len(values)).to(rewards.dtype),
        part[..., None],
    )

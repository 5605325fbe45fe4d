"""What planners draw action sequences from: distributions that are narrowed down, and coloured noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from rnem_world.agents.planner import drawn_numbers, refused


@dataclass(frozen=True)
class Categorical:
    """Independent discrete actions.

    Attributes:
        probabilities: Of each action, (n, h, a).
    """

    probabilities: Float[Tensor, "n h a"]

    def sample(self, noise: Float[Tensor, "n p d h"]) -> Int64[Tensor, "n p h"]:
        """Turns standard normal noise into sequences by the Gumbel-max trick; coloured noise gives coloured ones."""
        uniform = torch.special.ndtr(noise).clamp(1e-7, 1.0 - 1e-7)
        gumbel = -torch.log(-torch.log(uniform))
        logits = torch.log(self.probabilities.clamp(min=1e-12)).transpose(1, 2)
        return (logits[:, None] + gumbel).argmax(dim=2)

    def refit(
        self, sequences: Int64[Tensor, "n p h"], weights: Float[Tensor, "n p"], keep: float
    ) -> Categorical:
        """Takes the weighted frequencies of the actions; the old ones keep the share ``keep``."""
        one_hot = F.one_hot(sequences, self.probabilities.shape[2]).to(weights.dtype)
        fitted = (one_hot * weights[:, :, None, None]).sum(dim=1)
        return Categorical(keep * self.probabilities + (1.0 - keep) * fitted)

    def mode(self) -> Int64[Tensor, "n h"]:
        """Returns the likeliest action of every step."""
        return self.probabilities.argmax(dim=2)

    def shifted(self, steps: int) -> Categorical:
        """Drops actions that have been done, and mixes with the even distribution half and half for a new search."""
        even = torch.full_like(self.probabilities, 1.0 / self.probabilities.shape[2])
        moved = torch.cat([self.probabilities[:, steps:], even[:, :steps]], dim=1)
        return Categorical(0.5 * moved + 0.5 * even)

    def restarted(self, worlds: Bool[Tensor, " n"]) -> Categorical:
        """Makes the given worlds' actions equally likely."""
        even = 1.0 / self.probabilities.shape[2]
        return Categorical(torch.where(worlds[:, None, None], even, self.probabilities))


@dataclass(frozen=True)
class MultiCategorical:
    """Several independent discrete choices in each action: whole numbers, or bits.

    Attributes:
        choices: One distribution for each number of an action.
    """

    choices: tuple[Categorical, ...]

    def sample(self, noise: Float[Tensor, "n p a h"]) -> Int64[Tensor, "n p h d"]:
        """Turns noise into sequences; it has a number for every value of every choice."""
        parts = noise.split([choice.probabilities.shape[2] for choice in self.choices], dim=2)
        drawn = [choice.sample(part) for choice, part in zip(self.choices, parts, strict=True)]
        return torch.stack(drawn, dim=3)

    def refit(
        self, sequences: Int64[Tensor, "n p h d"], weights: Float[Tensor, "n p"], keep: float
    ) -> MultiCategorical:
        """Takes the weighted frequencies of every choice."""
        columns = zip(self.choices, sequences.unbind(dim=3), strict=True)
        return MultiCategorical(tuple(choice.refit(column, weights, keep) for choice, column in columns))

    def mode(self) -> Int64[Tensor, "n h d"]:
        """Returns the likeliest value of every choice."""
        return torch.stack([choice.mode() for choice in self.choices], dim=2)

    def shifted(self, steps: int) -> MultiCategorical:
        """Drops actions that have been done, as `Categorical.shifted` does."""
        return MultiCategorical(tuple(choice.shifted(steps) for choice in self.choices))

    def restarted(self, worlds: Bool[Tensor, " n"]) -> MultiCategorical:
        """Makes the given worlds' values equally likely."""
        return MultiCategorical(tuple(choice.restarted(worlds) for choice in self.choices))


@dataclass(frozen=True)
class Gaussian:
    """Independent continuous actions, clipped to their bounds.

    Attributes:
        mean: (n, h, d).
        deviation: Standard deviations, (n, h, d).
        low: Lower bounds, (d,).
        high: Upper bounds, (d,).
    """

    mean: Float[Tensor, "n h d"]
    deviation: Float[Tensor, "n h d"]
    low: Float[Tensor, " d"]
    high: Float[Tensor, " d"]

    def sample(self, noise: Float[Tensor, "n p d h"]) -> Float[Tensor, "n p h d"]:
        """Scales, moves and clips the noise."""
        return self._clipped(self.mean[:, None] + self.deviation[:, None] * noise.transpose(2, 3))

    def refit(
        self, sequences: Float[Tensor, "n p h d"], weights: Float[Tensor, "n p"], keep: float
    ) -> Gaussian:
        """Takes the weighted mean and standard deviation; the old ones keep the share ``keep``."""
        shares = weights[:, :, None, None]
        mean = (shares * sequences).sum(dim=1)
        variance = (shares * (sequences - mean[:, None]) ** 2).sum(dim=1)
        return Gaussian(
            keep * self.mean + (1.0 - keep) * mean,
            keep * self.deviation + (1.0 - keep) * variance.sqrt(),
            self.low,
            self.high,
        )

    def mode(self) -> Float[Tensor, "n h d"]:
        """Returns the means."""
        return self._clipped(self.mean)

    def shifted(self, steps: int) -> Gaussian:
        """Drops the means of actions that have been done, and starts with wide deviations again."""
        middle = self._middle().expand_as(self.mean[:, :steps])
        return self._wide(torch.cat([self.mean[:, steps:], middle], dim=1))

    def restarted(self, worlds: Bool[Tensor, " n"]) -> Gaussian:
        """Moves the given worlds' means to the middle of the bounds."""
        return self._wide(torch.where(worlds[:, None, None], self._middle(), self.mean))

    def _middle(self) -> Tensor:
        return (self.low + self.high) / 2

    def _wide(self, mean: Tensor) -> Gaussian:
        return Gaussian(mean, ((self.high - self.low) / 2).expand_as(mean), self.low, self.high)

    def _clipped(self, actions: Tensor) -> Tensor:
        return torch.maximum(torch.minimum(actions, self.high), self.low)


Proposal = Categorical | MultiCategorical | Gaussian
"""One distribution over sequences of h actions for each of n worlds."""


def uninformed(space: spaces.Space[Any], worlds: int, horizon: int, device: torch.device) -> Proposal:
    """Returns the distribution before any search: even, or wide around the middle of the bounds.

    Raises:
        ConfigError: If planners can't draw from the space.
    """
    count = drawn_numbers(space)

    def even(values: int) -> Categorical:
        return Categorical(torch.full((worlds, horizon, values), 1.0 / values, device=device))

    if isinstance(space, spaces.Discrete):
        return even(count)
    if isinstance(space, spaces.MultiDiscrete):
        return MultiCategorical(tuple(even(int(values)) for values in space.nvec))
    if isinstance(space, spaces.MultiBinary):
        return MultiCategorical((even(2),) * (count // 2))
    if not isinstance(space, spaces.Box):
        raise refused(space)
    low = torch.as_tensor(space.low, dtype=torch.float32, device=device)
    high = torch.as_tensor(space.high, dtype=torch.float32, device=device)
    mean = ((low + high) / 2).expand(worlds, horizon, count).contiguous()
    return Gaussian(mean, ((high - low) / 2).expand_as(mean).contiguous(), low, high)


def coloured_noise(
    shape: tuple[int, ...], exponent: float, generator: torch.Generator
) -> Float[Tensor, "*s"]:
    """Draws standard normal numbers whose power falls with frequency f as f^-exponent along the last axis.

    The algorithm is that of Timmer & Koenig (1995), as in iCEM (Pinneri et al., 2020). 0 is white noise; the
    larger the exponent, the longer an action is held.

    Args:
        shape: Of the result; time last.
        exponent: At least 0.
        generator: Draws it; its device is the result's.

    Returns:
        Float32; every entry has mean 0 and variance 1.
    """
    steps, device = shape[-1], generator.device
    if exponent == 0.0 or steps == 1:
        return torch.randn(shape, generator=generator, device=device)
    frequencies = torch.fft.rfftfreq(steps, device=device)
    # The lowest frequency stands in for 0, at which the power would be infinite.
    scale = frequencies.clamp(min=1.0 / steps) ** (-exponent / 2.0)
    real, imaginary = torch.randn((2, *shape[:-1], len(scale)), generator=generator, device=device) * scale
    # Without an imaginary part, the constant and the highest term need its variance for themselves.
    edges = torch.zeros(len(scale), dtype=torch.bool, device=device)
    edges[0] = True
    edges[-1] = steps % 2 == 0
    real = torch.where(edges, real * 2.0**0.5, real)
    imaginary = torch.where(edges, torch.zeros_like(imaginary), imaginary)
    weights = torch.where(edges, 1.0, 2.0)
    variance = 2.0 * (weights * scale**2).sum() / steps**2
    noise: Tensor = torch.fft.irfft(torch.complex(real, imaginary), n=steps, dim=-1)
    noise /= variance.sqrt()
    return noise

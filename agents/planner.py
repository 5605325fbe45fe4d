"""What a planner is, what all of them can be told, and how action sequences are tried out."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic

import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from rnem_world.agents.dynamics import Dynamics, State
from rnem_world.config import check_above_zero, check_at_least, check_between
from rnem_world.errors import ConfigError, DivergenceError


@dataclass(frozen=True)
class PlannerConfig:
    """What all planners can be told.

    Attributes:
        horizon: Actions that are looked ahead.
        discount: By how much a reward is worth less with every step.
        action_repeat: Steps for which each action is held, in planning and by `PlannerAgent`.
        milliseconds: Time for a decision of all environments together. The search goes on until it is over, and its
            number of iterations or simulations doesn't count; None for no limit.
        rows: Largest number of worlds that are stepped at once; bounds the memory.

    Raises:
        ConfigError: If a value makes no sense.
    """

    horizon: int = 15
    discount: float = 1.0
    action_repeat: int = 1
    milliseconds: float | None = None
    rows: int = 8192

    def __post_init__(self) -> None:
        check_at_least(self, 1, "horizon", "action_repeat", "rows")
        check_between(self, 0.0, 1.0, "discount")
        check_above_zero(self, "milliseconds")


@dataclass(frozen=True)
class Plan:
    """What a planner has found for n worlds.

    Attributes:
        actions: What to do now: int64 (n,) or (n, d), or float32 (n, d).
        values: Float (n,), the return that the planner expects within its horizon.
        simulations: How many sequences or leaves it has tried in each world.
    """

    actions: Tensor
    values: Tensor
    simulations: int


class Planner(ABC, Generic[State]):
    """Finds good actions for n worlds at once by trying them out in a `Dynamics`.

    Args:
        dynamics: The world to plan in.
        config: What to do.
        generator: Where chance comes from; on the device of the dynamics.

    Raises:
        ConfigError: If the planner can't act in the world's action space.
    """

    config: PlannerConfig

    def __init__(self, dynamics: Dynamics[State], config: PlannerConfig, generator: torch.Generator) -> None:
        self.dynamics = dynamics
        self.config = config
        self._generator = generator
        self._drawn_numbers = drawn_numbers(dynamics.action_space)
        self._incumbent: Tensor | None = None

    @abstractmethod
    def plan(self, state: State) -> Plan:
        """Plans from ``state``, which stays as it is; begins where the last plan, one action on, has left off.

        Raises:
            DivergenceError: If the world's rewards aren't finite.
        """

    @abstractmethod
    def forget(self, worlds: Bool[Tensor, " n"] | None = None) -> None:
        """Forgets the last plan, for all worlds or for those whose episode is over."""

    def _returns(self, state: State, sequences: Tensor) -> Float[Tensor, "n p"]:
        """Tries sequences out as the options say; see `sequence_returns`."""
        config = self.config
        return sequence_returns(
            self.dynamics, state, sequences, config.discount, config.action_repeat, config.rows
        )


class Deadline:
    """A time that a search has, in milliseconds; without one it is never over."""

    def __init__(self, milliseconds: float | None, device: torch.device) -> None:
        self.is_set = milliseconds is not None
        self._device = device
        self._end = math.inf if milliseconds is None else time.monotonic() + milliseconds / 1000.0

    def is_over(self) -> bool:
        """Tells whether the time is over, once the device has done its work."""
        if self.is_set and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.monotonic() >= self._end


def drawn_numbers(space: spaces.Space[Any]) -> int:
    """Counts the random numbers that a planner draws for one action: one a value to choose, or one a real number.

    Raises:
        ConfigError: If planners can't draw from such a space.
    """
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1 and not space.start.any():
        return int(space.nvec.sum())
    if isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
        return 2 * int(space.shape[0])
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.is_bounded():
        return int(space.shape[0])
    raise refused(space)


def refused(space: spaces.Space[Any]) -> ConfigError:
    """Makes the error for a space that planners can't draw from."""
    return ConfigError(
        f"planners can't act in the action space {space}: expected Discrete, MultiDiscrete or MultiBinary, flat and "
        "from 0, or a bounded Box with one axis"
    )


def follow(
    dynamics: Dynamics[State],
    state: State,
    actions: Tensor,
    weights: Float[Tensor, " n"],
    discount: float,
    action_repeat: int,
    lengths: Int64[Tensor, " n"] | None = None,
) -> tuple[State, Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Follows one action sequence in each of n worlds.

    Args:
        dynamics: The world.
        state: N worlds, which stay as they are.
        actions: Int64 (n, h) where an action is one whole number, else (n, h, d), float32 for real numbers.
        weights: What the first rewards are worth; 0 where the episode is over.
        discount: By how much a reward is worth less with every step.
        action_repeat: Steps for which each action is held.
        lengths: Actions of each sequence that count; None for all.

    Returns:
        The worlds at the end, the weighted sums of rewards up to the end of the sequence, each by how probable it is
        that the episode lasts so long, and what the next rewards are worth.
    """
    total = torch.zeros_like(weights)
    for index in range(actions.shape[1]):
        if lengths is not None:
            weights = torch.where(index < lengths, weights, 0.0)
        for _ in range(action_repeat):
            outcome = dynamics.step(state, actions[:, index])
            state = outcome.state
            total = total + torch.where(weights > 0.0, weights * outcome.rewards, 0.0)
            weights = weights * (discount * (1.0 - outcome.termination))
    return state, total, weights


def sequence_returns(
    dynamics: Dynamics[State],
    state: State,
    sequences: Tensor,
    discount: float = 1.0,
    action_repeat: int = 1,
    rows: int = 8192,
) -> Float[Tensor, "n p"]:
    """Tries out p action sequences in each of n worlds; see `follow`.

    Args:
        dynamics: The world.
        state: N worlds, which stay as they are.
        sequences: Int64 (n, p, h) where an action is one whole number, else (n, p, h, d), float32 for real numbers.
        discount: By how much a reward is worth less with every step.
        action_repeat: Steps for which each action is held.
        rows: Largest number of worlds that are stepped at once; bounds the memory.

    Returns:
        The discounted sums of rewards.

    Raises:
        DivergenceError: If one of them isn't finite.
    """
    n, p = sequences.shape[:2]
    owners = torch.arange(n, device=dynamics.device).repeat_interleave(p)
    parts = []
    for actions, owner in zip(sequences.flatten(0, 1).split(rows), owners.split(rows), strict=True):
        weights = torch.ones(len(owner), device=dynamics.device)
        worlds = dynamics.select(state, owner)
        parts.append(follow(dynamics, worlds, actions, weights, discount, action_repeat)[1])
    returns: Tensor = torch.cat(parts).unflatten(0, (n, p))
    check_finite(returns)
    return returns


def check_finite(returns: Float[Tensor, "*s"]) -> None:
    """Refuses a world whose rewards aren't numbers.

    Raises:
        DivergenceError: If a return is NaN or infinite.
    """
    broken = ~torch.isfinite(returns)
    if bool(broken.any()):
        raise DivergenceError(
            f"{int(broken.sum())} of {broken.numel()} imagined returns are NaN or infinite: the world diverges; plan "
            "with a shorter horizon, or take another checkpoint"
        )

"""What a planner is, what all planners can be told, and the frame of those that search over action sequences."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rnem_world.agents.dynamics import Dynamics, State, action_count, sequence_returns
from rnem_world.agents.noise import coloured_noise
from rnem_world.agents.proposals import Proposal, uninformed
from rnem_world.errors import ConfigError


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
        self._check_at_least(1, "horizon", "action_repeat", "rows")
        self._check_between(0.0, 1.0, "discount")
        if self.milliseconds is not None and not (math.isfinite(self.milliseconds) and self.milliseconds > 0):
            raise ConfigError(f"milliseconds is {self.milliseconds}, expected a number above 0, or None")

    def _check_at_least(self, least: int, *names: str) -> None:
        for name in names:
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least {least}")

    def _check_between(self, low: float, high: float, *names: str) -> None:
        for name in names:
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected {low:g} to {high:g}")


@dataclass(frozen=True)
class Plan:
    """What a planner has found for n worlds.

    Attributes:
        actions: What to do now: int64 (n,), or float32 (n, d).
        values: Float (n,), the return that the planner expects within its horizon.
        simulations: How many sequences or leaves it has tried in each world.
    """

    actions: Tensor
    values: Tensor
    simulations: int


@runtime_checkable
class Planner(Protocol[State]):
    """Finds good actions for n worlds at once by trying them out in a `Dynamics`."""

    dynamics: Dynamics[State]

    @property
    def action_repeat(self) -> int:
        """Steps for which an action is to be held."""

    def plan(self, state: State) -> Plan:
        """Plans from ``state``; begins where the last plan, one action on, has left off.

        Raises:
            DivergenceError: If the world's rewards aren't finite.
        """

    def forget(self, worlds: Bool[Tensor, " n"] | None = None) -> None:
        """Forgets the last plan, for all worlds or for those whose episode is over."""


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


Config = TypeVar("Config", bound="SequencePlannerConfig")


@dataclass(frozen=True)
class SequencePlannerConfig(PlannerConfig):
    """What planners can be told that draw whole action sequences.

    Attributes:
        population: Sequences that are tried at once in every world.
        iterations: Rounds of drawing.
        noise_exponent: Power of the noise falls with frequency to this power: 0 for actions that have nothing to do
            with one another; with 2 or more they are held for some steps.
        warm_start: Whether a plan begins with the last one.
    """

    population: int = 100
    iterations: int = 1
    noise_exponent: float = 0.0
    warm_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_at_least(1, "population", "iterations")
        self._check_between(0.0, 10.0, "noise_exponent")


@dataclass(frozen=True)
class Candidates:
    """Sequences that have been tried, the best first if sorted.

    Attributes:
        sequences: (n, p, h) or (n, p, h, d).
        returns: Float (n, p).
    """

    sequences: Tensor
    returns: Float[Tensor, "n p"]

    def best(self, count: int) -> Candidates:
        """Returns the best of every world, sorted."""
        returns, order = self.returns.topk(count, dim=1)
        index = order.reshape(*order.shape, *[1] * (self.sequences.dim() - 2))
        return Candidates(self.sequences.gather(1, index.expand(-1, -1, *self.sequences.shape[2:])), returns)

    def joined(self, other: Candidates) -> Candidates:
        """Returns both."""
        return Candidates(
            torch.cat([self.sequences, other.sequences], dim=1),
            torch.cat([self.returns, other.returns], dim=1),
        )


class SequencePlanner(Generic[State, Config]):
    """The frame of planners that draw whole action sequences, try them out, and draw better ones.

    Args:
        dynamics: The world to plan in.
        config: What to do.
        generator: Where chance comes from; on the device of the dynamics.

    Raises:
        ConfigError: If the planner can't act in the world's action space.
    """

    def __init__(self, dynamics: Dynamics[State], config: Config, generator: torch.Generator) -> None:
        self.dynamics = dynamics
        self.config = config
        self._generator = generator
        self._size = action_count(dynamics.action_space)
        self._proposal: Proposal | None = None
        self._incumbent: Tensor | None = None

    @property
    def action_repeat(self) -> int:
        """Steps for which an action is to be held."""
        return self.config.action_repeat

    def forget(self, worlds: Bool[Tensor, " n"] | None = None) -> None:
        """Forgets the last plan, for all worlds or for some."""
        if worlds is None or self._proposal is None:
            self._proposal = self._incumbent = None
        else:
            self._proposal = self._proposal.restarted(worlds)

    @torch.no_grad()
    def plan(self, state: State) -> Plan:
        """Plans from ``state``; begins where the last plan, one action on, has left off.

        Raises:
            DivergenceError: If the world's rewards aren't finite.
        """
        config, n = self.config, self.dynamics.size(state)
        deadline = Deadline(config.milliseconds, self.dynamics.device)
        proposal, kept = self._proposal, self._incumbent
        if proposal is None or kept is None or len(kept) != n:
            proposal, kept = (
                uninformed(self.dynamics.action_space, n, config.horizon, self.dynamics.device),
                None,
            )
        elites: Candidates | None = None
        simulations = 0
        iteration = 0
        while True:
            fresh = self._drawn(proposal, n, iteration)
            if kept is not None:
                fresh = torch.cat([kept, fresh], dim=1)
            tried = Candidates(fresh, self.returns(state, fresh))
            simulations += fresh.shape[1]
            elites = self._elites(tried, elites)
            proposal = self._improved(proposal, tried, elites)
            iteration += 1
            last = deadline.is_over() if deadline.is_set else iteration >= config.iterations
            if last:
                break
            kept = self._carried(elites)
        chosen, values, extra = self._chosen(state, proposal, elites)
        if config.warm_start:
            self._proposal = proposal.shifted(1)
            self._incumbent = self._shifted(self._remembered(elites, chosen))
        return Plan(chosen[:, 0], values, simulations + extra)

    def _population(self, iteration: int) -> int:
        """Sequences to draw in an iteration."""
        return self.config.population

    def _elites(self, tried: Candidates, elites: Candidates | None) -> Candidates:
        """Returns the sequences worth keeping, sorted."""
        raise NotImplementedError

    def _improved(self, proposal: Proposal, tried: Candidates, elites: Candidates) -> Proposal:
        """Returns what to draw from next."""
        return proposal

    def _carried(self, elites: Candidates) -> Tensor | None:
        """Returns sequences that compete again in the next iteration."""
        return None

    def _chosen(
        self, state: State, proposal: Proposal, elites: Candidates
    ) -> tuple[Tensor, Float[Tensor, " n"], int]:
        """Returns the sequences to follow, their returns, and how many were tried for that."""
        return elites.sequences[:, 0], elites.returns[:, 0], 0

    def _remembered(self, elites: Candidates, chosen: Tensor) -> Tensor:
        """Returns the sequences that the next plan begins with, (n, p, h) or (n, p, h, d)."""
        return chosen[:, None]

    def _drawn(self, proposal: Proposal, worlds: int, iteration: int) -> Tensor:
        shape = (worlds, self._population(iteration), self._size, self.config.horizon)
        return proposal.sample(coloured_noise(shape, self.config.noise_exponent, self._generator))

    def returns(self, state: State, sequences: Tensor) -> Float[Tensor, "n p"]:
        """Tries sequences out; see `sequence_returns`."""
        config = self.config
        return sequence_returns(
            self.dynamics, state, sequences, config.discount, config.action_repeat, config.rows
        )

    @staticmethod
    def _shifted(sequences: Tensor) -> Tensor:
        """Drops the first action; the last one is done once more."""
        return torch.cat([sequences[:, :, 1:], sequences[:, :, -1:]], dim=2)

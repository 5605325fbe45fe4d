"""Planners that draw whole action sequences: random shooting, CEM, iCEM and MPPI."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rnem_world.agents.dynamics import State
from rnem_world.agents.planner import Deadline, Plan, Planner, PlannerConfig
from rnem_world.agents.proposals import Proposal, coloured_noise, uninformed
from rnem_world.config import check_above_zero, check_at_least, check_between
from rnem_world.errors import ConfigError


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
        check_at_least(self, 1, "population", "iterations")
        check_between(self, 0.0, 10.0, "noise_exponent")


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


class SequencePlanner(Planner[State]):
    """The frame of planners that draw whole action sequences, try them out, and draw better ones."""

    config: SequencePlannerConfig
    _proposal: Proposal | None = None

    def forget(self, worlds: Bool[Tensor, " n"] | None = None) -> None:
        """Forgets the last plan, for all worlds or for some."""
        if worlds is None or self._proposal is None:
            self._proposal = self._incumbent = None
            return
        self._proposal = self._proposal.restarted(worlds)
        if self._incumbent is not None:
            mode = self._proposal.mode()[:, None]
            these = worlds.reshape(-1, *[1] * (mode.dim() - 1))
            self._incumbent = torch.where(these, mode, self._incumbent)

    @torch.no_grad()
    def plan(self, state: State) -> Plan:
        """Plans; see `Planner.plan`."""
        config, n = self.config, self.dynamics.size(state)
        deadline = Deadline(config.milliseconds, self.dynamics.device)
        proposal, kept = self._proposal, self._incumbent
        if proposal is None or kept is None or len(kept) != n:
            proposal = uninformed(self.dynamics.action_space, n, config.horizon, self.dynamics.device)
            kept = None
        elites: Candidates | None = None
        simulations = iteration = 0
        while True:
            fresh = self._drawn(proposal, n, iteration)
            if kept is not None:
                fresh = torch.cat([kept, fresh], dim=1)
            tried = Candidates(fresh, self._returns(state, fresh))
            simulations += fresh.shape[1]
            elites = self._elites(tried, elites)
            proposal = self._improved(proposal, tried, elites)
            iteration += 1
            if deadline.is_over() if deadline.is_set else iteration >= config.iterations:
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

    def _chosen(self, state: State, proposal: Proposal, elites: Candidates) -> tuple[Tensor, Tensor, int]:
        """Returns the sequences to follow, their returns, and how many were tried for that."""
        return elites.sequences[:, 0], elites.returns[:, 0], 0

    def _remembered(self, elites: Candidates, chosen: Tensor) -> Tensor:
        """Returns the sequences that the next plan begins with, (n, p, h) or (n, p, h, d)."""
        return chosen[:, None]

    def _drawn(self, proposal: Proposal, worlds: int, iteration: int) -> Tensor:
        shape = (worlds, self._population(iteration), self._drawn_numbers, self.config.horizon)
        return proposal.sample(coloured_noise(shape, self.config.noise_exponent, self._generator))

    @staticmethod
    def _shifted(sequences: Tensor) -> Tensor:
        """Drops the first action; the last one is done once more."""
        return torch.cat([sequences[:, :, 1:], sequences[:, :, -1:]], dim=2)


@dataclass(frozen=True)
class ShootingConfig(SequencePlannerConfig):
    """What random shooting can be told; see `SequencePlannerConfig`."""

    noise_exponent: float = 2.0


class ShootingPlanner(SequencePlanner[State]):
    """Tries ``population * iterations`` random sequences, and the rest of the last plan."""

    def _elites(self, tried: Candidates, elites: Candidates | None) -> Candidates:
        best = tried.best(1)
        if elites is None:
            return best
        sequences = torch.cat([elites.sequences, best.sequences], dim=1)
        return Candidates(sequences, torch.cat([elites.returns, best.returns], dim=1)).best(1)


@dataclass(frozen=True)
class CEMConfig(SequencePlannerConfig):
    """What CEM can be told beside what `SequencePlannerConfig` says.

    Attributes:
        elites: Sequences to which the distribution is refitted.
        momentum: Share of the old distribution in the new one.
    """

    population: int = 64
    iterations: int = 4
    elites: int = 10
    momentum: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "elites")
        check_between(self, 0.0, 1.0, "momentum")
        if self.elites > self.population:
            raise ConfigError(f"elites is {self.elites}, expected at most the population, {self.population}")


class CEMPlanner(SequencePlanner[State]):
    """CEM over categorical or Gaussian action sequences; follows the final mode, or the best elite if that is better.

    The mode of independent actions need not be a good sequence, so it is tried out like all others.
    """

    config: CEMConfig

    def _elites(self, tried: Candidates, elites: Candidates | None) -> Candidates:
        return tried.best(self.config.elites)

    def _improved(self, proposal: Proposal, tried: Candidates, elites: Candidates) -> Proposal:
        even = torch.full_like(elites.returns, 1.0 / elites.returns.shape[1])
        return proposal.refit(elites.sequences, even, self.config.momentum)

    def _chosen(self, state: State, proposal: Proposal, elites: Candidates) -> tuple[Tensor, Tensor, int]:
        mode, best = proposal.mode(), elites.best(1)
        value = self._returns(state, mode[:, None])[:, 0]
        # Among equals the mode: it is the one that small errors of the world spoil least.
        better = value >= best.returns[:, 0]
        wide = better.reshape(-1, *[1] * (mode.dim() - 1))
        return (
            torch.where(wide, mode, best.sequences[:, 0]),
            torch.where(better, value, best.returns[:, 0]),
            1,
        )


@dataclass(frozen=True)
class ICEMConfig(CEMConfig):
    """What iCEM can be told beside what `CEMConfig` says; see Pinneri et al. (2020).

    Attributes:
        kept: Share of the elites that compete again in the next iteration and, shifted, in the next plan.
        shrinkage: Factor by which the population shrinks with every iteration, down to twice the elites.
    """

    noise_exponent: float = 2.0
    kept: float = 0.3
    shrinkage: float = 1.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between(self, 0.0, 1.0, "kept")
        check_at_least(self, 1.0, "shrinkage")

    @property
    def number_kept(self) -> int:
        """The share of the elites as a number, at least 1."""
        return max(1, round(self.kept * self.elites))


class ICEMPlanner(CEMPlanner[State]):
    """iCEM (Pinneri et al., 2020) over categorical or Gaussian action sequences."""

    config: ICEMConfig

    def _population(self, iteration: int) -> int:
        shrunk = round(self.config.population * self.config.shrinkage**-iteration)
        return max(shrunk, min(2 * self.config.elites, self.config.population))

    def _carried(self, elites: Candidates) -> Tensor:
        return elites.sequences[:, : self.config.number_kept]

    def _remembered(self, elites: Candidates, chosen: Tensor) -> Tensor:
        return self._carried(elites)


@dataclass(frozen=True)
class MPPIConfig(SequencePlannerConfig):
    """What MPPI can be told beside what `SequencePlannerConfig` says.

    Attributes:
        temperature: Of the weights exp(return / temperature), in spreads (standard deviations) of the returns of a
            world; small numbers listen to the best sequences only.
    """

    population: int = 128
    iterations: int = 2
    noise_exponent: float = 1.0
    temperature: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above_zero(self, "temperature")


class MPPIPlanner(SequencePlanner[State]):
    """Model predictive path integral control (Williams et al., 2017) over categorical or Gaussian sequences.

    It follows the mean, or for discrete actions the mode; the best sequence is only kept for the next plan.
    """

    config: MPPIConfig

    def _elites(self, tried: Candidates, elites: Candidates | None) -> Candidates:
        return tried.best(1)

    def _improved(self, proposal: Proposal, tried: Candidates, elites: Candidates) -> Proposal:
        spread = tried.returns.std(dim=1, keepdim=True, correction=0).clamp(min=1e-6)
        weights = torch.softmax(tried.returns / (self.config.temperature * spread), dim=1)
        return proposal.refit(tried.sequences, weights, 0.0)

    def _chosen(self, state: State, proposal: Proposal, elites: Candidates) -> tuple[Tensor, Tensor, int]:
        mode = proposal.mode()
        return mode, self._returns(state, mode[:, None])[:, 0], 1

    def _remembered(self, elites: Candidates, chosen: Tensor) -> Tensor:
        return elites.sequences[:, :1]

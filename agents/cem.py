"""The cross-entropy method: draw sequences, refit the distribution to the best, draw again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rnem_world.agents.dynamics import State
from rnem_world.agents.planner import Candidates, Config, SequencePlanner, SequencePlannerConfig
from rnem_world.agents.proposals import Proposal
from rnem_world.errors import ConfigError


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
        self._check_at_least(1, "elites")
        self._check_between(0.0, 1.0, "momentum")
        if self.elites > self.population:
            raise ConfigError(f"elites is {self.elites}, expected at most the population, {self.population}")


def refitted(proposal: Proposal, elites: Candidates, momentum: float) -> Proposal:
    """Fits a proposal to elites, all of the same weight."""
    return proposal.refit(
        elites.sequences, torch.full_like(elites.returns, 1.0 / elites.returns.shape[1]), momentum
    )


class CEMPlanner(SequencePlanner[State, CEMConfig]):
    """CEM over categorical or Gaussian action sequences; follows the final mode, or the best elite if that is better.

    The mode of independent actions need not be a good sequence, so it is tried out like all others.
    """

    def _elites(self, tried: Candidates, elites: Candidates | None) -> Candidates:
        return tried.best(self.config.elites)

    def _improved(self, proposal: Proposal, tried: Candidates, elites: Candidates) -> Proposal:
        return refitted(proposal, elites, self.config.momentum)

    def _chosen(
        self, state: State, proposal: Proposal, elites: Candidates
    ) -> tuple[Tensor, Float[Tensor, " n"], int]:
        return best_or_mode(self, state, proposal, elites)


def best_or_mode(
    planner: SequencePlanner[State, Config], state: State, proposal: Proposal, elites: Candidates
) -> tuple[Tensor, Float[Tensor, " n"], int]:
    """Tries out the proposal's mode and returns it, or the best elite where that is better."""
    mode, best = proposal.mode(), elites.best(1)
    value = planner.returns(state, mode[:, None])[:, 0]
    # Among equals the mode: it is the one that small errors of the world spoil least.
    better = value >= best.returns[:, 0]
    wide = better.reshape(-1, *[1] * (mode.dim() - 1))
    return torch.where(wide, mode, best.sequences[:, 0]), torch.where(better, value, best.returns[:, 0]), 1

"""iCEM: CEM with coloured noise, elites that stay, and a shrinking population."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from rnem_world.agents.cem import CEMConfig, best_or_mode, refitted
from rnem_world.agents.dynamics import State
from rnem_world.agents.planner import Candidates, SequencePlanner
from rnem_world.agents.proposals import Proposal
from rnem_world.errors import ConfigError


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
        self._check_between(0.0, 1.0, "kept")
        if self.shrinkage < 1.0:
            raise ConfigError(f"shrinkage is {self.shrinkage}, expected at least 1")

    @property
    def number_kept(self) -> int:
        """The share of the elites as a number, at least 1."""
        return max(1, round(self.kept * self.elites))


class ICEMPlanner(SequencePlanner[State, ICEMConfig]):
    """iCEM (Pinneri et al., 2020) over categorical or Gaussian action sequences."""

    def _population(self, iteration: int) -> int:
        shrunk = round(self.config.population * self.config.shrinkage**-iteration)
        return max(shrunk, min(2 * self.config.elites, self.config.population))

    def _elites(self, tried: Candidates, elites: Candidates | None) -> Candidates:
        return tried.best(self.config.elites)

    def _improved(self, proposal: Proposal, tried: Candidates, elites: Candidates) -> Proposal:
        return refitted(proposal, elites, self.config.momentum)

    def _carried(self, elites: Candidates) -> Tensor:
        return elites.sequences[:, : self.config.number_kept]

    def _chosen(
        self, state: State, proposal: Proposal, elites: Candidates
    ) -> tuple[Tensor, Float[Tensor, " n"], int]:
        return best_or_mode(self, state, proposal, elites)

    def _remembered(self, elites: Candidates, chosen: Tensor) -> Tensor:
        return elites.sequences[:, : self.config.number_kept]

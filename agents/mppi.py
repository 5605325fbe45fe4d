"""MPPI: every sequence pulls the distribution towards itself, the more the better it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rnem_world.agents.dynamics import State
from rnem_world.agents.planner import Candidates, SequencePlanner, SequencePlannerConfig
from rnem_world.agents.proposals import Proposal
from rnem_world.errors import ConfigError


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
        if not self.temperature > 0.0:
            raise ConfigError(f"temperature is {self.temperature}, expected a number above 0")


class MPPIPlanner(SequencePlanner[State, MPPIConfig]):
    """Model predictive path integral control (Williams et al., 2017) over categorical or Gaussian sequences.

    It follows the mean, or for discrete actions the mode; the best sequence is only kept for the next plan.
    """

    def _elites(self, tried: Candidates, elites: Candidates | None) -> Candidates:
        return tried.best(1)

    def _improved(self, proposal: Proposal, tried: Candidates, elites: Candidates) -> Proposal:
        spread = tried.returns.std(dim=1, keepdim=True, correction=0).clamp(min=1e-6)
        weights = torch.softmax(tried.returns / (self.config.temperature * spread), dim=1)
        return proposal.refit(tried.sequences, weights, 0.0)

    def _chosen(
        self, state: State, proposal: Proposal, elites: Candidates
    ) -> tuple[Tensor, Float[Tensor, " n"], int]:
        mode = proposal.mode()
        return mode, self.returns(state, mode[:, None])[:, 0], 1

    def _remembered(self, elites: Candidates, chosen: Tensor) -> Tensor:
        return elites.sequences[:, :1]

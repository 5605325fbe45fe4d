"""Flat Monte Carlo: the action after which play by chance goes best on average."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gymnasium import spaces
from jaxtyping import Bool
from torch import Tensor

from rnem_world.agents.dynamics import State
from rnem_world.agents.planner import Deadline, Plan, Planner, PlannerConfig
from rnem_world.agents.proposals import coloured_noise, uninformed
from rnem_world.config import check_at_least, check_between


@dataclass(frozen=True)
class FlatMonteCarloConfig(PlannerConfig):
    """What flat Monte Carlo can be told beside what `PlannerConfig` says.

    Attributes:
        horizon: Actions that are looked ahead, the first one included.
        population: Ways to go on that each first action is tried with, in every world.
        candidates: First actions that are tried where they can't all be: of anything but one whole number.
        noise_exponent: Of the actions that follow: 0 for such that have nothing to do with one another; with 2 or more
            they are held for some steps.
    """

    horizon: int = 10
    population: int = 64
    candidates: int = 16
    noise_exponent: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "population", "candidates")
        check_between(self, 0.0, 10.0, "noise_exponent")


class FlatMonteCarloPlanner(Planner[State]):
    """Flat Monte Carlo, the rollout algorithm with play by chance (Tesauro and Galperin, 1996; Bertsekas, 2013).

    The best of many sequences says what could be had by one who never errs; where nearly every action leads to one that
    survives, as a pole can be caught from nearly everywhere, it doesn't tell which action is safe. The mean does. All
    first actions are tried with the same continuations, so that these decide nothing between them.
    """

    config: FlatMonteCarloConfig

    def forget(self, worlds: Bool[Tensor, " n"] | None = None) -> None:
        """Does nothing: no plan is kept."""

    @torch.no_grad()
    def plan(self, state: State) -> Plan:
        """Plans; see `Planner.plan`."""
        n, device = self.dynamics.size(state), self.dynamics.device
        deadline = Deadline(self.config.milliseconds, device)
        firsts = self._firsts(n)
        total = torch.zeros(firsts.shape[:2], device=device)
        rounds = 0
        while True:
            total += self._mean_returns(state, firsts)
            rounds += 1
            if not deadline.is_set or deadline.is_over():
                break
        values, best = (total / rounds).max(dim=1)
        actions = firsts[torch.arange(n, device=device), best]
        return Plan(actions, values, rounds * firsts.shape[1] * self.config.population)

    def _firsts(self, worlds: int) -> Tensor:
        """Gives the actions among which is chosen, (n, a) or (n, a, d)."""
        space = self.dynamics.action_space
        if isinstance(space, spaces.Discrete):
            return torch.arange(int(space.n), device=self.dynamics.device).expand(worlds, -1)
        shape = (worlds, self.config.candidates, self._drawn_numbers, 1)
        drawn = coloured_noise(shape, 0.0, self._generator)
        return uninformed(space, worlds, 1, self.dynamics.device).sample(drawn)[:, :, 0]

    def _mean_returns(self, state: State, firsts: Tensor) -> Tensor:
        """Tries all first actions with the same continuations: means of the returns, Float (n, a)."""
        config, (n, candidates) = self.config, firsts.shape[:2]
        first = firsts[:, :, None].expand(-1, -1, config.population, *firsts.shape[2:])[:, :, :, None]
        sequences = first
        if config.horizon > 1:
            shape = (n, config.population, self._drawn_numbers, config.horizon - 1)
            proposal = uninformed(self.dynamics.action_space, n, config.horizon - 1, self.dynamics.device)
            drawn = proposal.sample(coloured_noise(shape, config.noise_exponent, self._generator))
            rest = drawn[:, None].expand(-1, candidates, *drawn.shape[1:])
            sequences = torch.cat([first, rest], dim=3)
        means: Tensor = (
            self._returns(state, sequences.flatten(1, 2))
            .unflatten(1, (candidates, config.population))
            .mean(dim=2)
        )
        return means

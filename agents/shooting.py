"""Random shooting: try random action sequences, follow the best."""

from __future__ import annotations

from dataclasses import dataclass

from rnem_world.agents.dynamics import State
from rnem_world.agents.planner import Candidates, SequencePlanner, SequencePlannerConfig


@dataclass(frozen=True)
class ShootingConfig(SequencePlannerConfig):
    """What random shooting can be told; see `SequencePlannerConfig`."""

    noise_exponent: float = 2.0


class ShootingPlanner(SequencePlanner[State, ShootingConfig]):
    """Tries ``population * iterations`` random sequences, and the rest of the last plan."""

    def _elites(self, tried: Candidates, elites: Candidates | None) -> Candidates:
        best = tried.best(1)
        return best if elites is None else elites.joined(best).best(1)

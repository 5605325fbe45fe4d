"""An agent that plans, and how planners are named and made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from rnem_world.agents.cem import CEMConfig, CEMPlanner
from rnem_world.agents.dynamics import Dynamics, State
from rnem_world.agents.icem import ICEMConfig, ICEMPlanner
from rnem_world.agents.mcts import MCTSConfig, MCTSPlanner
from rnem_world.agents.mppi import MPPIConfig, MPPIPlanner
from rnem_world.agents.planner import Planner, PlannerConfig
from rnem_world.agents.shooting import ShootingConfig, ShootingPlanner
from rnem_world.config import build
from rnem_world.errors import ConfigError, suggest

PLANNERS: dict[str, tuple[type[PlannerConfig], Any]] = {
    "shooting": (ShootingConfig, ShootingPlanner),
    "cem": (CEMConfig, CEMPlanner),
    "icem": (ICEMConfig, ICEMPlanner),
    "mppi": (MPPIConfig, MPPIPlanner),
    "mcts": (MCTSConfig, MCTSPlanner),
}
"""Names of planners, with the classes of their options and their own."""


def planner_config(name: str, options: Mapping[str, Any]) -> PlannerConfig:
    """Makes the options of a planner.

    Args:
        name: One of `PLANNERS`.
        options: Those that differ from the defaults.

    Raises:
        ConfigError: If there is no such planner or option, or a value makes no sense.
    """
    if name not in PLANNERS:
        raise ConfigError(f"no planner {name!r}: {suggest(name, PLANNERS)}")
    return build(PLANNERS[name][0], options, name)


def make_planner(
    name: str, dynamics: Dynamics[State], options: Mapping[str, Any], generator: torch.Generator
) -> Planner[State]:
    """Makes a planner by its name.

    Args:
        name: One of `PLANNERS`.
        dynamics: The world to plan in.
        options: Those that differ from the defaults.
        generator: Where chance comes from; on the device of the dynamics.

    Raises:
        ConfigError: If there is no such planner or option, a value makes no sense, or the planner can't act there.
    """
    config = planner_config(name, options)
    planner: Planner[State] = PLANNERS[name][1](dynamics, config, generator)
    return planner


Seen = TypeVar("Seen", covariant=True)


@runtime_checkable
class StateSource(Protocol[Seen]):
    """Tells how n environments stand, as states of some dynamics."""

    def reset(self, num_envs: int) -> None:
        """Starts anew with N environments."""

    def observe(self, observations: NDArray[Any], actions: NDArray[Any] | None) -> Seen:
        """Takes in what the environments show now.

        Args:
            observations: What the N environments show, (n, ...).
            actions: What has led there, (n,) or (n, d); None at the start.
        """


class PlannerAgent(Generic[State]):
    """Plans anew with every step, or, with ``action_repeat``, every so many steps.

    Args:
        planner: Finds the actions.
        source: Tells how the environments stand.
    """

    def __init__(self, planner: Planner[State], source: StateSource[State]) -> None:
        self.planner = planner
        self._source = source
        self._steps = 0
        self._actions: NDArray[Any] | None = None

    def reset(self, num_envs: int) -> None:
        """Starts anew with N environments."""
        self.planner.forget()
        self._source.reset(num_envs)
        self._steps, self._actions = 0, None

    def act(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Chooses the next actions: int64 (n,), or float32 (n, d)."""
        state = self._source.observe(observations, self._actions)
        if self._actions is None or self._steps % self.planner.action_repeat == 0:
            self._actions = np.asarray(self.planner.plan(state).actions.cpu().numpy())
        self._steps += 1
        return self._actions.copy()

"""Planners by their names, and an agent that plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray

from rnem_world.actions import ActionSpace
from rnem_world.agents.dynamics import Dynamics, State, StateSource
from rnem_world.agents.flat_monte_carlo import FlatMonteCarloConfig, FlatMonteCarloPlanner
from rnem_world.agents.mcts import MCTSConfig, MCTSPlanner
from rnem_world.agents.planner import Planner, PlannerConfig
from rnem_world.agents.sequence_planners import (
    CEMConfig,
    CEMPlanner,
    ICEMConfig,
    ICEMPlanner,
    MPPIConfig,
    MPPIPlanner,
    ShootingConfig,
    ShootingPlanner,
)
from rnem_world.config import build, parse_settings
from rnem_world.errors import ConfigError, suggest

PLANNERS: dict[str, tuple[type[PlannerConfig], Any]] = {
    "shooting": (ShootingConfig, ShootingPlanner),
    "cem": (CEMConfig, CEMPlanner),
    "icem": (ICEMConfig, ICEMPlanner),
    "mppi": (MPPIConfig, MPPIPlanner),
    "mcts": (MCTSConfig, MCTSPlanner),
    "flat-monte-carlo": (FlatMonteCarloConfig, FlatMonteCarloPlanner),
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
        options: As for `planner_config`.
        generator: Where chance comes from; on the device of the dynamics.

    Raises:
        ConfigError: As by `planner_config`, or if the planner can't act in this world.
    """
    planner: Planner[State] = PLANNERS[name][1](dynamics, planner_config(name, options), generator)
    return planner


def parse_planner(text: str) -> tuple[str, dict[str, Any]]:
    """Reads ``mcts:horizon=10,simulations=100``.

    Raises:
        ConfigError: If there is no such planner, or an option has no value.
    """
    name, _, rest = text.partition(":")
    if name not in PLANNERS:
        raise ConfigError(
            f"no planner {name!r}, and no folder of a policy of that name: {suggest(name, PLANNERS)}"
        )
    return name, parse_settings(filter(None, rest.split(",")), f"{text!r}:")


class PlannerAgent(Generic[State]):
    """Plans anew with every step, or, with ``action_repeat``, every so many steps.

    Args:
        planner: Finds the actions.
        source: Tells how the environments stand: `WatchedState.observe`, `dreamt_states` or `simulator_states`, say.
        actions: What the environments take; None for what the dynamics say, or if that is what the planner gives.
    """

    def __init__(
        self, planner: Planner[State], source: StateSource[State], actions: ActionSpace | None = None
    ) -> None:
        self.planner = planner
        self._source = source
        self._space = getattr(planner.dynamics, "actions", None) if actions is None else actions

    def reset(self, num_envs: int) -> None:
        """Starts anew with N environments."""
        self.planner.forget()
        self._steps = 0
        self._actions: NDArray[Any] | None = None
        self._done: NDArray[Any] | None = None
        self._begun = np.ones(num_envs, dtype=np.bool_)

    def restart(self, begun: Bool[np.ndarray, " n"]) -> None:
        """Forgets the plans of environments that have begun a new episode; a held action is held to its end."""
        self.planner.forget(torch.from_numpy(begun).to(self.planner.dynamics.device))
        self._begun |= begun

    def act(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Chooses the next actions, as the environments take them.

        Raises:
            ConfigError: If the source looks at another number of environments.
            DivergenceError: If the world that is planned in diverges.
        """
        state = self._source(observations, self._done, self._begun)
        watched = self.planner.dynamics.size(state)
        if watched != len(observations):
            raise ConfigError(
                f"{len(observations)} environments are played, and the planner looks at {watched}"
            )
        self._begun[:] = False
        if self._actions is None or self._steps % self.planner.config.action_repeat == 0:
            planned = np.asarray(self.planner.plan(state).actions.cpu().numpy())
            self._actions = planned if self._space is None else self._space.decode(planned)
        self._steps += 1
        self._done = self._actions
        return self._actions.copy()

    def tell(self, actions: NDArray[Any]) -> None:
        """Says what was done instead of what `act` chose, for whoever lets others act now and then."""
        self._done = actions

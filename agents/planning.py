"""Planners by their names, and an agent that plans."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Generic

import numpy as np
import torch
from numpy.typing import NDArray

from rnem_world.agents.dynamics import (
    Dynamics,
    State,
    StateSource,
)
from rnem_world.agents.mcts import MCTSConfig, MCTSPlanner
from rnem_world.agents.planner import Planner, PlannerConfig
from rnem_world.agents.sampling import (
    CEMConfig,
    CEMPlanner,
    ICEMConfig,
    ICEMPlanner,
    MPPIConfig,
    MPPIPlanner,
    ShootingConfig,
    ShootingPlanner,
)
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
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        option, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"{text!r}: {part!r} has no value, expected for example {name}:horizon=10")
        try:
            options[option] = json.loads(value.lower() if value in ("True", "False") else value)
        except ValueError:
            options[option] = value
    return name, options


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

"""rnem-world: learned worlds made of objects.

Importing this package registers its Gymnasium environments. What it offers is imported when it is used, and torch with
it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rnem_world.envs import register_environments
from rnem_world.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DependencyError,
    DivergenceError,
    OutputError,
    ProcessError,
    RnemWorldError,
    SimulationError,
    TrainingError,
)

if TYPE_CHECKING:
    from rnem_world.agents.collecting import collect
    from rnem_world.api import Trained, evaluate, roll_out
    from rnem_world.data.dataset import Dataset
    from rnem_world.envs.real import real_environment
    from rnem_world.envs.world import World
    from rnem_world.training.presets import paper_model, world_model
    from rnem_world.training.trainer import train

__version__ = "0.1.0"

_HOMES = {
    "Dataset": "rnem_world.data.dataset",
    "Trained": "rnem_world.api",
    "World": "rnem_world.envs.world",
    "collect": "rnem_world.agents.collecting",
    "evaluate": "rnem_world.api",
    "paper_model": "rnem_world.training.presets",
    "real_environment": "rnem_world.envs.real",
    "roll_out": "rnem_world.api",
    "train": "rnem_world.training.trainer",
    "world_model": "rnem_world.training.presets",
}
"""Where what this package offers lives."""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Dataset",
    "DependencyError",
    "DivergenceError",
    "OutputError",
    "ProcessError",
    "RnemWorldError",
    "SimulationError",
    "Trained",
    "TrainingError",
    "World",
    "__version__",
    "collect",
    "evaluate",
    "paper_model",
    "real_environment",
    "roll_out",
    "train",
    "world_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_environments()

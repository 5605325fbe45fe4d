"""rnem-world: learned worlds made of objects.

Importing this package registers its Gymnasium environments; torch is imported only when one is made.
"""

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
    TrainingError,
)

__version__ = "0.1.0"

__all__ = [
    # what may go wrong
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DependencyError",
    "DivergenceError",
    "OutputError",
    "ProcessError",
    "RnemWorldError",
    "TrainingError",
    "__version__",
]

register_environments()

"""The errors that users meet.

Every one of them is caused by something the user gave and can mend, and its message says what was given,
what was expected and how to mend it. The command line prints the message in one line and exits with 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RnemWorldError(Exception):
    """Base class of all errors that rnem-world raises about its input."""


class ConfigError(RnemWorldError, ValueError):
    """An option has a value that makes no sense, alone or beside another option."""


class DataError(RnemWorldError, ValueError):
    """A dataset is missing, broken, or not of the kind that was asked for."""


class CheckpointError(RnemWorldError, ValueError):
    """A checkpoint is missing, broken, or belongs to another model."""


class OutputError(RnemWorldError, OSError):
    """A result can't be written: no permission, no space, or something is in the way."""


class DependencyError(RnemWorldError, ImportError):
    """An optional library is not installed."""


class SimulationError(RnemWorldError, RuntimeError):
    """A real environment failed in the middle, or showed something else than it said that it would."""


class TrainingError(RnemWorldError, ArithmeticError):
    """Training ran into NaN or infinity and stopped."""


class DivergenceError(RnemWorldError, ArithmeticError):
    """A world's predictions are NaN or infinite."""


class ProcessError(RnemWorldError, RuntimeError):
    """Another process of the same training has ended before its time."""


def suggest(given: str, known: Iterable[str]) -> str:
    """Names the known words, the nearest first, for the end of an error message.

    Args:
        given: What the user wrote.
        known: The words that would have been right.

    Returns:
        A phrase such as ``did you mean 'stove'? Known: control, stove``.
    """
    words = sorted(known)
    nearest = difflib.get_close_matches(given, words, n=1, cutoff=0.5)
    listing = f"known: {', '.join(words)}"
    return f"did you mean {nearest[0]!r}? ({listing})" if nearest else listing

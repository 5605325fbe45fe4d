from __future__ import annotations

import inspect

import pytest

import rnem_world
from rnem_world import errors
from rnem_world.errors import RnemWorldError, suggest


def test_every_error_is_exported_and_of_one_family():
    kinds = {
        name: kind
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, Exception) and kind.__module__ == errors.__name__
    }
    assert len(kinds) == 10
    for name, kind in kinds.items():
        assert issubclass(kind, RnemWorldError)
        assert getattr(rnem_world, name) is kind
        assert str(kind("what, and how to mend it")) == "what, and how to mend it"


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.ConfigError, ValueError),
        (errors.DataError, ValueError),
        (errors.CheckpointError, ValueError),
        (errors.DivergenceError, ArithmeticError),
        (errors.ProcessError, RuntimeError),
        (errors.OutputError, OSError),
        (errors.DependencyError, ImportError),
        (errors.TrainingError, ArithmeticError),
        (errors.SimulationError, RuntimeError),
    ],
)
def test_callers_may_catch_pythons_own_kinds(kind, builtin):
    assert issubclass(kind, builtin)


def test_suggestions():
    assert suggest("stov", ["stove", "control"]) == "did you mean 'stove'? (known: control, stove)"
    assert suggest("zzzz", ["stove", "control"]) == "known: control, stove"
    assert suggest("x", []) == "known: "

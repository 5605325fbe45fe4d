from __future__ import annotations

import subprocess
import sys
from dataclasses import MISSING, dataclass, field, fields
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest

from rnem_world.config import build, check_above_zero, check_at_least, check_between, check_types
from rnem_world.data.collector import CollectorConfig
from rnem_world.data.loader import LoaderConfig
from rnem_world.data.windows import ImportConfig
from rnem_world.envs.recipe import EnvironmentRecipe
from rnem_world.errors import ConfigError
from rnem_world.physics import BallsConfig
from rnem_world.play.server import PlayOptions
from rnem_world.training.config import OptimizerConfig, TrainingConfig


@dataclass(frozen=True)
class Inner:
    rate: float = 1.0
    count: int = 2

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class Outer:
    name: str = "x"
    flag: bool = False
    kind: Literal["a", "b"] = "a"
    limit: int | None = 3
    mixed: Literal["all", "last"] | tuple[float, ...] = "all"
    epochs: tuple[int, ...] = (1,)
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.name == "refused":
            raise ConfigError("name is 'refused'")
        check_types(self)


def test_values_of_every_kind():
    values: dict[str, Any] = {
        "name": "y",
        "flag": True,
        "kind": "b",
        "limit": None,
        "mixed": [1, 2.5],
        "epochs": [3, 4],
        "inner": {"rate": 2},
    }
    built = build(Outer, values)
    assert built == Outer("y", True, "b", None, (1.0, 2.5), (3, 4), Inner(2.0, 2))
    assert isinstance(built.inner.rate, float)
    assert build(Outer, {}) == Outer()
    assert build(Outer, {"inner": Inner(3.0)}).inner == Inner(3.0)
    assert build(Outer, {"mixed": "last"}).mixed == "last"


def test_yaml_reads_1e_3_as_text():
    assert build(Inner, {"rate": "1e-3"}).rate == 1e-3
    assert build(Inner, {"rate": "-2.5E+2"}).rate == -250.0


def given(kind: type, **values: Any) -> Any:
    """Makes options as users do, whose calls nobody checks as those of the tests are."""
    options: Any = object.__new__(kind)
    for each in fields(kind):
        made = None if each.default_factory is MISSING else each.default_factory()
        usual = made if each.default is MISSING else each.default
        object.__setattr__(options, each.name, values.get(each.name, usual))
    options.__post_init__()
    return options


def test_what_python_takes_for_a_number_or_a_tuple_is_one():
    given(Inner, rate=np.float32(0.5), count=np.int64(3))
    given(Outer, epochs=[1, 2], mixed=[np.float64(0.5), 1], inner=Inner(2.0))
    assert given(EnvironmentRecipe, size=[np.int64(24), 48]).size == [24, 48]


@pytest.mark.parametrize("check", [check_at_least, check_between, check_above_zero])
@pytest.mark.parametrize("value", ["3", (3,), True])
def test_what_is_no_number_is_refused_where_one_is_compared(check, value):
    bounds = {check_at_least: (1,), check_between: (1, 4), check_above_zero: ()}[check]
    with pytest.raises(ConfigError, match=r"rate is .*, a number was expected"):
        check(SimpleNamespace(rate=value), *bounds, "rate")


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (
            EnvironmentRecipe,
            {"size": "24x48"},
            r"size is '24x48', expected a height and .* as in \(24, 48\)",
        ),
        (EnvironmentRecipe, {"size": (24, 4.5)}, r"size is \(24, 4.5\), expected a height"),
        (EnvironmentRecipe, {"size": 48}, "size is 48, expected a height"),
        (
            EnvironmentRecipe,
            {"crop": (0, 3, 0, 3)},
            r"crop is \(0, 3, 0, 3\), expected a text .*'34:194,:'",
        ),
        (EnvironmentRecipe, {"id": 3}, "id is 3, a value of type str"),
        (EnvironmentRecipe, {"grayscale": "yes"}, "grayscale is 'yes', a value of type bool"),
        (EnvironmentRecipe, {"frame_skip": "4"}, "frame_skip is '4', a"),
        (EnvironmentRecipe, {"threshold": "127"}, "threshold is '127', a"),
        (
            EnvironmentRecipe,
            {"picture_shape": "36x64"},
            r"picture_shape .* tuple\[int, \.\.\.\] was",
        ),
        (
            EnvironmentRecipe,
            {"wrappers": "TimeLimit"},
            "'TimeLimit' is among the wrappers, expected mapp",
        ),
        (
            CollectorConfig,
            {"num_train": "9", "num_valid": 0, "num_test": 0},
            "num_train is '9', a value of type int",
        ),
        (
            CollectorConfig,
            {"num_train": 9, "num_valid": 0, "num_test": 0, "streams": "no"},
            "streams is 'no', a value of type bool",
        ),
        (
            LoaderConfig,
            {"batch_size": "4", "number_of_frames": 8},
            "batch_size is '4', a value of type int",
        ),
        (ImportConfig, {"size": "48"}, r"size is '48', a value of type tuple\[int, int\]"),
        (ImportConfig, {"ratio": 1}, "ratio is 1, a value of type .*Sequence"),
        (
            BallsConfig,
            {"numbers_of_balls": 4},
            r"numbers_of_balls is 4, a value of type tuple\[int",
        ),
        (PlayOptions, {"port": "80"}, "port is '80', a value of type int"),
        (TrainingConfig, {"batch_size": "4"}, "batch_size is '4', a value of type int"),
        (TrainingConfig, {"train_only": "heads"}, r"train_only is 'heads', a value of type tuple\[str"),
        (TrainingConfig, {"train_only": ""}, r"train_only is '', a value of type tuple\[str"),
        (TrainingConfig, {"save_epochs": "15"}, r"save_epochs is '15', a value of type tuple\[int"),
        (OptimizerConfig, {"momentum": 0.9, "clip_factor": "2"}, "clip_factor is '2', a number was expected"),
    ],
)
def test_values_of_another_type_are_refused_in_one_line(kind, values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        given(kind, **values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"nam": "x"}, ["unknown option 'nam'", "did you mean 'name'"]),
        ({"inner": {"rates": 1}}, ["unknown option 'inner.rates'", "did you mean 'rate'"]),
        ({"inner": {"rate": "fast"}}, ["inner.rate is 'fast'", "float"]),
        ({"inner": {"count": 1.5}}, ["inner.count is 1.5", "int"]),
        ({"inner": {"count": True}}, ["inner.count is True", "int"]),
        ({"inner": {"rate": False}}, ["inner.rate is False", "float"]),
        ({"inner": 5}, ["inner: 5", "a mapping"]),
        ({"name": 3}, ["name is 3", "str"]),
        ({"flag": "yes"}, ["flag is 'yes'", "bool"]),
        ({"kind": "c"}, ["kind is 'c'", "known: a, b"]),
        ({"kind": ["a"]}, ["kind is ['a']", "known: a, b"]),
        ({"limit": "many"}, ["limit is 'many'", "int"]),
        ({"mixed": "lst"}, ["mixed is 'lst'", "did you mean 'last'", "tuple"]),
        ({"mixed": [1, "x"]}, ["mixed[1] is 'x'", "float"]),
        ({"epochs": 3}, ["epochs is 3", "tuple"]),
        ({"name": "refused"}, ["name is 'refused'"]),
        ([1], ["the options: [1]", "a mapping"]),
        ({3: 4}, ["unknown option '3'"]),
    ],
)
def test_what_is_wrong_is_named_in_one_line(values, parts):
    with pytest.raises(ConfigError) as error:
        build(Outer, values)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_a_text_is_no_list_of_names():
    # In a process of its own: here jaxtyping would refuse it before we do.
    program = (
        "from rnem_world.agents.config import ContestConfig\n"
        "from rnem_world.errors import ConfigError\n"
        "try:\n    ContestConfig(agents='mcts')\nexcept ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("agents is 'mcts'")

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from rnem_world.config import build
from rnem_world.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float = 1.0
    count: int = 2


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

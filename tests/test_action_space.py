"""Spaces of actions: from Gymnasium's to plain numbers and back, without loss."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from rnem_world.actions import ActionSpace
from rnem_world.errors import ConfigError

SPACES = [
    spaces.Discrete(3),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 0], [0, 2]]),
    spaces.MultiBinary(3),
    spaces.MultiBinary([2, 2]),
    spaces.Box(-1, 1, (2,)),
    spaces.Box(np.float32([-1, 0]), np.float32([1, 5])),
    spaces.Box(-np.inf, np.inf, (2, 3)),
    spaces.Box(0.0, np.inf, (1,), np.float64),
    spaces.Box(0, 255, (2,), np.uint8),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_space_and_its_actions_come_back_as_they_were(space):
    known = ActionSpace.of(space)
    assert known.space() == space
    assert ActionSpace.from_json(json.loads(json.dumps(known.to_json()))) == known
    space.seed(0)
    actions = np.stack([space.sample() for _ in range(50)])
    stored = known.encode(actions)
    assert stored.shape == (50, *known.stored_shape)
    assert stored.dtype == known.stored_dtype
    if known.kind != "box":
        assert stored.min() == 0  # stored numbers count from 0
        assert (
            stored.max(axis=0) == np.array(known.sizes if known.stored_shape else known.sizes[0]) - 1
        ).all()
    back = known.decode(stored)
    assert back.dtype == actions.dtype
    np.testing.assert_allclose(back, actions, rtol=1e-6)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2))
def test_real_numbers_are_brought_within_the_bounds(values):
    known = ActionSpace.of(spaces.Box(np.float32([-1, 0]), np.float32([1, 5])))
    action = known.decode(np.float32([values]))[0]
    assert known.space().contains(action)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Dict(a=spaces.Discrete(2)), "expected Discrete, MultiDiscrete, MultiBinary, Box"),
        (spaces.Text(3), "expected Discrete"),
        (spaces.Box(-1, 1, (0,)), "expected Discrete"),
    ],
    ids=str,
)
def test_other_spaces_are_refused(space, message):
    with pytest.raises(ConfigError, match=message):
        ActionSpace.of(space)


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "discrete"},
        {"kind": "discrete", "sizes": (0,)},
        {"kind": "discrete", "sizes": (3,), "shape": (1,)},
        {"kind": "multi_binary", "sizes": (3,), "shape": (1,)},
        {"kind": "multi_discrete", "sizes": (3, 2), "shape": (3,)},
        {"kind": "box", "low": (0.0,), "high": (0.0,), "shape": (1,)},
        {"kind": "box", "low": (0.0,), "high": (1.0, 2.0), "shape": (1,)},
        {"kind": "box", "low": (0.0,), "high": (1.0,), "sizes": (2,), "shape": (1,)},
        {"kind": "discrete", "sizes": (3,), "dtype": "colour"},
        {"kind": "circle", "sizes": (3,)},
        {"kind": "discrete", "sizes": "three"},
        {"kind": "discrete", "size": (3,)},
    ],
    ids=str,
)
def test_contradictions_are_refused(values):
    with pytest.raises(ConfigError):
        ActionSpace.from_json(values)

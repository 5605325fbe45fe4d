"""Commands: what is read of them, and what is refused."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from rnem_world.errors import ConfigError
from rnem_world.play import messages
from rnem_world.play.messages import read_action, read_command

FRAME, NINE = (32, 48, 1), spaces.Discrete(9)


def read(text: str) -> messages.Command:
    return read_command(text, 5, FRAME, NINE)


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ('{"type": "play", "on": true}', messages.Play(True)),
        ('{"type": "begin"}', messages.Begin()),
        ('{"type": "begin", "seed": 7}', messages.Begin(7)),
        ('{"type": "place", "slot": 4, "x": 48, "y": 32.0}', messages.Place(4, 48.0, 32.0)),
        ('{"type": "remove", "slot": 0, "lane": "branch"}', messages.Remove(0, "branch")),
    ],
)
def test_commands_are_read(text, command):
    assert read(text) == command


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "3",
        "null",
        '"play"',
        "{}",
        '{"type": 3}',
        '{"type": "sudo"}',
        '{"type": "play"}',
        '{"type": "play", "on": 1}',
        '{"type": "play", "on": true, "more": 1}',
        '{"type": "remove", "slot": 5}',
        '{"type": "remove", "slot": -1}',
        '{"type": "remove", "slot": true}',
        '{"type": "remove", "slot": 0, "lane": "real"}',
        '{"type": "exchange", "first": 0, "second": 9}',
        '{"type": "place", "slot": 0, "x": 48.1, "y": 0}',
        '{"type": "place", "slot": 0, "x": NaN, "y": 0}',
        '{"type": "place", "slot": 0, "x": 1e999, "y": 0}',
        '{"type": "speed", "fps": 7}',
        '{"type": "speed", "fps": 0}',
        '{"type": "keep", "number": 1000000}',
        '{"type": "begin", "seed": -1}',
        '{"type": "act", "action": 9}',
        '{"type": "act", "action": -1}',
        '{"type": "act", "action": 1.0}',
        '{"type": "act", "action": true}',
        '{"type": "act", "action": [1]}',
        '{"type": "act", "action": null}',
    ],
)
def test_anything_else_is_refused_as_ours(text):
    with pytest.raises(ConfigError):
        read(text)


def test_nesting_is_refused_and_not_followed():
    text = '{"type": "act", "action": ' + "[" * 2000 + "]" * 2000 + "}"
    with pytest.raises(ConfigError):
        read(text)


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=8,
    ),
    st.sampled_from(["act", "seek", "place", "seen", "real"]),
)
def test_no_json_raises_anything_else(value, kind):
    names = {"act": "action", "seek": "time", "place": "x", "seen": "picture", "real": "on"}
    for message in (value, {"type": kind, names[kind]: value}):
        with contextlib.suppress(ConfigError):
            read(json.dumps(message))


def test_actions_of_every_kind():
    box = spaces.Box(np.float32([-1, 0]), np.float32([1, 2]))
    np.testing.assert_array_equal(read_action([0.5, 9], box), np.float32([0.5, 2]))
    assert read_action([0.5, 9], box).dtype == np.float32
    np.testing.assert_array_equal(read_action([1, 2], spaces.MultiDiscrete([2, 3])), [1, 2])
    np.testing.assert_array_equal(read_action([1, 0, 1], spaces.MultiBinary(3)), [1, 0, 1])
    for space, wrong in (
        (box, [0.5]),
        (box, 0.5),
        (spaces.MultiDiscrete([2, 3]), [2, 0]),
        (spaces.MultiBinary(3), [0, 0, 2]),
        (spaces.Discrete(3), 2**40),
    ):
        with pytest.raises(ConfigError):
            read_action(wrong, space)

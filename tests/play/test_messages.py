"""Commands: what is read of them, and what is refused."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnem_world.actions import ActionSpace
from rnem_world.errors import ConfigError
from rnem_world.play import messages
from rnem_world.play.messages import read_action, read_command
from rnem_world.play.visit import nothing

FRAME, NINE = (32, 48, 1), ActionSpace.discrete(9)


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


BOX = ActionSpace("box", low=(-1.0, None), high=(1.0, 2.0), shape=(2,), dtype="float32")
SEVERAL = ActionSpace("multi_discrete", (2, 3), starts=(5, 5), shape=(2,))
BITS = ActionSpace("multi_binary", (2, 2, 2), shape=(3,), dtype="int8")


def test_actions_of_every_kind():
    np.testing.assert_array_equal(read_action([0.5, 9], BOX), np.float32([0.5, 2]))
    np.testing.assert_array_equal(read_action([-7, -9], BOX), np.float32([-1, -9]))
    assert read_action([0.5, 9], BOX).dtype == np.float32
    np.testing.assert_array_equal(read_action([1, 2], SEVERAL), [1, 2])
    np.testing.assert_array_equal(read_action([1, 0, 1], BITS), [1, 0, 1])
    for known, wrong in (
        (BOX, [0.5]),
        (BOX, 0.5),
        (BOX, [float("inf"), 0]),
        (BOX, [True, 0]),
        (SEVERAL, [2, 0]),
        (SEVERAL, [5, 5]),
        (BITS, [0, 0, 2]),
        (NINE, 2**40),
    ):
        with pytest.raises(ConfigError):
            read_action(wrong, known)


@pytest.mark.parametrize("known", [BOX, SEVERAL, BITS, NINE], ids=lambda known: known.kind)
def test_nothing_is_an_action_of_every_kind(known):
    action = nothing(known)
    assert action.shape == known.stored_shape
    assert not action.any()


def test_nothing_is_within_bounds():
    above = ActionSpace("box", low=(2.0,), high=(3.0,), shape=(1,), dtype="float32")
    np.testing.assert_array_equal(nothing(above), np.float32([2.0]))

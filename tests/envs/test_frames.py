"""From what an environment shows to frames: what is a picture, which axes it has, and what is done to it."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from rnem_world.envs.frames import (
    FrameMaker,
    from_text,
    kind_of_picture,
    layout_of,
    picture_space,
    resized,
    to_picture,
    to_text,
    usual_size,
)
from rnem_world.envs.recipe import EnvironmentRecipe, parse_size
from rnem_world.errors import ConfigError, DataError, SimulationError

BYTES = spaces.Box(0, 255, (20, 30, 3), np.uint8)
CODES = spaces.Box(0, 255, (7, 7, 3), np.uint8)
STATE = spaces.Box(-1.0, 1.0, (4,), np.float32)


def maker(pixels="bytes", shape=(4, 6, 3), **options):
    return FrameMaker(EnvironmentRecipe("X-v0", pixels=pixels, picture_shape=shape, **options))


@pytest.mark.parametrize(
    ("space", "kind"),
    [
        (BYTES, "bytes"),
        (spaces.Box(0.0, 255.0, (8, 8, 3), np.float32), "bytes"),
        (spaces.Box(0.0, 1.0, (8, 8), np.float64), "units"),
        (spaces.Box(0, 1, (10, 10, 4), np.bool_), "bits"),
        (spaces.Box(0, 1, (10, 10, 4), np.int64), "bits"),
        (spaces.MultiBinary([5, 5, 5]), "bits"),
        (spaces.MultiBinary(5), None),
        (spaces.Box(0, 10, (8, 8, 3), np.uint8), None),
        (spaces.Box(-1.0, 1.0, (8, 8, 3), np.float32), None),
        (STATE, None),
        (spaces.Discrete(5), None),
        (spaces.Text(5), None),
    ],
)
def test_pictures_are_told_by_their_space(space, kind):
    assert kind_of_picture(space) == kind


def test_the_picture_is_found_among_observations():
    both = spaces.Dict({"image": BYTES, "state": STATE})
    assert picture_space(BYTES, None, "auto") == (None, "bytes")
    assert picture_space(both, None, "auto") == ("image", "bytes")
    assert picture_space(both, "image", "auto") == ("image", "bytes")
    assert picture_space(STATE, None, "auto") is None
    # Small bytes are codes, as MiniGrid's, unless the user says otherwise.
    coded = spaces.Dict({"image": CODES, "state": STATE})
    assert picture_space(coded, None, "auto") is None
    assert picture_space(coded, None, "observation") == ("image", "bytes")
    assert picture_space(coded, "image", "auto") == ("image", "bytes")
    with pytest.raises(ConfigError, match=r"'a', 'b'.*--obs-key"):
        picture_space(spaces.Dict({"a": BYTES, "b": BYTES}), None, "auto")
    with pytest.raises(ConfigError, match=r"no entry 'imge': did you mean 'image'"):
        picture_space(both, "imge", "auto")
    with pytest.raises(ConfigError, match=r"'state' is Box.*expected a picture"):
        picture_space(both, "state", "auto")
    with pytest.raises(ConfigError, match="no dictionary"):
        picture_space(BYTES, "image", "auto")


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((84, 84), "HW"), ((84, 84, 3), "HWC"), ((3, 84, 84), "CHW"), ((5, 5, 5), "HWC"), ((10, 10, 4), "HWC")],
)
def test_channels_are_the_fewest(shape, layout):
    assert layout_of(shape) == layout


def test_all_layouts_and_numbers_give_the_same_frame():
    frame = np.random.default_rng(0).integers(256, size=(4, 6, 3)).astype(np.uint8)
    assert np.array_equal(maker()(frame), frame)
    moved = np.ascontiguousarray(frame.transpose(2, 0, 1))
    assert np.array_equal(maker(shape=(3, 4, 6))(moved), frame)
    assert np.array_equal(maker("units")((frame / 255.0).astype(np.float32)), frame)
    assert np.array_equal(maker("bytes")(frame.astype(np.float64)), frame)
    assert np.array_equal(maker("bytes", (4, 6))(frame[..., 0]), frame[..., :1])
    bits = frame > 127
    for given_bits in (bits, bits.astype(np.int8), bits.astype(np.float32)):
        assert np.array_equal(maker("bits")(given_bits), bits * np.uint8(255))


def test_what_is_cut_off_is_gone_and_areas_are_averaged():
    picture = np.zeros((8, 12, 3), np.uint8)
    picture[2:6, 4:8] = 100
    frame = maker(shape=(8, 12, 3), crop="2:6,4:", size=(2, 4))(picture)
    assert frame[..., 0].tolist() == [[100, 100, 0, 0]] * 2
    picture[:, 3:9] = picture[:, 5:6]
    less = maker(shape=(8, 12, 3), size=(2, 4))(picture)  # a mean of 4 x 3 pixels each
    assert less[..., 0].tolist() == [[0, 50, 50, 0]] * 2
    many = maker("bytes", (8, 12, 5), size=(2, 4))(picture[..., [0, 0, 1, 1, 2]])
    assert np.array_equal(many, less[..., [0, 0, 1, 1, 2]])


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3, 4])
)
def test_resizing_keeps_the_mean_of_whole_areas_and_constants(height, width, rows, columns, channels):
    constant = np.full((height, width, channels), 77, np.uint8)
    assert (resized(constant, (rows, columns)) == 77).all()
    assert resized(constant, (rows, columns)).shape == (rows, columns, channels)


def test_greys_and_thresholds():
    picture = np.zeros((1, 4, 3), np.uint8)
    picture[0] = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    assert maker(shape=(1, 4, 3), layout="HWC", grayscale=True)(picture)[0, :, 0].tolist() == [
        76,
        150,
        29,
        255,
    ]
    frame = maker(shape=(1, 4, 3), layout="HWC", binarise="threshold", threshold=100)(picture)
    assert frame.shape == (1, 4, 1)
    assert frame.ravel().tolist() == [0, 255, 0, 255]


def test_what_differs_from_the_background_is_on():
    background = np.array([[[3], [9]]], np.uint8)
    text = to_text(background)
    assert np.array_equal(from_text(text, (1, 2)), background)
    frame = maker(shape=(1, 2), binarise="background", background=text, size=(1, 2))(
        np.array([[3, 8]], np.uint8)
    )
    assert frame.ravel().tolist() == [0, 255]
    for wrong in (text, "no picture", ""):
        if wrong:
            with pytest.raises(DataError, match="background"):
                from_text(wrong, (5, 5))


@pytest.mark.parametrize(
    ("make", "picture", "message"),
    [
        (maker, np.zeros((4, 7, 3), np.uint8), r"\(4, 7, 3\).*\(4, 6, 3\).*keep their size"),
        (lambda: maker("units"), np.full((4, 6, 3), np.nan, np.float32), "NaN"),
        (lambda: maker("units"), np.full((4, 6, 3), 1.5, np.float32), "1.5 to 1.5, expected 0 to 1"),
        (lambda: maker("bytes"), np.full((4, 6, 3), 256, np.int64), "256 to 256, expected 0 to 255"),
        (lambda: maker("bytes"), np.full((4, 6, 3), -1, np.int64), "-1 to -1"),
        (maker, None, "shape"),
    ],
)
def test_pictures_that_break_their_word_are_refused(make, picture, message):
    with pytest.raises(SimulationError, match=message):
        make()(picture)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "2:9,:"}, "4 rows and 6 columns"),
        ({"crop": "3:3,:"}, "nothing would be left"),
        ({"layout": "HW"}, "the layout is HW"),
        ({"shape": (6, 6, 5), "grayscale": True}, "5 channels"),
        ({"shape": (6, 6, 5), "binarise": "threshold"}, "5 channels"),
    ],
)
def test_frames_that_cannot_be_made_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        maker(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": "drawn"}, "frames is 'drawn'"),
        ({"layout": "WHC"}, "layout is"),
        ({"binarise": "otsu"}, "binarise is"),
        ({"crop": "34-194"}, "34:194,0:160"),
        ({"size": (0, 3)}, "at least 1 pixel"),
        ({"size": (3,)}, "height and a width"),
        ({"threshold": 255}, "0 to 254"),
        ({"frame_skip": 0}, "frame_skip is 0"),
        ({"max_episode_steps": 0}, "max_episode_steps is 0"),
        ({"options": [1]}, "names and values"),
        ({"colour": 1}, "unknown option 'recipe.colour'"),
        ({"obs_key": "a", "frames": "render"}, "leave one out"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        EnvironmentRecipe.from_json({"id": "X-v0", **options})


def test_sizes_are_read_as_people_write_them():
    assert parse_size("48") == (48, 48)
    assert parse_size("36x64") == (36, 64)
    for wrong in ("", "0", "48x", "x48", "48x0", "4.5", "-3", "48,64"):
        with pytest.raises(ConfigError, match="36x64"):
            parse_size(wrong)
    assert usual_size(10, 10, "observation") == (10, 10)
    assert usual_size(210, 160, "observation") == (64, 64)
    assert usual_size(400, 600, "render") == (48, 48)


def test_people_see_every_channel():
    frame = np.zeros((2, 3, 4), np.uint8)
    for channel in range(3):
        frame[0, channel, channel] = 255
    picture = to_picture(frame, 64)
    assert picture.shape == (64, 96, 3)
    seen = {tuple(picture[10, 10 + 32 * column]) for column in range(3)} | {tuple(picture[50, 10])}
    assert len(seen) == 4
    assert tuple(picture[50, 10]) == (0, 0, 0)
    assert to_picture(frame[..., :1], 1).shape == (2, 3, 3)

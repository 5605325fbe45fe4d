"""Balls in colours: the same sequences as in black and white."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rnem_world.agents.collecting import collect
from rnem_world.benchmarks.coloured import colour, draw
from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import DatasetAttributes, EpisodeBatch
from rnem_world.data.writer import write_shard
from rnem_world.errors import DataError


def test_discs_cover_their_area_in_their_colour():
    texture = np.zeros((32, 32, 3), np.float32)
    centres = np.array([[[[10.3, 20.8]]], [[[15.0, 16.5]]]])
    frames = draw(centres, 4.0, np.float32([[[1.0, 0.5, 0.0]]]), texture)
    np.testing.assert_allclose(frames[..., 0].sum(axis=(2, 3)) / 255.0, math.pi * 4.0**2, rtol=0.02)
    assert frames[0, 0, 20, 10].tolist() == [255, 128, 0]  # down, then across
    assert (frames[0, 0, :10] == 0).all()


def test_all_but_the_frames_is_as_it_was(tmp_path):
    plain = collect(
        "balls", preset="avoid", num_train=3, num_valid=2, num_test=0, frames=6, out=tmp_path / "a.h5"
    )
    colour(plain, tmp_path / "b.h5")
    with Dataset.open(plain) as before, Dataset.open(tmp_path / "b.h5") as after:
        names = [name for name in before.info("training").arrays if name not in ("features", "collisions")]
        mine, theirs = (dataset.read("training", range(3), names) for dataset in (before, after))
        for name in names:
            np.testing.assert_array_equal(mine[name], theirs[name])
        groups = before.read("training", range(3), ("groups",))["groups"]
        frames = after.read("training", range(3), ("features",))["features"]
        assert after.attributes.maximum_value == 255
    assert frames.shape == (6, 3, 32, 32, 3)
    # Where a ball is it is bright in some channel, where none is it isn't.
    brightest = frames.max(axis=-1, keepdims=True)
    assert brightest[groups > 0].mean() > 170
    assert np.quantile(brightest[groups == 0], 0.9) < 130


def test_data_without_balls_is_refused(tmp_path):
    frames = np.zeros((2, 1, 8, 8, 1), np.uint8)
    write_shard(tmp_path / "a.h5", {"training": EpisodeBatch(frames)}, DatasetAttributes())
    with pytest.raises(DataError, match="how large its balls are"):
        colour(tmp_path / "a.h5", tmp_path / "b.h5")

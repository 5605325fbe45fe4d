from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rnem_world.physics import (
    PRESETS,
    BallsConfig,
    BallsState,
    collision_mask,
    preset,
    rasterise,
    sample_state,
    under_curtain,
)


def drawn_slowly(state: BallsState, rules: BallsConfig, index: int) -> np.ndarray:
    """Pixel by pixel and ball by ball, as the definition says."""
    size = rules.image_size
    frame = np.zeros((size, size), dtype=np.uint8)
    for row in range(size):
        for column in range(size):
            centre = (np.array([column, row]) + 0.5) * rules.box_size / size
            for ball in range(state.radii.shape[1]):
                distance = np.linalg.norm(centre - state.positions[index, ball])
                hole = 0.5 * state.radii[index, ball] if rules.player and ball == 0 else 0.0
                if state.present[index, ball] and hole <= distance <= state.radii[index, ball]:
                    frame[row, column] = ball + 1
            top, left = state.curtain[index]
            side = rules.curtain_size
            if top <= row < top + side and left <= column < left + side:
                frame[row, column] = 0
    return frame


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_frames_are_those_of_the_definition(name):
    rules = preset(name)
    state = sample_state(rules, [np.random.default_rng(seed) for seed in range(5)])
    groups = rasterise(state, rules)
    for index in (0, 4):
        np.testing.assert_array_equal(groups[index], drawn_slowly(state, rules, index))


def test_later_balls_cover_earlier_ones():
    rules = replace(preset("balls3small32"), numbers_of_balls=(2,))
    state = sample_state(rules, [np.random.default_rng(0)])
    state.positions[:] = [[5.0, 5.0], [5.5, 5.0]]
    groups = rasterise(state, rules)[0]
    np.testing.assert_array_equal(groups, drawn_slowly(state, rules, 0))
    assert groups[16, 17] == 2
    assert groups[16, 12] == 1


def test_balls_in_the_corners_are_drawn_whole():
    rules = replace(preset("balls4mass64"), numbers_of_balls=(2,), kinds=((1.0, 1.0),))
    state = sample_state(rules, [np.random.default_rng(0)])
    state.positions[:] = [[1.0, 1.0], [9.0, 9.0]]
    groups = rasterise(state, rules)[0]
    np.testing.assert_array_equal(groups[::-1, ::-1] == 2, groups == 1)
    assert (groups == 1).sum() == pytest.approx(np.pi * 6.4**2, rel=0.05)


@pytest.mark.parametrize("name", ["control", "stove"])
def test_the_player_is_a_ring_with_a_visible_hole(name):
    rules = replace(preset(name), numbers_of_balls=(1,))
    generators = [np.random.default_rng(seed) for seed in range(50)]
    state = sample_state(rules, generators)
    groups = rasterise(state, rules)
    pixel = rules.box_size / rules.image_size
    centre = np.floor(state.positions[:, 0] / pixel).astype(int)
    assert (groups[np.arange(50), centre[:, 1], centre[:, 0]] == 0).all()
    assert ((groups == 1).sum(axis=(1, 2)) > 15).all()


def test_the_curtain_hides_frames_and_collisions_and_may_be_anywhere():
    rules = preset("balls3curtain64")
    state = sample_state(rules, [np.random.default_rng(seed) for seed in range(300)])
    hidden = under_curtain(state, rules)
    assert (hidden.sum(axis=(1, 2)) == 28 * 28).all()
    assert state.curtain.min() == 0
    assert state.curtain.max() == 64 - 28
    groups = rasterise(state, rules)
    bare = rasterise(state, replace(rules, curtain_size=0))
    assert (bare[hidden] > 0).any()
    assert (groups[hidden] == 0).all()
    np.testing.assert_array_equal(groups[~hidden], bare[~hidden])
    mask = collision_mask(groups, np.ones((300, 3), dtype=bool))
    assert (mask[hidden] == 0).all()


def test_the_collision_mask_marks_the_balls_that_touch():
    rules = preset("balls4mass64")
    state = sample_state(rules, [np.random.default_rng(seed) for seed in range(3)])
    groups = rasterise(state, rules)
    touching = np.array([[True, False, True, False], [False] * 4, [False, False, False, True]])
    mask = collision_mask(groups, touching)
    np.testing.assert_array_equal(mask[0], (groups[0] == 1) | (groups[0] == 3))
    assert not mask[1].any()
    np.testing.assert_array_equal(mask[2], groups[2] == 4)

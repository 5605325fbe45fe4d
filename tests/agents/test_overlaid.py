"""Films of dream and reality in one picture."""

from __future__ import annotations

import numpy as np
import pytest

from rnem_world.agents.scores import overlaid

RED, BLUE = 0, 2


@pytest.mark.parametrize(("ground", "thing"), [(0, 255), (255, 0), (230, 90)])
def test_what_is_only_real_is_red_and_what_is_only_dreamt_is_blue(ground, thing):
    real, dreamt = np.full((2, 3, 8, 8, 1), ground, np.uint8)
    real[:, 1, :3] = dreamt[:, 1, 1:4] = thing
    both = overlaid(real, dreamt)
    assert both.shape == (3, 8, 8, 3)
    assert both.dtype == np.uint8
    only_real, only_dreamt = both[:, 1, 0], both[:, 1, 3]
    assert (only_real.argmax(axis=-1) == RED).all()
    assert (only_dreamt.argmax(axis=-1) == BLUE).all()
    assert (np.sort(only_real, axis=-1)[:, :2] < only_real.max()).all()
    assert (both[:, 1, 1:3] == thing).all()
    assert (both[:, 2:] == ground).all()

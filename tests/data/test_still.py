"""Which actions leave the picture as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rnem_world.actions import ActionSpace
from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import DatasetAttributes, EpisodeBatch
from rnem_world.data.still import still_actions
from rnem_world.data.writer import write_shard

T, N = 12, 30
WIDTH = 40


def write(
    path: Path, actions: np.ndarray, moves: np.ndarray, space: ActionSpace, is_first: np.ndarray | None = None
) -> Dataset:
    """A dot that each action moves by so many pixels, and another one that hops about by itself."""
    place = np.concatenate([np.zeros((1, N), int), np.cumsum(moves[:-1], axis=0)]) % WIDTH
    features = np.zeros((T, N, 2, WIDTH, 1), np.uint8)
    step, sequence = np.indices((T, N))
    features[step, sequence, 0, place] = 1
    hops = np.random.default_rng(1).integers(WIDTH, size=(T, N))
    features[step, sequence, 1, hops] = 1
    arrays = {"actions": actions, "features": features}
    if is_first is not None:
        arrays["is_first"] = is_first
    number = space.sizes[0] if space.is_discrete else None
    attributes = DatasetAttributes("test", number_of_actions=number, action_space=space)
    write_shard(path, {"training": EpisodeBatch(**arrays)}, attributes)
    return Dataset.open(path)


def drawn(*shape: int, high: int) -> np.ndarray:
    return np.random.default_rng(0).integers(high, size=shape)


@pytest.mark.parametrize("still", [0, 2])
def test_the_action_that_moves_nothing_is_found(tmp_path, still):
    actions = drawn(T, N, high=4)
    moves = np.where(actions == still, 0, actions + 1)
    assert still_actions(write(tmp_path / "a.h5", actions, moves, ActionSpace.discrete(4))) == (still,)


def test_where_each_moves_something_none_is(tmp_path):
    actions = drawn(T, N, high=2)
    assert still_actions(write(tmp_path / "a.h5", actions, 2 * actions - 1, ActionSpace.discrete(2))) == (-1,)


def test_what_leads_to_the_first_frame_of_an_episode_does_not_count(tmp_path):
    actions = drawn(T, N, high=2)
    is_first = np.zeros((T, N), bool)
    is_first[0] = True
    is_first[1:] = actions[:-1] == 0  # each action 0 ends an episode, whose next frame is elsewhere
    is_first[1:, ::3] = False
    moves = np.where(actions == 0, 0, 1)
    moves[:, np.arange(N) % 3 > 0] = np.where(actions[:, np.arange(N) % 3 > 0] == 0, 7, 1)
    dataset = write(tmp_path / "a.h5", actions, moves, ActionSpace.discrete(2), is_first)
    assert still_actions(dataset) == (0,)


def test_of_several_that_move_nothing_the_first_is_taken(tmp_path):
    actions = drawn(T, N, high=4)
    moves = np.array([3, 0, 0, 9])[actions]
    assert still_actions(write(tmp_path / "a.h5", actions, moves, ActionSpace.discrete(4))) == (1,)


def test_each_number_of_an_action_has_its_own(tmp_path):
    actions = np.stack([drawn(T, N, high=3), drawn(T * N, high=3).reshape(N, T).T], axis=-1)
    moves = 5 * (actions[..., 0] != 1)  # the second number does nothing
    space = ActionSpace("multi_discrete", (3, 3), shape=(2,))
    assert still_actions(write(tmp_path / "a.h5", actions, moves, space)) == (1, -1)


def test_values_that_never_occur_leave_it_open(tmp_path):
    actions = drawn(T, N, high=2)
    assert still_actions(write(tmp_path / "a.h5", actions, actions, ActionSpace.discrete(3))) == (-1,)


def test_real_numbers_have_their_zero(tmp_path):
    actions = np.random.default_rng(0).random((T, N, 1)).astype(np.float32)
    space = ActionSpace("box", low=(0.0,), high=(1.0,), shape=(1,), dtype="float32")
    assert still_actions(write(tmp_path / "a.h5", actions, drawn(T, N, high=2), space)) is None

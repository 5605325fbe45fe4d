"""What is said of a dataset before a training, for data of which all is known."""

from __future__ import annotations

import numpy as np

from rnem_world.actions import ActionSpace
from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import DatasetAttributes, EpisodeBatch
from rnem_world.data.summary import describe_split
from rnem_world.data.writer import write_shard
from rnem_world.training.trainer import train

T, N = 6, 3


def described(tmp_path, attributes=None, **arrays) -> str:
    features = arrays.pop("features", np.zeros((T, N, 4, 8, 1), np.uint8))
    path = tmp_path / "data.h5"
    write_shard(path, {"training": EpisodeBatch(features, **arrays)}, attributes or DatasetAttributes())
    with Dataset.open(path) as dataset:
        return describe_split(dataset, "training")


def test_sizes_values_and_motion(tmp_path):
    features = np.zeros((T, N, 4, 8, 1), np.uint8)
    features[::2, :, 0, :4] = 1  # 4 of 32 pixels blink
    text = described(tmp_path, features=features)
    assert text.startswith(
        "training: 3 sequences of 6 frames, 4 x 8, black and white; values 0 to 1, mean 0.0625"
    )
    assert "12 % of the pixels change" in text  # 12.5, to two digits
    assert "; no actions; no rewards; no ends (seen in 3 of them)" in text


def test_colours_are_named_by_what_they_are(tmp_path):
    frames = np.full((T, N, 4, 8, 3), 7, np.uint8)
    assert "colours; values 7 to 7, mean 7, 0 %" in described(
        tmp_path, DatasetAttributes(maximum_value=255), features=frames
    )


def test_the_transition_into_another_episode_counts_for_nothing(tmp_path):
    """Frame 3 begins another episode: it alone moves, and what is stored at the frame before it is absurd."""
    features = np.zeros((T, N, 4, 8, 1), np.uint8)
    features[3:] = 1
    firsts, actions, rewards = (np.zeros((T, N), kind) for kind in (np.bool_, np.int64, np.float32))
    firsts[[0, 3]] = True
    actions[2], rewards[2] = 3, 99.0
    ends = np.zeros((T, N), np.bool_)
    ends[1:3, 0] = True  # the last frame repeats the end
    cuts = np.zeros((T, N), np.bool_)
    cuts[1, 1:] = True
    text = described(
        tmp_path,
        DatasetAttributes(number_of_actions=4),
        features=features,
        actions=actions,
        rewards=rewards,
        terminations=ends,
        truncations=cuts,
        is_first=firsts,
    )
    assert "0 % of the pixels change" in text
    assert "4 actions, 3 of them never, the commonest 100 %" in text
    assert "rewards 0 (0 % aren't 0)" in text
    assert "1 ends, 2 cuts, 6 episodes begin" in text


def test_real_actions_and_many_rewards_have_ranges(tmp_path):
    space = ActionSpace("box", low=(-1.0, None), high=(1.0, None), shape=(2,), dtype="float32")
    actions = np.zeros((T, N, 2), np.float32)
    actions[0, 0] = -0.5, 20.0
    rewards = np.arange(T * N, dtype=np.float32).reshape(T, N) / 10
    text = described(tmp_path, DatasetAttributes(action_space=space), actions=actions, rewards=rewards)
    assert "actions of 2 real numbers, -0.5 to 0, 0 to 20" in text
    assert "rewards 0 to 1.4 (93 % aren't 0)" in text  # those behind the last frame are of no transition


def test_training_says_it_before_it_begins(tiny, tmp_path):
    lines: list[str] = []
    train(tiny.data, tiny.config(epochs=1), tmp_path / "run", device="cpu", report=lines.append)
    place = next(
        number for number, line in enumerate(lines) if line.startswith("training: 12 sequences of 8 frames")
    )
    assert not any(line.startswith("epoch 1") for line in lines[: place + 1])

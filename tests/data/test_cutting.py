from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from rnem_world.data.recorder import Recorder
from rnem_world.errors import DataError


class Episodes(gymnasium.vector.VectorEnv):
    """Episode e of sub-environment i shows (10 e + i, time); lengths[e] steps each, the even ones terminate."""

    def __init__(self, num_envs: int, lengths: list[int]) -> None:
        self.num_envs, self.lengths = num_envs, lengths
        self.single_action_space = gymnasium.spaces.Discrete(9)

    def _observe(self) -> np.ndarray:
        names = 10 * self.episode + np.arange(self.num_envs)
        return np.stack([names, self.time], axis=1).astype(np.uint8)[:, None, :, None]

    def reset(self, *, seed=None, options=None):
        if options is None:
            self.episode, self.time = np.zeros((2, self.num_envs), np.int64)
        else:
            mask = options["reset_mask"]
            self.episode[mask] += 1
            self.time[mask] = 0
        return self._observe(), {"lives": self.episode}

    def step(self, actions):
        self.time += 1
        length = np.array([self.lengths[e % len(self.lengths)] for e in self.episode]) + np.arange(
            self.num_envs
        )
        over, even = self.time == length, self.episode % 2 == 0
        return self._observe(), 1.0 * self.time, over & even, over & ~even, {"lives": self.episode}


class Timer:
    """Acts the time that it sees, modulo 9."""

    def reset(self, num_envs: int) -> None:
        pass

    def act(self, observations):
        return observations[:, 0, 1, 0].astype(np.int64) % 9


def cut(frames: int, sequences: int, envs: int, lengths: list[int]):
    cutter = Recorder(frames, sequences, maximum_value=255, whole_episodes=True)
    cutter.record(Episodes(envs, lengths), Timer(), list(range(envs)))
    return cutter.episodes()


def test_sequences_are_pieces_of_single_episodes_that_together_hold_every_frame():
    data = cut(5, 60, 3, [17, 12, 3, 30, 20])
    names, times = data.features[..., 0, 0, 0], data.features[..., 0, 1, 0].astype(int)
    assert (names == names[0]).all()  # never across a reset
    assert (np.diff(times, axis=0) == 1).all()
    episodes = {name: np.unique(times[:, names[0] == name]) for name in np.unique(names)}
    assert not any(name // 10 % 5 == 2 and name % 10 == 0 for name in episodes)  # too short
    length = {name: [17, 12, 3, 30, 20][name // 10 % 5] + name % 10 for name in episodes}
    done = [name for name in episodes if name // 10 < max(episodes) // 10 - 1]
    assert len(done) >= 6
    for name in done:
        assert episodes[name].tolist() == list(range(length[name] + 1))
    assert (data.lives == names // 10).all()


def test_every_entry_belongs_to_the_transition_out_of_its_frame():
    data = cut(4, 40, 2, [9, 10])
    names, times = data.features[..., 0, 0, 0], data.features[..., 0, 1, 0].astype(int)
    length = np.array([9, 10])[names // 10 % 2] + names % 10
    last = times == length
    np.testing.assert_array_equal(data.actions[~last], (times % 9)[~last])
    np.testing.assert_array_equal(data.rewards[~last], (times + 1)[~last])
    terminated = (times >= length - 1) & (names // 10 % 2 == 0)
    np.testing.assert_array_equal(data.terminations, terminated)
    assert last[-1].any()
    assert not last[:-1].any()  # an episode's last frame is a sequence's last
    assert (data.actions[last] == 0).all()
    assert (data.rewards[last] == 0).all()


def test_episodes_that_are_too_short_are_named():
    with pytest.raises(DataError, match=r"had 9 frames at most, expected 10.*--frames"):
        cut(10, 4, 2, [7])


def test_it_can_be_given_up_and_says_when_it_is_not_full():
    cutter = Recorder(3, 2, 255, whole_episodes=True)
    with pytest.raises(InterruptedError):
        cutter.record(Episodes(1, [9]), Timer(), [0], lambda: True)
    with pytest.raises(DataError, match="expected 2"):
        cutter.episodes()


def test_frames_that_are_not_binary_are_refused():
    with pytest.raises(DataError, match="aren't binary"):
        Recorder(3, 2, whole_episodes=True).record(Episodes(3, [9]), Timer(), [0, 1, 2])

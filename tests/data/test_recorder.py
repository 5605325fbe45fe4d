from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from counting import Clock, Counter

from rnem_world.actions import ActionSpace
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


class Masked(Episodes):
    """Says only of some sub-environments what there is to say, zeros of the others, as Gymnasium's masks do.

    Steps say all about lives, resets only about those that were reset; events are told of every third step.
    """

    forgetful = False

    def reset(self, *, seed=None, options=None):
        observations, _ = super().reset(seed=seed, options=options)
        mask = np.ones(self.num_envs, bool) if options is None else options["reset_mask"]
        return observations, {"lives": np.where(mask, self._lives(), 0), "_lives": mask}

    def step(self, actions):
        *result, _ = super().step(actions)
        mask = self._happened()
        # Where the mask says nothing the value is a trap.
        infos = {
            "lives": self._lives(),
            "events": np.where(mask, 1, 77)[:, None, None, None],
            "_events": mask,
        }
        if self.forgetful:
            infos["_lives"] = self.time != 2
        return *result, infos if mask.any() else {"lives": self._lives()}

    def _lives(self):
        return 3 + (self.time + self.episode) % 5

    def _happened(self):
        return (self.time + np.arange(self.num_envs)) % 3 == 0


class Timer:
    """Acts the time that it sees, modulo 9."""

    def reset(self, num_envs: int) -> None:
        self.expected = np.zeros(num_envs)

    def restart(self, begun) -> None:
        self.expected[begun] = 0

    def act(self, observations):
        # It is told of every new episode, and of nothing else.
        np.testing.assert_array_equal(observations[:, 0, 1, 0], self.expected)
        self.expected += 1
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


def test_entries_t_belong_to_the_transition_out_of_frame_t():
    recorder = Recorder(5, 3, maximum_value=255)
    for _ in range(2):  # two batches of two for three sequences
        recorder.record(Counter(2, length=5), Clock(), [0, 1])
    episodes = recorder.episodes()
    np.testing.assert_array_equal(
        episodes.features[:, :, 0, 0, 0].T, [np.arange(5), 10 + np.arange(5), np.arange(5)]
    )
    np.testing.assert_array_equal(episodes.actions[:, 0], [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(episodes.rewards[:, 0], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(episodes.events[:, 0, 0, 0, 0], [1, 0, 1, 0, 1])
    np.testing.assert_array_equal(episodes.terminations[:, 0], [False] * 4 + [True])


@pytest.mark.parametrize("whole_episodes", [True, False])
def test_only_what_is_said_about_a_sub_environment_is_stored_for_it(whole_episodes):
    recorder = Recorder(4, 12, 255, whole_episodes=whole_episodes)
    for _ in range(1 if whole_episodes else 4):
        recorder.record(Masked(3, [9, 7]), Timer(), [0, 1, 2])
    data = recorder.episodes()
    names, times = data.features[..., 0, 0, 0].astype(int), data.features[..., 0, 1, 0].astype(int)
    np.testing.assert_array_equal(data.lives, 3 + (times + names // 10) % 5)
    last = times == np.array([9, 7])[names // 10 % 2] + names % 10
    assert last.any() == whole_episodes
    happened = ((times + 1 + names % 10) % 3 == 0) & ~last
    np.testing.assert_array_equal(data.events[..., 0, 0, 0], happened)


@pytest.mark.parametrize("whole_episodes", [True, False])
def test_frames_of_which_nothing_is_said_are_refused(whole_episodes, monkeypatch):
    monkeypatch.setattr(Masked, "forgetful", True)
    with pytest.raises(
        DataError, match=r"infos have 'lives' of some frames and not of others, .* after resets"
    ):
        Recorder(4, 6, 255, whole_episodes=whole_episodes).record(Masked(3, [9, 7]), Timer(), [0, 1, 2])


def test_nothing_of_an_earlier_turn_of_the_ring_is_left():
    """Events are told in the first steps alone, by an environment that then forgets the name."""

    class Once(Counter):
        def step(self, actions):
            *result, _ = super().step(actions)
            return *result, {"events": np.ones((self.num_envs, 1, 1, 1))} if self.time < 3 else {}

    class Endless(Once):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed) if options is None else (self._observe().astype(np.uint8), {})

    recorder = Recorder(4, 4, 255, whole_episodes=True)
    recorder.record(Endless(2), Clock(), [0, 1])
    assert recorder.episodes().events[..., 0, 0, 0].T.tolist() == [[1, 1, 0, 0]] * 2 + [[0] * 4] * 2


@pytest.mark.parametrize("whole_episodes", [True, False])
def test_a_grey_pixel_in_any_frame_is_refused(whole_episodes):
    class Greying(gymnasium.vector.VectorEnv):
        num_envs = 2

        def reset(self, *, seed=None, options=None):
            self.time = 0
            return np.zeros((2, 4, 4, 1), np.uint8), {}

        def step(self, actions):
            self.time += 1
            frames = np.full((2, 4, 4, 1), 255, np.uint8)
            frames[1, 2, 3] = 254 if self.time == 3 else 1
            return frames, np.zeros(2), np.zeros(2, bool), np.zeros(2, bool), {}

    def record(frames):
        recorder = Recorder(frames, 2, whole_episodes=whole_episodes)
        recorder.record(Greying(), Clock(), [0, 1])
        return recorder.episodes()

    assert set(np.unique(record(3).features)) == {0, 1}
    with pytest.raises(DataError, match="aren't binary"):
        record(4)


def test_frames_that_are_not_binary_are_refused():
    with pytest.raises(DataError, match="aren't binary"):
        Recorder(3, 2).record(Counter(2), Clock(), [0, 1])
    with pytest.raises(DataError, match="aren't binary"):
        Recorder(3, 2, whole_episodes=True).record(Episodes(3, [9]), Timer(), [0, 1, 2])


def stream(frames: int, sequences: int, envs: int, lengths: list[int]):
    recorder = Recorder(
        frames, sequences, maximum_value=255, streams=True, action_space=ActionSpace.discrete(9)
    )
    recorder.record(Episodes(envs, lengths), Timer(), list(range(envs)))
    return recorder.episodes()


@pytest.mark.parametrize("frames", [2, 5, 7, 16])
def test_streams_leave_nothing_out_and_mark_where_episodes_begin(frames):
    lengths = [3, 1, 6, 2, 11]
    data = stream(frames, 24, 3, lengths)
    for column in range(3):
        # Sequences are taken when they are full, so that those of a sub-environment are in the order of time.
        mine = [s for s in range(24) if data.features[0, s, 0, 0, 0] % 10 == column]
        names, times, first, ends, cuts, rewards, actions = (
            array[:, mine].T.ravel().astype(int)
            for array in (
                data.features[..., 0, 0, 0],
                data.features[..., 0, 1, 0],
                data.is_first,
                data.terminations,
                data.truncations,
                data.rewards,
                data.actions,
            )
        )
        expected = [
            (10 * episode + column, time)
            for episode in range(100)
            for time in range(lengths[episode % len(lengths)] + column + 1)
        ]
        assert list(zip(names.tolist(), times.tolist(), strict=True)) == expected[: len(names)]
        np.testing.assert_array_equal(first, times == 0)
        length = np.array([lengths[name // 10 % len(lengths)] + column for name in names])
        is_last = times == length
        np.testing.assert_array_equal(ends, (times == length - 1) & (names // 10 % 2 == 0))
        np.testing.assert_array_equal(cuts, (times == length - 1) & (names // 10 % 2 == 1))
        np.testing.assert_array_equal(rewards, np.where(is_last, 0, times + 1))
        np.testing.assert_array_equal(actions, np.where(is_last, 0, times % 9))


def test_streams_store_actions_of_any_kind():
    class Steering(Timer):
        def act(self, observations):
            super().act(observations)
            return np.tile(np.float32([[0.5, -0.25]]), (len(observations), 1))

    space = ActionSpace("box", low=(-1.0, -1.0), high=(1.0, 1.0), shape=(2,), dtype="float32")
    recorder = Recorder(5, 4, maximum_value=255, streams=True, action_space=space)
    recorder.record(Episodes(2, [3, 9]), Steering(), [0, 1])
    data = recorder.episodes()
    data.validate(action_space=space)
    assert data.actions.dtype == np.float32
    assert data.actions.shape == (5, 4, 2)
    np.testing.assert_array_equal(data.actions[0, 0], np.float32([0.5, -0.25]))

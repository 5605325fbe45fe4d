from __future__ import annotations

import numpy as np
import pytest

from rnem_world.agents.base import baseline
from rnem_world.agents.collecting import collect
from rnem_world.agents.mixture import MixedAgent, Player, parse_mixture
from rnem_world.data.dataset import Dataset
from rnem_world.errors import ConfigError


class Says:
    """An agent that always says its number."""

    def __init__(self, number: int) -> None:
        self.number, self.told = number, []

    def reset(self, num_envs: int) -> None:
        self.told.append(num_envs)

    def restart(self, begun: np.ndarray) -> None:
        self.told.append(begun.copy())

    def act(self, observations: np.ndarray) -> np.ndarray:
        return np.full(len(observations), self.number)


def mixed(shares: list[float], seed: int = 0) -> tuple[MixedAgent, list[Says]]:
    agents = [Says(number) for number in range(len(shares))]
    return MixedAgent(agents, shares, np.random.default_rng(seed)), agents


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stay", (Player("stay", 1.0),)),
        ("random,stay", (Player("random", 0.5), Player("stay", 0.5))),
        ("random:3, stay:1", (Player("random", 0.75), Player("stay", 0.25))),
        ("games:play:0.5,stay:.5", (Player("games:play", 0.5), Player("stay", 0.5))),
        ("games:play", (Player("games:play", 1.0),)),
    ],
)
def test_weights_become_shares(text, expected):
    assert parse_mixture(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("random:0.5,stay", "with a weight each"),
        ("random:0.5,,stay:1", "with a weight each"),
        ("", "with a weight each"),
        ("random:0,stay:1", "weight of the policy random is 0"),
        ("random:nan,stay:1", "weight of the policy random is nan"),
        ("random:1,random:2", "comes twice"),
    ],
)
def test_mixtures_that_make_no_sense_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_mixture(text)


def test_each_plays_its_share_of_the_episodes_and_all_of_an_episode():
    agent, _ = mixed([0.7, 0.2, 0.1])
    agent.reset(4000)
    plays = agent.act(np.zeros(4000))
    np.testing.assert_allclose(np.bincount(plays) / 4000, [0.7, 0.2, 0.1], atol=0.03)
    np.testing.assert_array_equal(agent.act(np.zeros(4000)), plays)


def test_who_plays_is_drawn_anew_where_an_episode_begins_and_nowhere_else():
    agent, (first, second) = mixed([0.5, 0.5])
    agent.reset(1000)
    before = agent.act(np.zeros(1000))
    begun = np.arange(1000) < 500
    agent.restart(begun)
    after = agent.act(np.zeros(1000))
    np.testing.assert_array_equal(after[500:], before[500:])
    assert 150 < (after[:500] != before[:500]).sum() < 350
    for told in (first.told, second.told):
        assert told[0] == 1000
        np.testing.assert_array_equal(told[1], begun)


def test_a_collection_has_sequences_of_all_who_play(tmp_path):
    path = collect(
        "balls",
        tmp_path / "mixed.h5",
        preset="avoid",
        num_train=60,
        num_valid=0,
        num_test=0,
        frames=20,
        policy="stay:0.5,random:0.5",
        progress=False,
    )
    with Dataset.open(path) as dataset:
        actions = dataset.read("training", range(60), ["actions"])["actions"]
        assert dataset.attributes.settings["policy"] == "stay:0.5,random:0.5"
    stays = (actions == 0).all(axis=0)
    assert 15 < stays.sum() < 45
    assert len(np.unique(actions[:, ~stays])) == 9


def test_episodes_that_end_follow_one_another_in_a_collection(tmp_path):
    path = collect(
        "balls", tmp_path / "ends.h5", preset="survive", num_train=20, num_valid=0, num_test=0, frames=60,
        policy="random:1,repeated-random:1", progress=False,
    )  # fmt: skip
    with Dataset.open(path) as dataset:
        read = dataset.read("training", range(20), ["terminations", "is_first", "rewards"])
    ends, firsts = read["terminations"], read["is_first"]
    assert ends.sum() > 20
    np.testing.assert_array_equal(ends, read["rewards"] == -1.0)
    # The last frame of an episode is there; the next one begins behind it.
    np.testing.assert_array_equal(firsts[2:][ends[:-2]], True)
    assert not firsts[1:][ends[:-1]].any()


def test_a_mixture_of_one_plays_as_that_one_alone(tmp_path):
    found = []
    for policy in ("random", "random:2"):
        path = collect(
            "balls", tmp_path / f"{len(found)}.h5", preset="avoid", num_train=3, num_valid=0, num_test=0, frames=5,
            policy=policy, progress=False,
        )  # fmt: skip
        with Dataset.open(path) as dataset:
            found.append(dataset.read("training", range(3), ["actions"])["actions"])
    np.testing.assert_array_equal(*found)


def test_agents_and_shares_must_pair():
    with pytest.raises(ConfigError, match="1 agents were given with 2 shares"):
        MixedAgent([baseline("stay", 9, np.random.default_rng(0))], [0.5, 0.5], np.random.default_rng(0))

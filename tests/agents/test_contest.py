from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rnem_world.agents.base import StayAgent
from rnem_world.agents.config import ContestConfig
from rnem_world.agents.contest import Contest
from rnem_world.agents.planning import parse_planner
from rnem_world.agents.scores import (
    Played,
    compared,
    dream_beside_reality,
    normalised_score,
    paired_p_value,
    play,
    score_table,
)
from rnem_world.envs.balls import BouncingBallsVectorEnv
from rnem_world.errors import CheckpointError, ConfigError, DivergenceError

PLANNER = "shooting:population=4,horizon=2"


def episodes(*returns: float) -> Played:
    return Played(np.array(returns, dtype=np.float64), np.full(len(returns), 10), 1.0)


def test_returns_are_those_of_each_episode_by_itself():
    env = BouncingBallsVectorEnv(5, preset="avoid", max_episode_steps=30)
    stay = StayAgent(9, np.random.default_rng(0))
    together = play(stay, env, seed=40)
    alone = [
        play(stay, BouncingBallsVectorEnv(1, preset="avoid", max_episode_steps=30), 40 + i) for i in range(5)
    ]
    assert together.returns.tolist() == [float(each.returns[0]) for each in alone]
    assert together.lengths.tolist() == [30] * 5
    assert together.returns.min() < 0
    assert play(stay, env, seed=40, max_steps=10).lengths.tolist() == [10] * 5


def test_rewards_after_the_end_do_not_count():
    class Ending(BouncingBallsVectorEnv):
        def step(self, actions):
            observations, _, _, truncations, infos = super().step(actions)
            return observations, np.ones(3), self.elapsed >= np.array([1, 2, 3]), truncations, infos

    found = play(StayAgent(9, np.random.default_rng(0)), Ending(3, preset="avoid"), seed=0)
    assert found.returns.tolist() == found.lengths.tolist() == [1, 2, 3]


@pytest.mark.parametrize("reward", [np.nan, np.inf])
def test_rewards_without_a_mean_are_refused(reward):
    class Broken(BouncingBallsVectorEnv):
        def step(self, actions):
            observations, rewards, *rest = super().step(actions)
            rewards[1] = reward
            return observations, rewards, *rest

    with pytest.raises(DivergenceError, match="environment 1 are NaN or infinite"):
        play(StayAgent(9, np.random.default_rng(0)), Broken(3, preset="avoid"), seed=0, max_steps=2)


def test_statistics_by_hand():
    from scipy.stats import ttest_rel

    assert episodes(1.0, 2.0, 3.0).mean == 2.0
    assert episodes(1.0, 2.0, 3.0).standard_error == pytest.approx(1 / 3**0.5)
    one, other = np.array([1.0, 2.0, 4.0]), np.array([0.0, 2.0, 1.0])
    assert paired_p_value(one, other) == pytest.approx(ttest_rel(one, other).pvalue / 2)
    assert paired_p_value(one, one) == 1.0
    assert paired_p_value(one + 1, one) == 0.0
    assert paired_p_value(one - 1, one) == 1.0
    assert normalised_score(-2.0, -10.0, 0.0) == 0.8
    assert normalised_score(-2.0, 0.0, 0.0) is None
    found = compared(
        {"stay": episodes(-10, -10), "it": episodes(-4, -2), "oracle": episodes(0, 0)},
        {"it": episodes(-1, -1)},
        {"it": "oracle", "stay": "oracle", "oracle": "oracle"},
    )
    by_name = {score.name: score for score in found}
    assert by_name["it"].normalised == pytest.approx(0.7)
    assert by_name["it"].gap == pytest.approx(2.0)
    assert (by_name["stay"].normalised, by_name["oracle"].normalised) == (0.0, 1.0)
    table = score_table(found)
    assert len(table) == 4
    assert "+2.00" in table[2]
    with pytest.raises(ConfigError, match="stay"):
        compared({"it": episodes(0)}, {}, {})


@pytest.fixture(scope="module")
def policies(tiny_world, tmp_path_factory) -> dict[str, Path]:
    """Policies on slots and on frames that were hardly trained, in the dream."""
    pytest.importorskip("stable_baselines3")
    from rnem_world.agents.config import PolicyConfig
    from rnem_world.agents.policy_training import train_policy

    folders = {}
    for obs_type in ("slots", "frame"):
        folders[obs_type] = tmp_path_factory.mktemp("policies") / obs_type
        options = {"checkpoint": str(tiny_world), "obs_type": obs_type, "max_episode_steps": 6}
        small = {"n_steps": 8, "batch_size": 16, "n_epochs": 1}
        config = PolicyConfig(env_options=options, num_envs=4, timesteps=32, hyperparameters=small)
        train_policy(config, folders[obs_type])
    return folders


def test_all_play_the_same_episodes_in_reality_and_in_dreams(tiny_world, policies, monkeypatch):
    closed = []
    monkeypatch.setattr(BouncingBallsVectorEnv, "close", lambda env: closed.append(id(env)))
    agents = (PLANNER, str(policies["slots"]), str(policies["frame"]))
    config = ContestConfig(agents, str(tiny_world), env_options={"preset": "avoid"}, episodes=2, steps=7)
    contest = Contest(config)
    found = {score.name: score for score in contest.play(progress=False)}
    assert len(closed) == 1 + len(found)  # one to look at, and one for each
    assert list(found) == ["random", "repeated-random", "stay", *agents, f"oracle {PLANNER}"]
    stay = play(
        StayAgent(9, np.random.default_rng(0)),
        BouncingBallsVectorEnv(2, preset="avoid", max_episode_steps=7),
        config.seed,
    )
    assert found["stay"].real.returns.tolist() == stay.returns.tolist()
    assert all(score.dreamt is not None for name, score in found.items() if "oracle" not in name)
    assert found[f"oracle {PLANNER}"].dreamt is None
    json.dumps([score.as_json() for score in found.values()], allow_nan=False)
    again = play(*contest.agent(PLANNER, 2), config.seed)
    assert again.returns.tolist() == found[PLANNER].real.returns.tolist()


def test_a_dream_goes_on_from_reality(tiny_world):
    contest = Contest(ContestConfig((PLANNER,), str(tiny_world), episodes=1, steps=17))
    dream = contest.dream(1)
    context = dream.starts.context_frames
    real, dreamt = dream_beside_reality(*contest.agent(PLANNER, 1), dream, 0, 17)
    assert real.shape == dreamt.shape == (18, 32, 32, 1)
    np.testing.assert_array_equal(real[: context - 1], dreamt[: context - 1])
    with pytest.raises(ConfigError, match="too short"):
        dream_beside_reality(*contest.agent(PLANNER, 1), contest.dream(1), 0, context - 1)


def test_a_policy_on_the_slots_of_another_world_is_refused(tiny_world, policies, tmp_path):
    from dreamers import write_world

    other = write_world(tmp_path / "other", seed=1)
    config = ContestConfig((str(policies["slots"]),), str(other), episodes=1, steps=3)
    with pytest.raises(CheckpointError, match="give --checkpoint"):
        Contest(config).agent(str(policies["slots"]), 1)
    same = write_world(tmp_path / "same", seed=0)  # the same weights in another place are the same world
    Contest(ContestConfig((str(policies["slots"]),), str(same), episodes=1, steps=3)).agent(
        str(policies["slots"]), 1
    )


def test_baselines_and_oracle_need_no_world():
    found = Contest(ContestConfig(env_options={"preset": "stove"}, episodes=2, steps=3, oracle=PLANNER)).play(
        False
    )
    assert [score.name for score in found] == ["random", "repeated-random", "stay", f"oracle {PLANNER}"]
    assert all(score.dreamt is None for score in found)


def test_planners_are_read():
    assert parse_planner("mcts:horizon=3,warm_start=False,milliseconds=2.5,rollout=hold") == (
        "mcts",
        {"horizon": 3, "warm_start": False, "milliseconds": 2.5, "rollout": "hold"},
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"agents": ("mtcs",)}, "did you mean 'mcts'"),
        ({"agents": ("mcts:depth=3",)}, "horizon"),
        ({"agents": ("mcts:horizon",)}, "no value"),
        ({"oracle": "best"}, "no planner 'best'"),
        ({"episodes": 0}, "episodes"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_makes_no_sense_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        ContestConfig(**values)


def test_only_balls_have_an_oracle():
    with pytest.raises(ConfigError, match="no oracle"):
        Contest(ContestConfig(env="CartPole-v1", oracle="mcts"))

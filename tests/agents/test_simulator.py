from __future__ import annotations

import numpy as np
import pytest
import torch

from rnem_world.agents.base import Agent
from rnem_world.agents.dynamics import BallsDynamics, simulator_states
from rnem_world.agents.planning import PlannerAgent, make_planner
from rnem_world.envs.balls import BouncingBallsVectorEnv
from rnem_world.errors import ConfigError
from rnem_world.physics import preset


@pytest.mark.parametrize("name", ["stove", "control"])
def test_the_dynamics_are_those_of_the_environment(name):
    env = BouncingBallsVectorEnv(6, preset=name, ground_truth=True)
    env.reset(seed=3)
    dynamics = BallsDynamics(env.rules)
    state = simulator_states(env)()
    rng = np.random.default_rng(0)
    for _ in range(40):
        actions = rng.integers(9, size=6)
        _, rewards, *_, infos = env.step(actions)
        outcome = dynamics.step(state, torch.as_tensor(actions))
        state = outcome.state
        np.testing.assert_array_equal(outcome.rewards.numpy(), rewards)
        np.testing.assert_array_equal(state.positions, infos["positions"])
        assert not outcome.termination.any()


def test_worlds_are_copied_out_and_put_back():
    env = BouncingBallsVectorEnv(3, preset="stove")
    env.reset(seed=0)
    dynamics, source = BallsDynamics(env.rules), simulator_states(env)
    state = source()
    before = state.positions.copy()
    twice = dynamics.select(state, torch.tensor([2, 2, 0]))
    twice.positions[:] = -1.0
    np.testing.assert_array_equal(state.positions, before)
    dynamics.put(state, torch.tensor([1]), dynamics.select(state, torch.tensor([0])))
    np.testing.assert_array_equal(state.positions[1], before[0])
    assert dynamics.size(dynamics.select(state, torch.tensor([0, 1, 2, 2]))) == 4
    np.testing.assert_array_equal(source().positions, before)


def test_the_oracle_avoids_what_staying_runs_into():
    n, totals, options = 6, {}, {"population": 24, "horizon": 10}
    for who in ("stay", "oracle"):
        env = BouncingBallsVectorEnv(n, preset="avoid")
        planner = make_planner(
            "shooting", BallsDynamics(env.rules), options, torch.Generator().manual_seed(0)
        )
        agent = PlannerAgent(planner, simulator_states(env))
        assert isinstance(agent, Agent)
        observations, _ = env.reset(seed=0)
        agent.reset(n)
        totals[who] = 0.0
        for _ in range(20):
            actions = agent.act(observations) if who == "oracle" else np.zeros(n, dtype=np.int64)
            observations, rewards, *_ = env.step(actions)
            totals[who] += rewards.sum()
    assert totals["stay"] < -4
    assert totals["oracle"] > totals["stay"] / 2


def test_worlds_without_a_player_are_refused():
    with pytest.raises(ConfigError, match="no player"):
        BallsDynamics(preset("balls4mass64"))
    planner = make_planner("shooting", BallsDynamics(preset("stove")), {}, torch.Generator())
    env = BouncingBallsVectorEnv(2, preset="stove")
    env.reset(seed=0)
    agent = PlannerAgent(planner, simulator_states(env))
    agent.reset(3)
    with pytest.raises(ConfigError, match="3 environments are played, and the planner looks at 2"):
        agent.act(np.zeros(3))

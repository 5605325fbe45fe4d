from __future__ import annotations

import numpy as np
import pytest
import torch

from rnem_world.agents.dynamics import Dynamics, LearnedDynamics, WatchedState, dreamt_states
from rnem_world.agents.planning import PLANNERS, make_planner
from rnem_world.envs.balls import BouncingBallsVectorEnv
from rnem_world.envs.learned import LearnedVectorEnv
from rnem_world.envs.world import World
from rnem_world.errors import ConfigError, DivergenceError


def dream_of(tiny_world, number: int, imagination: str = "latent") -> LearnedVectorEnv:
    env = LearnedVectorEnv(number, tiny_world, imagination=imagination, obs_type="slots")
    env.reset(seed=1)
    return env


@pytest.mark.parametrize("imagination", ["latent", "pixels"])
def test_the_dynamics_are_those_of_the_dreamt_environment(tiny_world, imagination, monkeypatch):
    monkeypatch.setattr(World.load(tiny_world), "chunk", 4)  # more than one part
    env = dream_of(tiny_world, 6, imagination)
    dynamics = LearnedDynamics(World.load(tiny_world), imagination)
    assert isinstance(dynamics, Dynamics)
    state = dreamt_states(env)()
    rng = np.random.default_rng(0)
    for _ in range(8):
        actions = rng.integers(9, size=6)
        slots, rewards, terminations, *_ = env.step(actions)
        if terminations.any():
            break
        outcome = dynamics.step(state, torch.as_tensor(actions))
        state = outcome.state
        np.testing.assert_allclose(outcome.rewards.numpy(), rewards, atol=1e-5)
        np.testing.assert_array_equal(outcome.termination.numpy() > 0.5, terminations)
        np.testing.assert_allclose(state.output.numpy(), slots, atol=1e-4)


def test_dreams_are_copied_out_and_put_back(tiny_world):
    dynamics = LearnedDynamics(World.load(tiny_world), "pixels")
    state = dreamt_states(dream_of(tiny_world, 3, "pixels"))()
    before = state.map(torch.clone)
    twice = dynamics.select(state, torch.tensor([2, 2, 0]))
    assert dynamics.size(twice) == 3
    dynamics.put(twice, torch.tensor([1]), dynamics.select(state, torch.tensor([1])))
    for name in ("theta", "output", "code", "frame"):
        assert torch.equal(getattr(twice, name), getattr(before, name)[[2, 1, 0]])
        assert torch.equal(getattr(state, name), getattr(before, name))


@pytest.mark.parametrize("name", PLANNERS)
def test_planners_dream(name, tiny_world):
    world = World.load(tiny_world)
    dynamics, env = LearnedDynamics(world), dream_of(tiny_world, 3)
    small = {"simulations": 30} if name == "mcts" else {"population": 12}
    planner = make_planner(name, dynamics, {"horizon": 3, **small}, torch.Generator().manual_seed(0))
    state = dreamt_states(env)()
    plan = planner.plan(state)
    assert plan.actions.shape == (3,)
    best = torch.stack([dynamics.step(state, torch.full((3,), action)).rewards for action in range(9)]).amax(
        dim=0
    )
    one = make_planner(
        name,
        dynamics,
        {"horizon": 1, "simulations": 9} if name == "mcts" else {"horizon": 1, "population": 400},
        torch.Generator().manual_seed(0),
    )
    if name != "mppi":  # which follows the mode of a softened distribution
        torch.testing.assert_close(one.plan(state).values, best)


def test_watching_real_frames_gives_states_to_plan_from(tiny_world):
    world = World.load(tiny_world)
    env = BouncingBallsVectorEnv(2, preset="avoid")
    frames, _ = env.reset(seed=0)
    source = WatchedState(world)
    every, nobody = np.ones(2, dtype=bool), np.zeros(2, dtype=bool)
    first = source.observe(frames, None, every)
    actions = np.array([3, 4])
    frames, *_ = env.step(actions)
    second = source.observe(frames, actions, nobody)
    assert (second.theta != first.theta).any()
    again = WatchedState(world)
    alone = again.observe(env_first(0), None, every[:1])
    torch.testing.assert_close(alone.theta[0], first.theta[0], atol=1e-5, rtol=1e-4)
    other = WatchedState(world)
    other.observe(np.stack([env_first(0)[0], env_first(1)[0]]), None, every)
    elsewhere = other.observe(frames, np.array([0, 4]), nobody)
    assert (elsewhere.theta[0] != second.theta[0]).any()  # actions make a difference
    torch.testing.assert_close(elsewhere.theta[1], second.theta[1], atol=1e-5, rtol=1e-4)
    frames[0] = env_first(0)[0]
    anew = other.observe(frames, actions, np.array([True, False]))
    torch.testing.assert_close(anew.theta[0], first.theta[0], atol=1e-5, rtol=1e-4)


def env_first(seed: int) -> np.ndarray:
    return BouncingBallsVectorEnv(1, preset="avoid").reset(seed=seed)[0]


def test_a_dream_that_diverges_is_an_error(tiny_world):
    state = dreamt_states(dream_of(tiny_world, 2))()
    state.theta[0] = torch.nan
    planner = make_planner("shooting", LearnedDynamics(World.load(tiny_world)), {}, torch.Generator())
    with pytest.raises(DivergenceError, match="another checkpoint"):
        planner.plan(state)


def test_an_unknown_imagination_is_refused(tiny_world):
    with pytest.raises(ConfigError, match="pixels"):
        LearnedDynamics(World.load(tiny_world), "pixel")

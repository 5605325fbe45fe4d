"""Planners in worlds whose actions are several numbers, and what they give to environments that count otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from dreamers import write_world
from gymnasium import spaces
from toy import Lock, Point

from rnem_world.actions import ActionSpace
from rnem_world.agents.dynamics import LearnedDynamics, WatchedState, dreamt_states
from rnem_world.agents.planning import PLANNERS, PlannerAgent, make_planner
from rnem_world.agents.proposals import MultiCategorical, uninformed
from rnem_world.envs.learned import LearnedVectorEnv
from rnem_world.envs.world import World
from rnem_world.errors import ConfigError
from rnem_world.models.config import ActionsConfig

SPACES = {
    "multi_discrete": spaces.MultiDiscrete([3, 2, 4]),
    "multi_binary": spaces.MultiBinary(4),
}
SEQUENCE_PLANNERS = [name for name in PLANNERS if name not in ("mcts", "flat-monte-carlo")]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("name", SEQUENCE_PLANNERS)
def test_planners_open_a_lock(name, kind):
    world = Lock(SPACES[kind])
    options = {"horizon": 2, "population": 400, "iterations": 3, "noise_exponent": 0.0}
    planner = make_planner(name, world, options, generator())
    codes = torch.tensor([[0, 1, 2, 1], [1, 0, 1, 0]])[:, : SPACES[kind].shape[0]] % world.sizes
    plan = planner.plan(codes)
    assert plan.actions.shape == codes.shape
    if name == "shooting":  # which doesn't learn from what it tried
        assert (plan.actions == codes).float().mean() >= 0.7
    else:
        torch.testing.assert_close(plan.actions, codes)
        torch.testing.assert_close(plan.values, torch.full((2,), 2.0 * codes.shape[1]))
    # With the next step it goes on from there, and forgets the world that has begun anew.
    planner.forget(torch.tensor([True, False]))
    assert planner.plan((codes + 1) % world.sizes).actions.shape == codes.shape


def test_the_choices_of_an_action_are_drawn_and_refitted_each_by_itself():
    proposal = uninformed(SPACES["multi_discrete"], 2, 3, torch.device("cpu"))
    assert isinstance(proposal, MultiCategorical)
    drawn = proposal.sample(torch.randn(2, 5000, 9, 3, generator=generator()))
    assert drawn.shape == (2, 5000, 3, 3)
    for index, size in enumerate((3, 2, 4)):
        frequencies = torch.bincount(drawn[..., index].flatten(), minlength=size) / drawn[..., index].numel()
        torch.testing.assert_close(frequencies, torch.full((size,), 1 / size), atol=0.02, rtol=0)
    pair = drawn[..., 0] * 2 + drawn[..., 1]
    assert torch.bincount(pair.flatten()).float().std() < 0.05 * pair.numel() / 6
    sequences = torch.tensor([[[[0, 1, 3]] * 3, [[2, 0, 3]] * 3]]).expand(2, -1, -1, -1)
    fitted = proposal.refit(sequences, torch.tensor([[0.25, 0.75]] * 2), 0.0)
    assert fitted.mode()[0, 0].tolist() == [2, 0, 3]
    assert fitted.choices[1].probabilities[0, 0].tolist() == [0.75, 0.25]
    assert fitted.restarted(torch.tensor([True, False])).choices[1].probabilities[:, 0, 0].tolist() == [
        0.5,
        0.75,
    ]
    assert fitted.shifted(1).choices[2].probabilities[0, 2].tolist() == [0.25] * 4


def test_actions_are_given_as_the_environment_counts_them():
    space = ActionSpace.of(spaces.MultiDiscrete([3, 2, 4], start=[1, 5, 0]))
    world, told = Lock(SPACES["multi_discrete"]), []

    def source(observations, actions, begun):
        told.append(actions)
        return torch.as_tensor(observations)

    options = {"horizon": 1, "population": 300, "iterations": 4}
    agent = PlannerAgent(make_planner("cem", world, options, generator()), source, space)
    agent.reset(2)
    codes, first = np.array([[2, 0, 3], [0, 1, 1]]), np.array([1, 5, 0])
    np.testing.assert_array_equal(agent.act(codes), codes + first)
    agent.act(codes)
    np.testing.assert_array_equal(told[1], codes + first)


def test_real_numbers_stay_within_their_bounds_and_begin_with_the_last_plan():
    planner = make_planner("icem", Point(), {"horizon": 4, "population": 200}, generator())
    state = torch.tensor([[30.0, -0.3]])
    for _ in range(3):
        plan = planner.plan(state)
        assert plan.actions.abs().max() <= 1.0
        assert plan.actions[0, 0] < -0.9
        state = state + plan.actions
    assert state[0, 0] < 27.4


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("worlds")
    kinds = {
        "multi_discrete": ActionsConfig("multi_discrete", (3, 2)),
        "multi_binary": ActionsConfig("multi_binary", (2, 2)),
        "box": ActionsConfig("box", low=(-2.0,), high=(2.0,)),
    }
    return {kind: write_world(place / kind, actions=actions) for kind, actions in kinds.items()}


@pytest.mark.parametrize("kind", ["multi_discrete", "multi_binary", "box"])
@pytest.mark.parametrize("watches", [False, True])
def test_learned_worlds_are_planned_in_whatever_their_actions(worlds, kind, watches):
    world, envs = World.load(worlds[kind]), LearnedVectorEnv(2, worlds[kind])
    planner = make_planner("cem", LearnedDynamics(world), {"horizon": 3, "population": 20}, generator())
    source = WatchedState(world).observe if watches else dreamt_states(envs)
    agent = PlannerAgent(planner, source)
    frames, _ = envs.reset(seed=0)
    agent.reset(2)
    for _ in range(2):
        actions = agent.act(frames)
        assert envs.action_space.contains(actions)
        frames, *_ = envs.step(actions)
    with pytest.raises(ConfigError, match="mcts needs discrete actions"):
        make_planner("mcts", LearnedDynamics(world), {}, generator())

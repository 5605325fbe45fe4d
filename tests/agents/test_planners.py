from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from toy import CartPole, Corridor, Point

from rnem_world.agents.dynamics import Dynamics, DynamicsStep
from rnem_world.agents.planner import drawn_numbers, sequence_returns
from rnem_world.agents.planning import PLANNERS, PlannerAgent, make_planner, planner_config
from rnem_world.errors import ConfigError, DivergenceError

SEQUENCE_PLANNERS = ["shooting", "cem", "icem", "mppi"]
SEARCHES = [*SEQUENCE_PLANNERS, "mcts"]  # whose value is that of the best sequence


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def seen(observations, actions, begun):
    """The observation is the state."""
    return torch.as_tensor(observations).float()


def play_cartpole(name: str, options: dict, episodes: int, steps: int = 500) -> np.ndarray:
    env = gymnasium.make_vec("CartPole-v1", num_envs=episodes, vectorization_mode="vector_entry_point")
    agent = PlannerAgent(make_planner(name, CartPole(), options, generator()), seen)
    observations, _ = env.reset(seed=0)
    agent.reset(episodes)
    alive, returns = np.ones(episodes, dtype=bool), np.zeros(episodes)
    for _ in range(steps):
        observations, rewards, terminations, truncations, _ = env.step(agent.act(observations))
        returns += rewards * alive
        alive &= ~(terminations | truncations)
    return returns


def test_the_toy_is_gymnasiums_cartpole():
    env = gymnasium.make("CartPole-v1").unwrapped
    observation, _ = env.reset(seed=1)
    state = torch.as_tensor(observation)[None]
    ended = False
    for action in [1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]:
        if ended:
            break
        observation, reward, ended, *_ = env.step(action)
        outcome = CartPole().step(state, torch.tensor([action]))
        state = outcome.state
        np.testing.assert_allclose(state[0], observation, atol=1e-5)
        assert (float(outcome.rewards[0]), bool(outcome.termination[0])) == (reward, ended)
    assert ended
    assert isinstance(CartPole(), Dynamics)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cem", {"horizon": 30, "population": 32, "iterations": 2, "elites": 6}),
        ("mppi", {"horizon": 30, "population": 48}),
        ("mcts", {"horizon": 20, "simulations": 24, "leaves": 4}),
        ("flat-monte-carlo", {"horizon": 30, "population": 16}),
    ],
)
def test_planners_balance_a_pole(name, options):
    assert play_cartpole(name, options, episodes=4, steps=80).mean() > 75  # even actions: 22


@pytest.mark.parametrize("name", SEQUENCE_PLANNERS)
def test_continuous_actions_bring_a_point_home(name):
    state = torch.tensor([[1.5, -0.5], [0.0, 0.0], [-0.4, 0.7]])
    planner = make_planner(name, Point(), {"horizon": 4, "population": 200, "iterations": 5}, generator())
    for _ in range(4):
        plan = planner.plan(state)
        assert plan.actions.shape == (3, 2)
        assert plan.actions.abs().max() <= 1.0
        state = Point().step(state, plan.actions).state
    assert state.norm(dim=1).max() < (0.8 if name == "shooting" else 0.35)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_later_reward_is_worth_waiting_for_within_the_horizon(name):
    options = (
        {"simulations": 300}
        if name == "mcts"
        else {"population": 200, "iterations": 3, "noise_exponent": 0.0}
    )
    start = torch.zeros(5, 2)
    for horizon, action, value in ((4, 1, 10.0), (3, 0, 3.0)):
        plan = make_planner(name, Corridor(), {"horizon": horizon, **options}, generator()).plan(start)
        assert plan.actions.tolist() == [action] * 5
        torch.testing.assert_close(plan.values, torch.full((5,), value))


class Lottery(Corridor):
    """A tree of random rewards, another in each world; state (world, node in the order of a heap)."""

    def __init__(self, depth: int, worlds: int, odds: float = 0.1) -> None:
        super().__init__()
        self._rewards = torch.rand(worlds, 2 ** (depth + 1), generator=generator(3))
        self._ended = (torch.rand(worlds, 2 ** (depth + 1), generator=generator(4)) < odds).float()

    def start(self) -> torch.Tensor:
        return torch.stack([torch.arange(len(self._rewards)), torch.ones(len(self._rewards)).long()], dim=1)

    def step(self, state, actions):
        self.calls += 1
        world, node = state[:, 0], 2 * state[:, 1] + actions
        inside = node.clamp(max=self._rewards.shape[1] - 1)
        return DynamicsStep(
            torch.stack([world, node], dim=1), self._rewards[world, inside], self._ended[world, inside]
        )


def every_sequence(worlds: int, horizon: int) -> torch.Tensor:
    return torch.cartesian_prod(*[torch.arange(2)] * horizon)[None].expand(worlds, -1, -1).contiguous()


@pytest.mark.parametrize(
    ("backup", "leaves", "action_repeat"), [("max", 1, 1), ("max", 3, 1), ("max", 2, 2), ("mean", 4, 1)]
)
def test_mcts_finds_the_best_sequence_of_every_tree(backup, leaves, action_repeat):
    worlds, horizon = 12, 4
    lottery = Lottery(horizon * action_repeat, worlds)
    returns = sequence_returns(
        lottery, lottery.start(), every_sequence(worlds, horizon), 0.9, action_repeat=action_repeat
    )
    best, index = returns.max(dim=1)
    options = {
        "horizon": horizon,
        "simulations": 400 if backup == "max" else 1000,
        "discount": 0.9,
        "backup": backup,
        "leaves": leaves,
        "action_repeat": action_repeat,
        "exploration": 0.5,
    }
    plan = make_planner("mcts", lottery, options, generator()).plan(lottery.start())
    first = every_sequence(worlds, horizon)[0, index, 0]
    if backup == "max":
        torch.testing.assert_close(plan.values, best)
        assert plan.actions.tolist() == first.tolist()
    else:
        assert (plan.actions == first).float().mean() > 0.8
        assert (plan.values <= best + 1e-5).all()


@pytest.mark.parametrize("name", SEQUENCE_PLANNERS)
def test_values_are_what_the_chosen_actions_can_earn(name):
    lottery = Lottery(6, 10)
    options = {"horizon": 6, "population": 40, "iterations": 3}
    plan = make_planner(name, lottery, options, generator()).plan(lottery.start())
    returns = sequence_returns(lottery, lottery.start(), every_sequence(10, 6))
    assert (plan.values <= returns.amax(dim=1) + 1e-5).all()
    assert (plan.values > returns.mean(dim=1)).all()


def test_returns_by_hand():
    sequences = torch.tensor([[[0, 1, 1, 1, 1, 0], [0, 0, 1, 0, 0, 0]]])
    returns = sequence_returns(Corridor(), torch.zeros(1, 2), sequences, discount=0.5)
    torch.testing.assert_close(returns, torch.tensor([[1 + 10 / 16, 1 + 1 / 2 + 1 / 8 + 1 / 16 + 1 / 32]]))
    twice = sequence_returns(Corridor(), torch.zeros(1, 2), torch.tensor([[[0, 1]]]), action_repeat=2)
    assert float(twice) == 2.0


@pytest.mark.parametrize("name", PLANNERS)
def test_rows_bound_the_batch_and_change_nothing(name):
    lottery = Lottery(5, 4)
    plans = [
        make_planner(name, lottery, {"horizon": 5, "rows": rows}, generator()).plan(lottery.start())
        for rows in (3, 8192)
    ]
    assert torch.equal(plans[0].actions, plans[1].actions)
    assert torch.equal(plans[0].values, plans[1].values)


def test_mcts_expands_the_leaves_of_all_trees_in_one_batch():
    lottery = Lottery(5, 50, odds=0.0)
    plan = make_planner("mcts", lottery, {"horizon": 5, "simulations": 100}, generator()).plan(
        lottery.start()
    )
    assert plan.simulations == 100
    assert lottery.calls <= 50 * 5  # 50 expansions by both actions, each a step and at most 4 of rollouts
    lottery.calls = 0
    options = {"horizon": 5, "simulations": 100, "leaves": 10}
    make_planner("mcts", lottery, options, generator()).plan(lottery.start())
    assert lottery.calls <= 6 * 5


@pytest.mark.parametrize("name", SEARCHES)
def test_a_plan_begins_with_the_rest_of_the_last(name):
    lottery = Lottery(6, 8, odds=0.0)
    few = {"simulations": 200} if name == "mcts" else {"population": 60, "iterations": 3}
    planner = make_planner(name, lottery, {"horizon": 6, **few}, generator())
    first = planner.plan(lottery.start())
    outcome = lottery.step(lottery.start(), first.actions)
    # One more simulation is enough where the last plan is known.
    config = planner.config
    one = {"simulations": 2} if name == "mcts" else {"population": 10, "iterations": 1}
    planner.config = type(config)(**{**vars(config), "horizon": 6, **one})
    second = planner.plan(outcome.state)
    if name != "mppi":  # follows the mode, which may be worse than the best that it has seen
        assert (second.values >= first.values - outcome.rewards - 1e-5).all()
    planner.forget()
    planner.forget(torch.ones(8, dtype=torch.bool))
    assert (planner.plan(outcome.state).values < second.values).any() or name == "mppi"


class Slow(Lottery):
    """A world each of whose steps takes a millisecond of its own clock."""

    def monotonic(self) -> float:
        return self.calls / 1000


@pytest.mark.parametrize("count", [1, 10_000])
@pytest.mark.parametrize("name", PLANNERS)
def test_time_is_a_budget_too(name, count, monkeypatch):
    """The search takes the time it is given, whatever the number of its rounds: a round takes at most 5 steps."""
    simulations = []
    for milliseconds in (0.5, 12.5, 62.5):
        slow = Slow(5, 2, odds=0.0)
        monkeypatch.setattr("rnem_world.agents.planner.time", slow)
        counts = {"simulations": count} if name == "mcts" else {"population": 30}
        if name in SEQUENCE_PLANNERS:
            counts["iterations"] = count
        options = {"horizon": 5, "milliseconds": milliseconds, **counts}
        simulations.append(make_planner(name, slow, options, generator()).plan(slow.start()).simulations)
        last = 5 if name in ("cem", "icem", "mppi") else 0  # what they have settled on is tried once more
        assert milliseconds < slow.calls < milliseconds + 5 + last
    assert simulations == sorted(set(simulations))


@pytest.mark.parametrize("name", PLANNERS)
def test_a_world_that_diverges_is_an_error(name):
    class Diverging(Corridor):
        def step(self, state, actions):
            outcome = super().step(state, actions)
            return replace(
                outcome, rewards=outcome.rewards * torch.where(outcome.state[:, 1] > 2, torch.nan, 1.0)
            )

    with pytest.raises(DivergenceError, match="NaN"):
        make_planner(name, Diverging(), {}, generator()).plan(torch.zeros(2, 2))


@pytest.mark.parametrize("name", SEARCHES)
def test_what_comes_after_the_end_does_not_matter(name):
    class Gone(Corridor):
        def step(self, state, actions):
            outcome = super().step(state, actions)
            return replace(outcome, rewards=torch.where(state[:, 0] >= 4, torch.nan, outcome.rewards))

    options = {"horizon": 7, "discount": 0.5}
    plan = make_planner(name, Gone(), options, generator()).plan(torch.tensor([[3.0, 0.0]] * 4))
    assert plan.actions.tolist() == [1] * 4
    torch.testing.assert_close(plan.values, torch.full((4,), 10.0))


@pytest.mark.parametrize("name", PLANNERS)
def test_number_of_worlds_may_change(name):
    planner = make_planner(name, Corridor(), {"horizon": 4}, generator())
    assert len(planner.plan(torch.zeros(3, 2)).actions) == 3
    assert len(planner.plan(torch.zeros(5, 2)).actions) == 5


@pytest.mark.parametrize("name", SEARCHES)
def test_a_plan_does_not_outlive_its_episode(name):
    lottery = Lottery(6, 8, odds=0.0)
    few = {"simulations": 200} if name == "mcts" else {"population": 60, "iterations": 3}
    planner = make_planner(name, lottery, {"horizon": 6, **few}, generator())
    planner.plan(lottery.start())
    begun = torch.tensor([True, False] * 4)
    planner.forget(begun)
    if name == "mcts":
        assert (planner._incumbent[begun, 0] == -1).all()
    else:
        assert torch.equal(planner._proposal.probabilities[begun], torch.full((4, 6, 2), 0.5))
        assert (planner._incumbent[begun] == 0).all()
    assert (planner._incumbent[~begun] > 0).any()
    planner.config = replace(planner.config, **({"simulations": 2} if name == "mcts" else {"population": 10}))
    assert planner.plan(lottery.start()).actions.shape == (8,)


def test_an_agent_is_told_of_new_episodes():
    seen_as_new = []

    def watching(observations, actions, begun):
        seen_as_new.append(begun.tolist())
        return torch.as_tensor(observations).float()

    agent = PlannerAgent(make_planner("shooting", Corridor(), {"horizon": 2}, generator()), watching)
    agent.reset(2)
    for begun in ([False, False], [False, True]):
        agent.act(np.zeros((2, 2)))
        agent.restart(np.array(begun))
    agent.act(np.zeros((2, 2)))
    assert seen_as_new == [[True, True], [False, False], [False, True]]


def test_an_agent_holds_actions_and_hands_out_copies():
    calls = []

    def counting(observations, actions, begun):
        calls.append(None if actions is None else actions.copy())
        assert begun.all() if actions is None else not begun.any()
        return torch.as_tensor(observations)

    lottery = Lottery(12, 6)
    planner = make_planner("shooting", lottery, {"horizon": 3, "action_repeat": 2}, generator())
    agent = PlannerAgent(planner, counting)
    agent.reset(6)
    state, played = lottery.start(), []
    for _ in range(4):
        actions = agent.act(state.numpy())
        played.append(actions.copy())
        state = lottery.step(state, torch.as_tensor(actions)).state
        actions[:] = 7
    assert calls[0] is None
    assert all((given == done).all() for given, done in zip(calls[1:], played, strict=False))
    assert (played[0] == played[1]).all()
    assert (played[2] == played[3]).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mtcs", {}, "did you mean 'mcts'"),
        ("cem", {"elits": 3}, "elites"),
        ("cem", {"elites": 100, "population": 50}, "at most the population"),
        ("icem", {"shrinkage": 0.5}, "shrinkage"),
        ("mppi", {"temperature": 0.0}, "temperature"),
        ("mcts", {"backup": "median"}, "backup"),
        ("mcts", {"milliseconds": -1.0}, "milliseconds"),
        ("shooting", {"horizon": 0}, "horizon"),
        ("shooting", {"discount": 1.5}, "discount"),
    ],
)
def test_options_that_make_no_sense_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        planner_config(name, options)


def test_actions_that_planners_cannot_take_are_refused():
    with pytest.raises(ConfigError, match="discrete"):
        make_planner("mcts", Point(), {}, generator())
    spaces = gymnasium.spaces
    for space in (
        spaces.Discrete(3, start=1),
        spaces.MultiDiscrete([[2, 2]]),
        spaces.MultiBinary((2, 2)),
        spaces.Box(-np.inf, np.inf, (2,)),
        spaces.Box(-1.0, 1.0, (2, 2)),
        spaces.Text(3),
    ):
        with pytest.raises(ConfigError, match="action space"):
            drawn_numbers(space)


class Ledge(Lottery):
    """As the lottery, and every step ends the episode with some probability, which planners are told."""

    def __init__(self, depth: int, worlds: int) -> None:
        super().__init__(depth, worlds)
        self._ended = torch.rand(self._ended.shape, generator=generator(9)) * 0.6


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_rewards_count_by_how_probable_it_is_that_they_are_reached(discount):
    worlds, horizon = 5, 4
    ledge = Ledge(horizon, worlds)
    sequences = every_sequence(worlds, horizon)
    returns = sequence_returns(ledge, ledge.start(), sequences, discount=discount)
    for world in range(worlds):
        for number, sequence in enumerate(sequences[world].tolist()):
            node, reached, total = 1, 1.0, 0.0
            for action in sequence:
                node = 2 * node + action
                total += reached * float(ledge._rewards[world, node])
                reached *= discount * (1.0 - float(ledge._ended[world, node]))
            assert float(returns[world, number]) == pytest.approx(total, rel=1e-5)
    # And the tree search, which goes over all of them, finds the best.
    options = {"horizon": horizon, "simulations": 200, "discount": discount, "backup": "max"}
    planner = make_planner("mcts", ledge, options, generator(0))
    values = planner.plan(ledge.start()).values
    torch.testing.assert_close(values, returns.max(dim=1).values)


def test_flat_monte_carlo_takes_the_action_after_which_chance_does_best():
    worlds, horizon = 12, 5
    lottery = Lottery(horizon, worlds)
    returns = sequence_returns(lottery, lottery.start(), every_sequence(worlds, horizon), 0.9)
    means = torch.stack([returns[:, :16].mean(dim=1), returns[:, 16:].mean(dim=1)], dim=1)
    options = {"horizon": horizon, "population": 4000, "discount": 0.9}
    plan = make_planner("flat-monte-carlo", lottery, options, generator()).plan(lottery.start())
    torch.testing.assert_close(plan.values, means.amax(dim=1), atol=0.03, rtol=0)
    clear = (means[:, 0] - means[:, 1]).abs() > 0.06
    assert clear.sum() > 6
    assert torch.equal(plan.actions[clear], means.argmax(dim=1)[clear])


def test_flat_monte_carlo_tries_all_first_actions_with_the_same_continuations():
    tried = []

    class Watched(Corridor):
        def step(self, state, actions):
            tried.append(actions.unflatten(0, (2, 2, 6)))  # two worlds, two first actions, six ways to go on
            return super().step(state, actions)

    make_planner("flat-monte-carlo", Watched(), {"horizon": 4, "population": 6}, generator()).plan(
        torch.zeros(2, 2)
    )
    first, *rest = tried
    assert first[:, 0].eq(0).all()
    assert first[:, 1].eq(1).all()
    assert len(rest) == 3
    for actions in rest:
        assert torch.equal(actions[:, 0], actions[:, 1])
    assert not torch.equal(rest[0], rest[1])


def test_flat_monte_carlo_chooses_among_drawn_actions_where_there_are_too_many():
    state = torch.tensor([[1.5, -0.5], [0.0, 0.0], [-0.4, 0.7]])
    options = {"horizon": 2, "population": 8, "candidates": 400}
    planner = make_planner("flat-monte-carlo", Point(), options, generator())
    for _ in range(3):
        plan = planner.plan(state)
        assert plan.actions.shape == (3, 2)
        assert plan.simulations == 3200
        state = Point().step(state, plan.actions).state
    assert state.norm(dim=1).max() < 0.35
    with pytest.raises(ConfigError, match="candidates"):
        planner_config("flat-monte-carlo", {"candidates": 0})

"""Agents on a graphics card: planners, and policies whose checkpoints change devices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rnem_world.agents.dynamics import LearnedDynamics, WatchedState, dreamt_states
from rnem_world.agents.planning import PLANNERS, PlannerAgent, make_planner
from rnem_world.envs.balls import BouncingBallsVectorEnv
from rnem_world.envs.learned import LearnedVectorEnv
from rnem_world.envs.world import World
from rnem_world.physics import preset

pytestmark = pytest.mark.cuda

SMALL = {
    "mcts": {"simulations": 20, "horizon": 4},
    "shooting": {"population": 8, "horizon": 4},
    "cem": {"population": 12, "iterations": 2, "horizon": 4},
    "icem": {"population": 12, "iterations": 2, "horizon": 4},
    "mppi": {"population": 8, "iterations": 2, "horizon": 4},
}


def agent_of(name: str, world: World, env, more: dict) -> PlannerAgent:
    generator = torch.Generator(world.device).manual_seed(0)
    planner = make_planner(name, LearnedDynamics(world, "latent"), {**SMALL[name], **more}, generator)
    source = dreamt_states(env) if isinstance(env, LearnedVectorEnv) else WatchedState(world).observe
    return PlannerAgent(planner, source)


@pytest.mark.parametrize("where", ["dream", "reality"])
@pytest.mark.parametrize("name", sorted(PLANNERS))
def test_planners_act(device, small_world, name, where):
    world = World.load(small_world, device)
    if where == "dream":
        env = LearnedVectorEnv(3, small_world, device=device, obs_type="slots")
    else:
        env = BouncingBallsVectorEnv(3, preset("avoid"))
    agent = agent_of(name, world, env, {})
    seen, _ = env.reset(seed=0)
    agent.reset(3)
    for step in range(4):
        actions = agent.act(seen)
        assert actions.shape == (3,)
        assert ((actions >= 0) & (actions < 9)).all()
        seen, *_ = env.step(actions)
        agent.restart(np.array([step == 1, False, False]))


@pytest.mark.parametrize("name", ["mcts", "shooting"])
def test_a_deadline_is_kept(device, small_world, name):
    env = LearnedVectorEnv(2, small_world, device=device, obs_type="slots")
    seen, _ = env.reset(seed=0)
    agent = agent_of(name, World.load(small_world, device), env, {"milliseconds": 30.0})
    agent.reset(2)
    assert agent.act(seen).shape == (2,)


def test_planners_value_sequences_as_the_processor_does(device, small_world):
    from rnem_world.agents.planner import sequence_returns

    sequences = torch.randint(0, 9, (2, 6, 8), generator=torch.Generator().manual_seed(0))
    found = []
    for place in (device, torch.device("cpu")):
        env = LearnedVectorEnv(2, small_world, device=place, obs_type="slots")
        env.reset(seed=0, options={"start": np.array([1, 2])})
        dynamics = LearnedDynamics(World.load(small_world, place), "latent")
        state = env.dreams.state.dreams.map(torch.clone)
        found.append(sequence_returns(dynamics, state, sequences.to(place)).cpu())
    torch.testing.assert_close(*found, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
@pytest.mark.parametrize("begins_on_the_card", [True, False])
def test_policies_change_devices(device, algorithm, begins_on_the_card, small_world, tmp_path):
    pytest.importorskip("stable_baselines3")
    from rnem_world.agents.config import PolicyConfig
    from rnem_world.agents.policy import last_checkpoint, read_policy_weights, read_trainer
    from rnem_world.agents.policy_agent import load_policy
    from rnem_world.agents.policy_training import train_policy

    sizes = {
        "ppo": {"n_steps": 8, "batch_size": 16, "n_epochs": 1},
        "dqn": {
            "buffer_size": 200,
            "learning_starts": 16,
            "train_freq": 4,
            "gradient_steps": 1,
            "batch_size": 8,
        },
    }
    places = [str(device), "cpu"]
    first, second = places if begins_on_the_card else places[::-1]
    shown = {"checkpoint": str(small_world), "obs_type": "slots"}

    def config(steps: int) -> PolicyConfig:
        return PolicyConfig(
            algorithm,
            "RNEM-Balls-v0",
            num_envs=4,
            timesteps=steps,
            hyperparameters=sizes[algorithm],
            env_options=shown,
        )

    run = tmp_path / "run"
    train_policy(config(64), run, device=first)
    before = read_policy_weights(last_checkpoint(run))
    env = LearnedVectorEnv(4, device=device, **shown)
    seen, _ = env.reset(seed=0)
    space, actions = env.single_observation_space, env.single_action_space
    chosen = [load_policy(run, space, actions, place).act(seen) for place in places]
    assert (chosen[0] == chosen[1]).mean() >= 0.75  # rounding may decide between equals
    train_policy(config(128), run, resume=True, device=second)
    assert read_trainer(last_checkpoint(run))[0]["steps"] == 128
    after = read_policy_weights(last_checkpoint(run))
    assert any(not torch.equal(after[name], value) for name, value in before.items())

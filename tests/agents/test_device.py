"""Planners never look at what is on their device while they draw and try out sequences."""

from __future__ import annotations

import pytest
import torch

from rnem_world.agents.dynamics import LearnedDynamics, dreamt_states
from rnem_world.agents.planner import follow
from rnem_world.agents.proposals import uninformed
from rnem_world.envs.learned import LearnedVectorEnv
from rnem_world.envs.world import World
from rnem_world.models.world_model import WorldModel
from tests.fake_cuda import fake_cuda, put_on_cuda


@pytest.mark.parametrize("imagination", ["latent", "pixels"])
def test_sequences_are_drawn_and_followed_on_the_device(tiny_world, imagination):
    env = LearnedVectorEnv(2, tiny_world, imagination=imagination)
    env.reset(seed=0)
    shapes = dreamt_states(env)()
    real = World.load(tiny_world)
    with fake_cuda():
        model = put_on_cuda(WorldModel(real.config.model)).eval()
        world = World(model, real.config, real.folder, real.fingerprint)
        dynamics = LearnedDynamics(world, imagination)
        assert dynamics.device.type == "cuda"
        state = shapes.map(lambda tensor: torch.empty(tensor.shape, device="cuda"))
        proposal = uninformed(dynamics.action_space, 2, 3, dynamics.device)
        sequences = proposal.sample(torch.zeros(2, 4, 9, 3, device="cuda"))
        proposal = proposal.refit(sequences, torch.ones(2, 4, device="cuda"), 0.1).shifted(1)
        assert proposal.restarted(torch.ones(2, dtype=torch.bool, device="cuda")).mode().device.type == "cuda"
        worlds = dynamics.select(state, torch.arange(2, device="cuda").repeat_interleave(4))
        ones = torch.ones(8, device="cuda")
        lengths = torch.ones(8, dtype=torch.int64, device="cuda")
        after, total, _ = follow(dynamics, worlds, sequences.flatten(0, 1), ones, 0.9, 2, lengths)
        assert total.device.type == after.theta.device.type == "cuda"

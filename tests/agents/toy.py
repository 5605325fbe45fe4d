"""Worlds that planners are tested in: CartPole by its equations, and a point to be brought home."""

from __future__ import annotations

import math

import torch
from gymnasium import spaces
from torch import Tensor

from rnem_world.agents.dynamics import DynamicsStep


class TensorWorld:
    """What worlds have in common whose state is one tensor (n, d)."""

    device = torch.device("cpu")

    def size(self, state: Tensor) -> int:
        return len(state)

    def select(self, state: Tensor, indices: Tensor) -> Tensor:
        return state[indices]

    def put(self, state: Tensor, indices: Tensor, worlds: Tensor) -> None:
        state[indices] = worlds


class CartPole(TensorWorld):
    """The equations of gymnasium's CartPole-v1."""

    action_space = spaces.Discrete(2)

    def step(self, state: Tensor, actions: Tensor) -> DynamicsStep[Tensor]:
        x, speed, angle, turning = state.unbind(dim=1)
        force = torch.where(actions == 1, 10.0, -10.0)
        sine, cosine = angle.sin(), angle.cos()
        push = (force + 0.05 * turning.square() * sine) / 1.1
        turn = (9.8 * sine - cosine * push) / (0.5 * (4.0 / 3.0 - 0.1 * cosine.square() / 1.1))
        drive = push - 0.05 * turn * cosine / 1.1
        following = torch.stack(
            [x + 0.02 * speed, speed + 0.02 * drive, angle + 0.02 * turning, turning + 0.02 * turn], dim=1
        )
        ended = (following[:, 0].abs() > 2.4) | (following[:, 2].abs() > 12 * math.pi / 180)
        return DynamicsStep(following, torch.ones(len(state)), ended.float())


class Point(TensorWorld):
    """A point in the plane that is moved by at most 1 along each axis; its distance from home costs."""

    action_space = spaces.Box(-1.0, 1.0, (2,))

    def step(self, state: Tensor, actions: Tensor) -> DynamicsStep[Tensor]:
        following = state + actions
        return DynamicsStep(following, -following.norm(dim=1), torch.zeros(len(state)))


class Lock(TensorWorld):
    """State (code, steps so far): the code's numbers, one after the other, earn 1 for each that is hit.

    The code moves on by 1 with every step, so that what is right now is wrong next.
    """

    def __init__(self, action_space: spaces.MultiDiscrete | spaces.MultiBinary) -> None:
        self.action_space = action_space
        binary = isinstance(action_space, spaces.MultiBinary)
        self.sizes = torch.tensor([2] * action_space.shape[0] if binary else action_space.nvec.tolist())

    def step(self, state: Tensor, actions: Tensor) -> DynamicsStep[Tensor]:
        earned = (actions == state).float().sum(dim=1)
        return DynamicsStep((state + 1) % self.sizes, earned, torch.zeros(len(state)))


class Corridor(TensorWorld):
    """State (place, steps so far). Right earns nothing until place 4, where 10 are earned and the episode ends.

    Left earns 1 at once.
    """

    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.calls = 0

    def step(self, state: Tensor, actions: Tensor) -> DynamicsStep[Tensor]:
        self.calls += 1
        place = torch.where(actions == 1, state[:, 0] + 1, torch.zeros_like(state[:, 0]))
        arrived = place >= 4
        rewards = torch.where(arrived, 10.0, torch.where(actions == 0, 1.0, 0.0))
        return DynamicsStep(torch.stack([place, state[:, 1] + 1], dim=1), rewards, arrived.float())

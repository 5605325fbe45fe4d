"""What a planner needs of a world: many copies of it that can be stepped, picked out and stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from gymnasium import spaces
from jaxtyping import Float, Int64
from torch import Tensor

from rnem_world.errors import ConfigError, DivergenceError

State = TypeVar("State")


@dataclass(frozen=True)
class Outcome(Generic[State]):
    """What follows from one step of n worlds.

    Attributes:
        state: The n worlds after it.
        rewards: Float (n,), what the step earned.
        terminated: Bool (n,), whether it ended the episode. What such a world does afterwards is of no interest.
    """

    state: State
    rewards: Tensor
    terminated: Tensor


@runtime_checkable
class Dynamics(Protocol[State]):
    """N worlds at once, whose state is opaque: planners only hand it back.

    Actions, rewards and terminations are tensors on ``device``, so that a learned world never leaves it; a
    simulator converts. Planners take the same actions to have the same consequences.

    Attributes:
        action_space: The actions of one world: ``Discrete`` from 0, or a bounded one-dimensional ``Box``.
        device: Where tensors live.
    """

    action_space: spaces.Discrete | spaces.Box
    device: torch.device

    def size(self, state: State) -> int:
        """Returns the number of worlds, n."""

    def step(self, state: State, actions: Tensor) -> Outcome[State]:
        """Moves all worlds on, leaving ``state`` as it is.

        Args:
            state: N worlds.
            actions: Int64 (n,) for discrete actions, float32 (n, d) for continuous ones.
        """

    def select(self, state: State, indices: Int64[Tensor, " m"]) -> State:
        """Returns copies of the given worlds, in that order; a world may be asked for more than once."""

    def put(self, state: State, indices: Int64[Tensor, " m"], worlds: State) -> None:
        """Overwrites the given worlds of ``state`` in place by the m given ones."""


def action_count(space: spaces.Space[object]) -> int:
    """Returns the number of discrete actions, or the size of a continuous action.

    Raises:
        ConfigError: If planners can't draw from such a space.
    """
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return int(space.n)
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.is_bounded():
        return int(space.shape[0])
    raise ConfigError(
        f"planners can't act in the action space {space}: expected Discrete from 0, or a bounded Box with one axis"
    )


def sequence_returns(
    dynamics: Dynamics[State],
    state: State,
    sequences: Tensor,
    discount: float = 1.0,
    action_repeat: int = 1,
    rows: int = 8192,
) -> Float[Tensor, "n p"]:
    """Tries out p action sequences in each of n worlds.

    Args:
        dynamics: The world.
        state: N worlds, which stay as they are.
        sequences: Int64 (n, p, h) for discrete actions, float32 (n, p, h, d) for continuous ones.
        discount: By how much a reward is worth less with every step.
        action_repeat: Steps for which each action is held.
        rows: Largest number of worlds that are stepped at once; bounds the memory.

    Returns:
        The discounted sums of rewards up to the end of the sequence or of the episode.

    Raises:
        DivergenceError: If one of them isn't finite.
    """
    n, p, horizon = sequences.shape[:3]
    flat = sequences.flatten(0, 1)
    owners = torch.arange(n, device=dynamics.device).repeat_interleave(p)
    parts = []
    for actions, owner in zip(flat.split(rows), owners.split(rows), strict=True):
        worlds = dynamics.select(state, owner)
        total = torch.zeros(len(owner), device=dynamics.device)
        weight = torch.ones_like(total)
        for step in range(horizon * action_repeat):
            outcome = dynamics.step(worlds, actions[:, step // action_repeat])
            worlds = outcome.state
            total = total + torch.where(weight > 0.0, weight * outcome.rewards, 0.0)
            weight = weight * torch.where(outcome.terminated, 0.0, discount)
        parts.append(total)
    returns: Tensor = torch.cat(parts).unflatten(0, (n, p))
    check_finite(returns)
    return returns


def check_finite(returns: Float[Tensor, "*s"]) -> None:
    """Refuses a world whose rewards aren't numbers.

    Raises:
        DivergenceError: If a return is NaN or infinite.
    """
    broken = ~torch.isfinite(returns)
    if bool(broken.any()):
        raise DivergenceError(
            f"{int(broken.sum())} of {broken.numel()} imagined returns are NaN or infinite: the world diverges; plan "
            "with a shorter horizon, or take another checkpoint"
        )

"""A learned world as dynamics, and how a planner in it knows where the real world stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from rnem_world.agents.dynamics import Outcome
from rnem_world.envs.dream_batches import step_in_parts
from rnem_world.envs.learned_vector import LearnedVectorEnv
from rnem_world.envs.learned_world import LearnedWorld
from rnem_world.envs.slot_filter import SlotFilter
from rnem_world.envs.slots import watched
from rnem_world.errors import ConfigError
from rnem_world.models.imagination import DreamState, check_imagination


class LearnedDynamics:
    """Dreams of a learned world.

    The reward is the sum of the slots' shares; a dream terminates where the model gives its end more than even odds.

    Args:
        world: The world.
        imagination: ``latent``, ``pixels``, or None: latent if the model can.

    Raises:
        ConfigError: If the model can't dream so.
    """

    def __init__(self, world: LearnedWorld, imagination: str | None = None) -> None:
        if imagination is None:
            imagination = "pixels" if world.model.prior_code is None else "latent"
        check_imagination(world.model, imagination)
        self.world = world
        self.imagination: Any = imagination
        self.action_space: spaces.Discrete | spaces.Box = spaces.Discrete(world.number_of_actions)
        self.device = world.device
        self._is_told = world.config.model.number_of_actions > 0

    def size(self, state: DreamState) -> int:
        """Returns the number of dreams."""
        return len(state.theta)

    @torch.no_grad()
    def step(self, state: DreamState, actions: Int64[Tensor, " n"]) -> Outcome[DreamState]:
        """Imagines one transition of all dreams."""
        told = actions if self._is_told else None
        step = step_in_parts(self.world.model, state, told, self.imagination)
        if step.rewards is None or step.termination is None:
            raise ConfigError("this model has no heads, which planning needs")
        return Outcome(step.state, step.rewards.sum(dim=1), step.termination > 0.0)

    def select(self, state: DreamState, indices: Int64[Tensor, " m"]) -> DreamState:
        """Returns copies of the given dreams."""
        return state.map(lambda tensor: tensor[indices])

    def put(self, state: DreamState, indices: Int64[Tensor, " m"], worlds: DreamState) -> None:
        """Overwrites the given dreams in place."""
        state.theta[indices] = worlds.theta
        state.output[indices] = worlds.output
        state.code[indices] = worlds.code
        if state.frame is not None and worlds.frame is not None:
            state.frame[indices] = worlds.frame


class WatchedState:
    """Lets the model watch the real frames, and tells a planner in `LearnedDynamics` what it has seen.

    Args:
        world: The world.
        num_slots: Slots; None takes the model's own.
    """

    def __init__(self, world: LearnedWorld, num_slots: int | None = None) -> None:
        self._world = world
        self._num_slots = num_slots
        self._filter: SlotFilter | None = None

    def reset(self, num_envs: int) -> None:
        """Starts anew with N environments."""
        self._filter = SlotFilter(self._world, num_envs, self._num_slots)

    def slots(self) -> NDArray[Any]:
        """Returns the slots' output, (n, k, d), as a policy on slots sees it."""
        return self._watching().outputs().cpu().numpy().copy()

    def _watching(self) -> SlotFilter:
        if self._filter is None:
            raise ConfigError("nothing has been watched yet: call reset first")
        return self._filter

    def observe(self, observations: NDArray[Any], actions: NDArray[Any] | None) -> DreamState:
        """Shows the slots what the environments show, and returns dreams that go on from there."""
        if self._filter is None or self._filter.number != len(observations):
            self.reset(len(observations))
        watching = self._watching()
        frames = watched(observations, self._world)
        if actions is None:
            watching.reset(torch.arange(len(observations), device=self._world.device), frames)
        else:
            done = torch.from_numpy(np.asarray(actions, dtype=np.int64)).to(self._world.device)
            watching.step(done, frames)
        # Ordinary tensors: those of inference mode can't be changed in place by a search.
        return watching.start_imagination().map(torch.clone)


class DreamtState:
    """Tells a planner in `LearnedDynamics` how a dreamt environment stands.

    Args:
        env: The environment in which the agent acts.
    """

    def __init__(self, env: LearnedVectorEnv) -> None:
        self._env = env

    def reset(self, num_envs: int) -> None:
        """Nothing to do."""

    def observe(self, observations: NDArray[Any], actions: NDArray[Any] | None) -> DreamState:
        """Returns the dreams as they are."""
        rows = self._env.num_envs
        return self._env.get_state().dreams.dreams.map(lambda tensor: tensor[:rows].clone())

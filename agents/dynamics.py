"""Worlds that planners try actions in: the learned one, and the real physics of the balls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Int64, Num
from numpy.typing import NDArray
from torch import Tensor

from rnem_world.envs.balls import BouncingBallsVectorEnv
from rnem_world.envs.dream import step_dreams
from rnem_world.envs.learned import LearnedVectorEnv
from rnem_world.envs.slots import SlotFilter
from rnem_world.envs.world import World
from rnem_world.errors import ConfigError
from rnem_world.models.world_model import DreamState
from rnem_world.physics import BallsConfig, BallsState, number_of_actions, player_velocity, step

State = TypeVar("State")


@dataclass(frozen=True)
class DynamicsStep(Generic[State]):
    """What follows from one step of n worlds.

    Attributes:
        state: The n worlds after it.
        rewards: Float (n,), what the step earned.
        termination: Float (n,), the probability that it ended the episode. What a world does afterwards that has ended
            for certain is of no interest.
    """

    state: State
    rewards: Tensor
    termination: Tensor


@runtime_checkable
class Dynamics(Protocol[State]):
    """N worlds at once, whose state is opaque: planners only hand it back.

    Actions, rewards and terminations are tensors on ``device``, so that a learned world never leaves it; a
    simulator converts. Planners take the same actions to have the same consequences.

    Attributes:
        action_space: The actions of one world: ``Discrete``, ``MultiDiscrete`` or ``MultiBinary``, from 0 and flat, or
            a bounded one-dimensional ``Box``.
        device: Where tensors live.
    """

    action_space: spaces.Space[Any]
    device: torch.device

    def size(self, state: State) -> int:
        """Returns the number of worlds, n."""

    def step(self, state: State, actions: Tensor) -> DynamicsStep[State]:
        """Moves all worlds on, leaving ``state`` as it is.

        Args:
            state: N worlds.
            actions: Int64 (n,) or (n, d) for whole numbers, float32 (n, d) for real ones.
        """

    def select(self, state: State, indices: Int64[Tensor, " m"]) -> State:
        """Returns copies of the given worlds, in that order; a world may be asked for more than once."""

    def put(self, state: State, indices: Int64[Tensor, " m"], worlds: State) -> None:
        """Overwrites the given worlds of ``state`` in place by the m given ones."""


StateSource = Callable[[NDArray[Any], NDArray[Any] | None, Bool[np.ndarray, " n"]], State]
"""Tells how n environments stand, as the state of some dynamics. It is called once a step, with what the environments
show, (n, ...); with the actions that have led there, as these take them, None at the start; and with which of them show
the first observation of an episode, all at the start."""


def planned_actions(world: World) -> spaces.Space[Any]:
    """Gives the actions among which planners choose in a world: as its model is given them, and within bounds.

    Raises:
        ConfigError: If it takes none of the environment's.
    """
    known, model = world.actions, world.config.model.actions
    if known.is_discrete:
        return spaces.Discrete(known.sizes[0])
    if model is None:
        raise ConfigError(
            f"{world.folder.name} was trained without actions, so that a planner has nothing to choose from"
        )
    if known.kind == "multi_binary":
        return spaces.MultiBinary(known.length)
    if known.kind == "multi_discrete":
        return spaces.MultiDiscrete(np.array(known.sizes, np.int64))
    # Where the environment has no bounds, the model has those of its data.
    return spaces.Box(np.array(model.low, np.float32), np.array(model.high, np.float32))


class LearnedDynamics:
    """Dreams of a learned world.

    The reward is the sum of the slots' shares. Ends are told by their probability, where the environment of the same
    world has to decide: a plan that risks the end is worth less than one that doesn't, long before it is likely.

    Attributes:
        actions: What the world's environment takes for the actions that planners choose.

    Args:
        world: The world.
        imagination: ``latent``, ``pixels``, or None: latent if the model can.
        engine: What computes steps, see `rnem_world.envs.engine.make_engine`.

    Raises:
        ConfigError: If the model can't dream so.
        RnemWorldError: If there is no such engine for the world.
    """

    def __init__(self, world: World, imagination: str | None = None, engine: str = "auto") -> None:
        imagination = world.ways[0] if imagination is None else imagination
        world.model.check_imagination(imagination)
        world.engine(engine)  # refused here, and not at the first step
        self.world = world
        self._engine = engine
        self.imagination: Any = imagination
        self.actions = world.actions
        self.action_space: spaces.Space[Any] = planned_actions(world)
        self.device = world.device

    def size(self, state: DreamState) -> int:
        """Returns the number of dreams."""
        return len(state.theta)

    @torch.no_grad()
    def step(self, state: DreamState, actions: Num[Tensor, "n ..."]) -> DynamicsStep[DreamState]:
        """Imagines one transition of all dreams."""
        step = step_dreams(self.world, state, actions, self.imagination, self.world.engine(self._engine))
        if step.rewards is None or step.termination is None:
            raise ConfigError("this model has no heads, which planning needs")
        return DynamicsStep(step.state, step.rewards.sum(dim=1), step.termination.sigmoid())

    def select(self, state: DreamState, indices: Int64[Tensor, " m"]) -> DreamState:
        """Returns copies of the given dreams, without their frames where imagination is latent: nobody reads them."""
        if self.imagination == "latent":
            state = replace(state, frame=None)
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
    """

    def __init__(self, world: World) -> None:
        self._world = world

    def slots(self) -> NDArray[Any]:
        """Returns the slots' output after the last `observe`, (n, k, d), as a policy on slots sees it."""
        return self._filter.outputs().cpu().numpy().copy()

    def observe(
        self, observations: NDArray[Any], actions: NDArray[Any] | None, begun: Bool[np.ndarray, " n"]
    ) -> DreamState:
        """Shows the slots what the environments show, and returns dreams that go on from there."""
        device = self._world.device
        if actions is None:
            self._filter = SlotFilter(self._world, len(observations))
        else:
            self._filter.step(self._world.encoded(actions), self._world.frames_for_model(observations))
        if begun.any():
            rows = torch.from_numpy(np.flatnonzero(begun)).to(device)
            self._filter.reset(rows, self._world.frames_for_model(observations[begun]))
        # Ordinary tensors: those of inference mode can't be changed in place by a search.
        return self._filter.start_imagination().map(torch.clone)


def dreamt_states(env: LearnedVectorEnv) -> StateSource[DreamState]:
    """Tells a planner in `LearnedDynamics` how a dreamt environment stands, whatever it shows."""

    def observe(*seen: Any) -> DreamState:
        return env.dreams.state.dreams.map(torch.clone)

    return observe


class BallsDynamics:
    """Worlds of balls without frames, on the CPU; equal to ``RNEM-BallsReal-v0``.

    Args:
        rules: The rules of the worlds.

    Raises:
        ConfigError: If these worlds have no player.
    """

    def __init__(self, rules: BallsConfig) -> None:
        if not rules.player:
            raise ConfigError(
                "these balls have no player, and a planner nothing to do: choose a preset with a player"
            )
        self.rules = rules
        self.action_space: spaces.Space[Any] = spaces.Discrete(number_of_actions(rules))
        self.device = torch.device("cpu")

    def size(self, state: BallsState) -> int:
        """Returns the number of worlds."""
        return len(state)

    def step(self, state: BallsState, actions: Int64[Tensor, " n"]) -> DynamicsStep[BallsState]:
        """Moves all worlds on by one frame; the reward is -1 where the player's ball meets another."""
        velocity = player_velocity(self.rules, actions.numpy())
        following, touching = step(state, self.rules, velocity)
        rewards = torch.from_numpy(np.where(touching[:, 0], np.float32(-1.0), np.float32(0.0)))
        return DynamicsStep(following, rewards, torch.zeros(len(rewards)))

    def select(self, state: BallsState, indices: Int64[Tensor, " m"]) -> BallsState:
        """Returns copies of the given worlds."""
        return state.take(indices.numpy())

    def put(self, state: BallsState, indices: Int64[Tensor, " m"], worlds: BallsState) -> None:
        """Overwrites the given worlds in place."""
        state.put(indices.numpy(), worlds)


def simulator_states(env: BouncingBallsVectorEnv) -> StateSource[BallsState]:
    """Tells a planner in `BallsDynamics` how a real environment stands: what makes it the oracle."""

    def observe(*seen: Any) -> BallsState:
        balls: BallsState = env.get_state().state.balls
        return balls

    return observe

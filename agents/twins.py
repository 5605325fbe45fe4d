"""The real environment played twice from the same seeds: by a player, and by one who in the end does something else.

Where the two then differ is what the actions have decided: the object that is steered, and what it has come to touch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8
from numpy.typing import NDArray

from rnem_world.actions import ActionSpace
from rnem_world.agents.base import Agent
from rnem_world.envs.episodes import Transition
from rnem_world.envs.real import is_game, real_environment
from rnem_world.envs.vector import BatchedVectorEnv
from rnem_world.envs.world import World
from rnem_world.errors import DataError

MakeAgent = Callable[[BatchedVectorEnv], Agent]
TRUTH = ("groups", "positions")
"""What balls say of their frames."""


@dataclass(frozen=True)
class Twins:
    """What n environments showed; time comes first.

    Attributes:
        frames: Of the player.
        others: Of the twin, from the frame on that follows the context.
        actions: The player's, as a model is given them.
        rewards: Of the player's transitions.
        terminations: Which of them ended an episode.
        lasts: Which of the player's frames are of the episode of the first one.
        twin_lasts: Which of the twin's.
        truth: What `TRUTH` names, of the player's frames, where it is known.
    """

    frames: UInt8[np.ndarray, "t n h w c"]
    others: UInt8[np.ndarray, "horizon n h w c"]
    actions: Shaped[np.ndarray, "t n ..."]
    rewards: Float32[np.ndarray, "t n"]
    terminations: Bool[np.ndarray, "t n"]
    lasts: Bool[np.ndarray, "t n"]
    twin_lasts: Bool[np.ndarray, "horizon n"]
    truth: dict[str, NDArray[Any]]


def other_actions(
    actions: Shaped[np.ndarray, "n ..."], space: ActionSpace, shifts: NDArray[np.float64]
) -> Shaped[np.ndarray, "n ..."]:
    """Makes actions that are others in every number, as far as there are others.

    Args:
        actions: As a model is given them.
        space: What they are.
        shifts: In [0, 1), for every number of an action; alike shifts for alike actions give alike ones.
    """
    drawn = shifts if space.stored_shape else shifts[:, 0]
    if space.kind != "box":
        sizes = np.array(space.sizes if space.stored_shape else space.sizes[0])
        steps = 1 + np.floor(drawn * np.maximum(sizes - 1, 1)).astype(np.int64)
        shifted: Shaped[np.ndarray, "n ..."] = (actions + steps) % sizes
        return shifted
    pairs = zip(space.low, space.high, strict=True)
    low, high = np.array([_range(least, greatest) for least, greatest in pairs], np.float64).T
    # Between a quarter and three quarters of the range away, and around its end.
    moved = (actions - low) / (high - low) + 0.25 + 0.5 * drawn
    wrapped: Shaped[np.ndarray, "n ..."] = (low + (moved % 1.0) * (high - low)).astype(np.float32)
    return wrapped


def _range(low: float | None, high: float | None) -> tuple[float, float]:
    """Gives bounds of a real number; where one or both are missing, those of a range of 2."""
    if low is None:
        low = -1.0 if high is None else high - 2.0
    return low, low + 2.0 if high is None else high


def play_twins(
    world: World, make_agent: MakeAgent, number: int, lead: int, context: int, horizon: int, seed: int
) -> Twins:
    """Plays, and leaves out whose episode doesn't go on after the context.

    Args:
        world: The world whose real environment it is.
        make_agent: Makes the player.
        number: Environments side by side.
        lead: Steps before the first frame that is kept.
        context: Frames that are the same in both.
        horizon: Frames after them.
        seed: Of the first environment, and of the twin's actions; the next environment has the next.

    Raises:
        DataError: If the environment does different things with the same seeds and actions.
        RnemWorldError: If it can't be made, or fails.
    """
    options: dict[str, Any] = {"autoreset_mode": "Disabled", "max_episode_steps": None}
    truthful = options | ({"ground_truth": True} if is_of_balls(world) else {})
    space = world.actions
    shifts = np.random.default_rng(seed).random((number, space.length))
    kept: dict[str, list[NDArray[Any]]] = defaultdict(list)
    with (
        closing(real_environment(world, number, **truthful)) as env,
        closing(real_environment(world, number, **options)) as other,
    ):
        seeds = list(range(seed, seed + number))
        player, twin, agent = _Side(env, seeds), _Side(other, seeds), make_agent(env)
        agent.reset(number)
        are_alike = goes_on = np.ones(number, np.bool_)
        for step in range(lead + context + horizon):
            if step < lead + context:
                are_alike = are_alike & (player.frames == twin.frames).reshape(number, -1).all(axis=1)
                goes_on = ~player.has_ended
            else:
                kept["others"].append(twin.frames)
                kept["twin_lasts"].append(twin.lasts)
            if step >= lead:
                kept["frames"].append(player.frames)
                kept["lasts"].append(player.lasts)
                for name in TRUTH:
                    if name in player.infos:
                        kept[name].append(player.infos[name])
            actions = agent.act(player.frames)
            done = space.encode(actions)
            differs = step >= lead + context - 1
            moved = player.move(actions)
            twin.move(space.decode(other_actions(done, space, shifts)) if differs else actions)
            agent.restart(player.is_over)
            if step >= lead:
                kept["actions"].append(done)
                kept["rewards"].append(moved.rewards.astype(np.float32))
                kept["terminations"].append(moved.terminations)
    if not (are_alike | ~goes_on).any():
        raise DataError(
            f"{world.config.environment or world.folder.name} shows different things with the same seeds and actions, "
            "so that nobody knows what actions decide there"
        )
    rows = are_alike & goes_on
    arrays = {name: np.stack(values)[:, rows] for name, values in kept.items()}
    truth = {name: arrays.pop(name) for name in TRUTH if name in arrays}
    return Twins(**arrays, truth=truth)


def is_of_balls(world: World) -> bool:
    """Tells whether a world was learned from the balls of this package, which say where they are."""
    return world.config.recipe is None and not is_game(world)


class _Side:
    """Environments whose first episodes count.

    Attributes:
        frames: What they show.
        infos: What they say of it.
        lasts: Whose frame is of the first episode.
        has_ended: Whose first episode is over.
        is_over: Whose episode has ended with the last step, and has been begun anew.
    """

    def __init__(self, env: BatchedVectorEnv, seeds: list[int]) -> None:
        self._env = env
        self.frames, self.infos = env.reset(seed=seeds)
        self.lasts = np.ones(len(seeds), np.bool_)
        self.has_ended = self.is_over = np.zeros(len(seeds), np.bool_)

    def move(self, actions: NDArray[Any]) -> Transition:
        """Makes a step; a last frame is shown once, and what follows it is of no interest."""
        moved = self._env.move(actions)
        self.frames, self.infos, self.is_over = moved.observations, moved.infos, self._env.episodes.finished
        self.lasts = self.lasts & ~self.has_ended
        self.has_ended = self.has_ended | self.is_over
        if self.is_over.any():
            self._env.reset(options={"reset_mask": self.is_over})
        return moved

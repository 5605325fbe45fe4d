"""The real environment beside a dream: begun together, and done to it what is done in the dream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from jaxtyping import UInt8
from numpy.typing import NDArray

from rnem_world.envs.any import AnyVectorEnv
from rnem_world.envs.episodes import Transition
from rnem_world.envs.real import real_environment
from rnem_world.envs.start_source import context_frames
from rnem_world.envs.starts import HELD_STEPS
from rnem_world.envs.world import World
from rnem_world.errors import DataError

SPACING = 10
"""Steps between two copies of the environment that are kept: those of games take 80 kB each."""

ATTEMPTS, LEAD = 20, 32
"""How often an episode is begun until one lasts, and the least steps before what a dream watches, in the first half of
them: in a game's first moments little moves that slots could tell apart."""


@dataclass(frozen=True)
class RealMoment:
    """The real environment at one time.

    Attributes:
        frame: Uint8 (h, w, c), as the world knows frames.
        action: What led here, as it is stored; None at the beginning.
        reward: What that earned.
        ended: Whether the episode is over.
        number: Steps since the beginning.
        is_copied: Whether one can go back to it without living through what came before.
        state: A copy of the environment; None where there is none.
    """

    frame: UInt8[np.ndarray, "h w c"]
    action: NDArray[Any] | None
    reward: float
    ended: bool
    number: int
    is_copied: bool
    state: Any = None


class Reality:
    """One copy of the real environment.

    Environments of others can't be copied: going back in them is beginning anew and doing the same again.

    Args:
        world: The world that was learned from it.

    Raises:
        RnemWorldError: If nobody knows which environment it is, or it can't be made.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._env = real_environment(world, 1, max_episode_steps=None, autoreset_mode=AutoresetMode.DISABLED)
        self._can_copy = not isinstance(self._env, AnyVectorEnv)
        # Where episodes are short, dreams watch fewer frames.
        self._context = context_frames(world)
        self._seed = 0
        self._done: list[NDArray[Any]] = []
        """What was done since the environment began, if it can't be copied; the first of it before the dream began."""
        self._before = 0
        self._at: RealMoment | None = None
        self._since_copy = 0

    def begin(self, seed: int) -> tuple[UInt8[np.ndarray, "t h w c"], NDArray[Any], RealMoment]:
        """Begins an episode, and lets random actions go by that a world can watch before it dreams on.

        Args:
            seed: Of the episode, and of the actions.

        Returns:
            The frames, the actions between them as they are stored, and the moment of the last frame.

        Raises:
            DataError: If episodes always end within so few frames.
        """
        generator = np.random.default_rng(seed)
        space = self._env.single_action_space
        space.seed(int(generator.integers(2**31)))
        for attempt in range(ATTEMPTS):
            lead = int(generator.integers(LEAD, 2 * LEAD)) if attempt < ATTEMPTS // 2 else 0
            self._seed = (seed + attempt) % 2**31
            frames = [self._known(self._env.reset(seed=self._seed)[0])]
            actions: list[NDArray[Any]] = []
            while len(actions) < lead + self._context - 1 and not self._is_over:
                stored = self._world.actions.encode(np.asarray(space.sample())[None])[0]
                actions.append(actions[-1] if len(actions) % HELD_STEPS else np.asarray(stored))
                frames.append(self._known(self._move(actions[-1]).observations))
            if not self._is_over:
                state = self._env.get_state() if self._can_copy else None
                self._at = RealMoment(frames[-1], None, 0.0, False, 0, True, state)
                self._since_copy, self._done, self._before = 0, actions, len(actions)
                shown, between = frames[-self._context :], actions[1 - self._context :]
                return np.stack(shown), np.stack(between), self._at
        raise DataError(
            f"{ATTEMPTS} real episodes ended within {self._context} frames, which a dream has to watch first"
        )

    def step(self, action: NDArray[Any]) -> RealMoment:
        """Makes a step.

        Args:
            action: What is done, as it is stored.
        """
        shown = self._move(action)
        number = 1 if self._at is None else self._at.number + 1
        state, self._since_copy = None, self._since_copy + 1
        if not self._can_copy:
            self._done.append(action)
        elif self._since_copy == SPACING:
            state, self._since_copy = self._env.get_state(), 0
        is_copied = state is not None or not self._can_copy
        frame = self._known(shown.observations)
        self._at = RealMoment(frame, action, float(shown.rewards[0]), self._is_over, number, is_copied, state)
        return self._at

    def go_to(self, past: Sequence[RealMoment]) -> None:
        """Goes to the last of some moments that followed one another, the first of which is copied."""
        goal = past[-1]
        if goal is self._at:
            return
        if self._can_copy:
            index = max(index for index, moment in enumerate(past) if moment.is_copied)
            self._env.set_state(past[index].state)
            missing = [moment.action for moment in past[index + 1 :] if moment.action is not None]
            self._since_copy = len(missing)
        else:
            self._env.reset(seed=self._seed)
            del self._done[self._before + goal.number :]
            missing = list(self._done)
        for action in missing:
            self._move(action)
        self._at = goal

    def close(self) -> None:
        """Lets it go."""
        self._env.close()

    @property
    def _is_over(self) -> bool:
        return bool(self._env.episodes.finished[0])

    def _move(self, action: NDArray[Any]) -> Transition:
        return self._env.move(self._world.actions.decode(action[None]))

    def _known(self, observations: NDArray[Any]) -> UInt8[np.ndarray, "h w c"]:
        """Turns a batch of one observation into a frame as the world knows them."""
        frame = self._world.known_frames(observations[0])
        return frame.astype(np.uint8) * np.uint8(255) if frame.dtype == np.bool_ else frame

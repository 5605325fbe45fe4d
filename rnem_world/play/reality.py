"""The real environment beside a dream: begun together, and done to it what is done in the dream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from jaxtyping import UInt8
from numpy.typing import NDArray

from rnem_world.envs.real import real_environment
from rnem_world.envs.starts import CONTEXT_FRAMES, HELD_STEPS
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
        action: What led here; None at the beginning.
        reward: What that earned.
        ended: Whether the episode is over.
        state: A copy of the environment; None where only an earlier moment has one.
    """

    frame: UInt8[np.ndarray, "h w c"]
    action: NDArray[Any] | None
    reward: float
    ended: bool
    state: Any


class Reality:
    """One copy of the real environment.

    Args:
        world: The world that was learned from it.

    Raises:
        RnemWorldError: If nobody knows which environment it is, or it can't be made.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._env = real_environment(world, 1, max_episode_steps=None, autoreset_mode=AutoresetMode.DISABLED)
        self._at: RealMoment | None = None
        self._since_copy = 0

    @property
    def name(self) -> str:
        """What it is called."""
        return type(self._env).__name__

    def begin(self, seed: int) -> tuple[UInt8[np.ndarray, "t h w c"], NDArray[Any], RealMoment]:
        """Begins an episode, and lets random actions go by that a world can watch before it dreams on.

        Args:
            seed: Of the episode, and of the actions.

        Returns:
            The frames, the actions between them, and the moment of the last frame.

        Raises:
            DataError: If episodes always end within so few frames.
        """
        generator = np.random.default_rng(seed)
        space = self._env.single_action_space
        space.seed(int(generator.integers(2**31)))
        for attempt in range(ATTEMPTS):
            lead = int(generator.integers(LEAD, 2 * LEAD)) if attempt < ATTEMPTS // 2 else 0
            frames = [self._known(self._env.reset(seed=(seed + attempt) % 2**31)[0])]
            actions: list[NDArray[Any]] = []
            while len(actions) < lead + CONTEXT_FRAMES - 1 and not self._env.episodes.finished[0]:
                held = actions[-1] if len(actions) % HELD_STEPS else np.asarray(space.sample())
                actions.append(held)
                frames.append(self._known(self._env.move(held[None]).observations))
            if not self._env.episodes.finished[0]:
                moment = RealMoment(frames[-1], None, 0.0, False, self._env.get_state())
                self._at, self._since_copy = moment, 0
                last = np.stack(frames[-CONTEXT_FRAMES:]), np.stack(actions[1 - CONTEXT_FRAMES :])
                return *last, moment
        raise DataError(
            f"{ATTEMPTS} real episodes ended within {CONTEXT_FRAMES} frames, which a dream has to watch first"
        )

    def step(self, action: NDArray[Any]) -> RealMoment:
        """Makes a step."""
        shown = self._env.move(action[None])
        self._since_copy += 1
        state = None
        if self._since_copy == SPACING:
            state, self._since_copy = self._env.get_state(), 0
        ended = bool(self._env.episodes.finished[0])
        self._at = RealMoment(self._known(shown.observations), action, float(shown.rewards[0]), ended, state)
        return self._at

    def go_to(self, past: Sequence[RealMoment]) -> None:
        """Goes to the last of some moments that followed one another, the first of which has a copy."""
        if past[-1] is self._at:
            return
        index = max(index for index, moment in enumerate(past) if moment.state is not None)
        self._env.set_state(past[index].state)
        for moment in past[index + 1 :]:
            if moment.action is not None:
                self._env.move(moment.action[None])
        self._at, self._since_copy = past[-1], len(past) - 1 - index

    def close(self) -> None:
        """Lets it go."""
        self._env.close()

    def _known(self, observations: NDArray[Any]) -> UInt8[np.ndarray, "h w c"]:
        """Turns a batch of one observation into a frame as the world knows them."""
        frame = self._world.known_frames(observations[0])
        return frame.astype(np.uint8) * np.uint8(255) if frame.dtype == np.bool_ else frame

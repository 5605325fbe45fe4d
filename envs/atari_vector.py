"""N Atari games as one vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Int64, UInt8
from numpy.typing import NDArray

from rnem_world.envs.atari_emulator import (
    MAX_EPISODE_STEPS,
    REPEAT_PROBABILITY,
    SIZE,
    EmulatorSnapshot,
)
from rnem_world.envs.atari_observation import AtariRules
from rnem_world.envs.bouncing_balls import check_render_mode
from rnem_world.envs.vector_arguments import (
    autoreset_mode_of,
    check_actions,
    check_sizes,
    reset_mask_of,
    seeds_of,
)
from rnem_world.envs.vector_infos import final_infos, with_masks
from rnem_world.errors import ConfigError

Array = NDArray[Any]


@dataclass(frozen=True)
class AtariVectorSnapshot:
    """A copy of an `AtariVectorEnv`.

    Attributes:
        emulators: The consoles.
        frames: The last frames.
        elapsed: Steps since the reset.
        finished: Which episodes are over and wait for their reset.
    """

    emulators: tuple[EmulatorSnapshot, ...]
    frames: UInt8[np.ndarray, "n *shape"]
    elapsed: Int64[np.ndarray, " n"]
    finished: Bool[np.ndarray, " n"]


class AtariVectorEnv(VectorEnv[Array, Array, Array]):
    """N times `rnem_world.envs.atari.AtariEnv` in one; see there for observations, actions and rewards.

    Sub-environment i is equal to the single environment with the seed ``seed + i``. The consoles run one after the
    other in this process: ale-py's own vector environment was measured to be no faster per core, and its consoles
    can't be copied.

    Args:
        num_envs: N.
        game: The game's name.
        obs_type: ``"binary"``, ``"grayscale"`` or ``"rgb"``.
        reward: ``"raw"`` or ``"sign"``.
        background: As for the single environment.
        repeat_probability: As for the single environment.
        max_episode_steps: Steps after which an episode is truncated; None for never.
        autoreset_mode: When a finished episode is reset: with the next step, with the same, or not by itself.
        render_mode: ``"rgb_array"`` or None.

    Raises:
        ConfigError: If an argument makes no sense.
        DataError: If the background can't be read.
        DependencyError: If ale-py is not installed.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array"],
        "render_fps": 15,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        game: str = "SpaceInvaders",
        obs_type: str = "binary",
        reward: str = "raw",
        background: Any = None,
        repeat_probability: float = REPEAT_PROBABILITY,
        max_episode_steps: int | None = MAX_EPISODE_STEPS,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        check_sizes(num_envs, max_episode_steps)
        check_render_mode(render_mode)
        self.autoreset_mode = autoreset_mode_of(autoreset_mode)
        self.render_mode = render_mode
        self.rules = AtariRules(game, obs_type, reward, background, repeat_probability)
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        # A dictionary of one's own: others write into the one that all vector environments share.
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}  # type: ignore[misc]
        self._emulators = [self.rules.emulator() for _ in range(num_envs)]
        self.single_observation_space = self.rules.space
        self.single_action_space = spaces.Discrete(len(self._emulators[0].action_names))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        colours = (3,) if obs_type == "rgb" else ()
        self._frames = np.zeros((num_envs, SIZE, SIZE, *colours), dtype=np.uint8)
        self._lives = np.zeros(num_envs, dtype=np.int64)
        self._elapsed = np.zeros(num_envs, dtype=np.int64)
        self._started = np.zeros(num_envs, dtype=np.bool_)
        self._finished = np.zeros(num_envs, dtype=np.bool_)

    @property
    def action_names(self) -> list[str]:
        """The actions, in the order of their numbers."""
        return self._emulators[0].action_names

    @property
    def elapsed(self) -> Int64[np.ndarray, " n"]:
        """Steps of each episode so far."""
        return self._elapsed.copy()

    def frames(self) -> UInt8[np.ndarray, "n 84 84 *c"]:
        """Returns the current frames in grey (in colour for ``rgb``), whatever the observations are."""
        return self._frames.copy()

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Starts new games.

        Args:
            seed: A seed for all, or one for each; consoles without one go on with their sticky actions.
            options: ``reset_mask``: N booleans, the games to start anew; without it all are.

        Returns:
            The frames (N, 84, 84, C) and the infos.

        Raises:
            ConfigError: If the seeds or the mask don't fit.
        """
        mask = reset_mask_of(options, self.num_envs)
        for index, single_seed in enumerate(seeds_of(seed, self.num_envs)):
            if not mask[index]:
                continue
            if single_seed is not None:
                self._emulators[index].seed(single_seed)
            elif not self._started[index]:
                self._emulators[index].seed(int(self.np_random.integers(2**31)))
        self._reset(mask)
        return self._observations(), with_masks(self._told(np.zeros(self.num_envs, dtype=np.bool_)), mask)

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Holds an action for four frames in every game.

        Args:
            actions: N integers.

        Returns:
            Frames, rewards, terminations, truncations, infos.

        Raises:
            ConfigError: If the actions are of another kind.
            gymnasium.error.ResetNeeded: If a game has to be reset first.
        """
        buttons = check_actions(actions, self.num_envs, len(self.action_names)).tolist()
        waiting = self._finished.copy()
        if not self._started.all() or (waiting.any() and self.autoreset_mode is not AutoresetMode.NEXT_STEP):
            needed = np.flatnonzero(~self._started | waiting).tolist()
            raise ResetNeeded(f"reset sub-environments {needed} before the next step")
        points = np.zeros(self.num_envs, dtype=np.float64)
        terminations = np.zeros(self.num_envs, dtype=np.bool_)
        life_lost = np.zeros(self.num_envs, dtype=np.bool_)
        for index, (emulator, button) in enumerate(zip(self._emulators, buttons, strict=True)):
            if not waiting[index]:
                points[index], terminations[index], life_lost[index] = emulator.step(button)
                self._frames[index] = emulator.frame()
                self._lives[index] = emulator.lives
        self._elapsed += 1
        if waiting.any():
            self._reset(waiting)
        truncations = np.zeros(self.num_envs, dtype=np.bool_)
        if self.max_episode_steps is not None:
            truncations = (self._elapsed >= self.max_episode_steps) & ~terminations
        over = terminations | truncations
        everywhere = np.ones(self.num_envs, dtype=np.bool_)
        final: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and over.any():
            final = final_infos(self._observations(), self._told(life_lost), over)
            self._reset(over)
            life_lost = life_lost & ~over
        else:
            self._finished = over
        infos = with_masks(self._told(life_lost), everywhere) | final
        return self._observations(), self.rules.earned(points), terminations, truncations, infos

    def render(self) -> tuple[Array, ...] | None:
        """Returns the consoles' screens, each (210, 160, 3) uint8, in the mode ``rgb_array``, else None."""
        if self.render_mode != "rgb_array":
            return None
        return tuple(emulator.screen() for emulator in self._emulators)

    def get_state(self) -> AtariVectorSnapshot:
        """Returns a copy of everything that the future depends on.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if not self._started.all():
            raise ResetNeeded("reset the environment before anything else")
        return AtariVectorSnapshot(
            tuple(emulator.get_state() for emulator in self._emulators),
            self._frames.copy(),
            self._elapsed.copy(),
            self._finished.copy(),
        )

    def set_state(self, snapshot: AtariVectorSnapshot) -> Array:
        """Goes back to a copy; the same actions then give exactly the same frames.

        Returns:
            The frames of the copy.

        Raises:
            ConfigError: If the copy is of an environment with other observations or another number of games.
        """
        if snapshot.frames.shape != self._frames.shape:
            raise ConfigError(
                f"the snapshot's frames have the shape {snapshot.frames.shape}, expected {self._frames.shape}: it is "
                "of an environment with other observations or another number of games"
            )
        for emulator, state in zip(self._emulators, snapshot.emulators, strict=True):
            emulator.set_state(state)
        self._frames = snapshot.frames.copy()
        self._lives = np.array([emulator.lives for emulator in self._emulators], dtype=np.int64)
        self._elapsed, self._finished = snapshot.elapsed.copy(), snapshot.finished.copy()
        self._started[:] = True
        return self._observations()

    def _reset(self, mask: Bool[np.ndarray, " n"]) -> None:
        for index in np.flatnonzero(mask).tolist():
            self._emulators[index].reset()
            self._frames[index] = self._emulators[index].frame()
            self._lives[index] = self._emulators[index].lives
        self._started |= mask
        self._elapsed[mask] = 0
        self._finished[mask] = False

    def _observations(self) -> Array:
        observations = self.rules.observation(self._frames)
        return observations if self.rules.obs_type == "binary" else observations.copy()

    def _told(self, life_lost: Bool[np.ndarray, " n"]) -> dict[str, Any]:
        return {"lives": self._lives.copy(), "life_lost": life_lost}

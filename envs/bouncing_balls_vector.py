"""N worlds of balls as one vector environment, stepped at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

from rnem_world.envs.balls_worlds import BallsWorlds, WorldsSnapshot, rules_of
from rnem_world.envs.bouncing_balls import check_render_mode, observation_space_of
from rnem_world.envs.vector_arguments import autoreset_mode_of, check_sizes, reset_mask_of, seeds_of
from rnem_world.envs.vector_infos import final_infos, with_masks
from rnem_world.physics import BallsConfig

Array = NDArray[Any]


@dataclass(frozen=True)
class BallsVectorSnapshot:
    """A copy of a `BouncingBallsVectorEnv`.

    Attributes:
        worlds: The worlds.
        elapsed: Steps since the reset.
        finished: Which episodes are over and wait for their reset.
        generators: The states of the random generators.
    """

    worlds: WorldsSnapshot
    elapsed: Int64[np.ndarray, " n"]
    finished: Bool[np.ndarray, " n"]
    generators: tuple[dict[str, Any], ...]


class BouncingBallsVectorEnv(VectorEnv[Array, Array, Array]):
    """N times `BouncingBallsEnv` in one; see there for observations, actions and rewards.

    Sub-environment i has its own generator, seeded with ``seed + i`` as Gymnasium does, and is equal to the
    single environment with that seed.

    Args:
        num_envs: N.
        preset: The name of the rules (`rnem_world.physics.PRESETS`), or the rules.
        max_episode_steps: Steps after which an episode is truncated; None for never.
        autoreset_mode: When a finished episode is reset: with the next step, with the same, or not by itself.
        ground_truth: Whether ``info`` has ``groups``, ``collisions``, ``positions`` and ``velocities``; see
            `BallsWorlds.ground_truth`.
        render_mode: ``"rgb_array"`` or None.

    Raises:
        ConfigError: If an argument makes no sense.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array"],
        "render_fps": 20,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        preset: str | BallsConfig = "avoid",
        max_episode_steps: int | None = 100,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        ground_truth: bool = False,
        render_mode: str | None = None,
    ) -> None:
        check_sizes(num_envs, max_episode_steps)
        self.autoreset_mode = autoreset_mode_of(autoreset_mode)
        check_render_mode(render_mode)
        self.render_mode = render_mode
        self.rules = rules_of(preset)
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        # A dictionary of one's own: others write into the one that all vector environments share.
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}  # type: ignore[misc]
        self._ground_truth = ground_truth
        self._worlds = BallsWorlds(self.rules, num_envs)
        self.single_observation_space = observation_space_of(self.rules)
        self.single_action_space = spaces.Discrete(self._worlds.number_of_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators = [np_random()[0] for _ in range(num_envs)]
        self._elapsed = np.zeros(num_envs, dtype=np.int64)
        self._finished = np.zeros(num_envs, dtype=np.bool_)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Draws new worlds.

        Args:
            seed: A seed for all, or one for each; generators without one go on.
            options: ``reset_mask``: N booleans, the worlds to reset; without it all are.

        Returns:
            The frames (N, H, W, 1) and the infos.

        Raises:
            ConfigError: If the seeds or the mask don't fit.
        """
        mask = reset_mask_of(options, self.num_envs)
        for index, single_seed in enumerate(seeds_of(seed, self.num_envs)):
            if single_seed is not None and mask[index]:
                self._generators[index], _ = np_random(single_seed)
        self._reset(mask)
        return self._worlds.frames(), with_masks(self._truth(), mask)

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Moves all worlds on by one frame.

        Args:
            actions: N integers.

        Returns:
            Frames, rewards, terminations (never), truncations, infos.

        Raises:
            ConfigError: If the actions are of another kind.
            gymnasium.error.ResetNeeded: If a world has to be reset first.
        """
        waiting = self._finished.copy()
        if waiting.any() and self.autoreset_mode is not AutoresetMode.NEXT_STEP:
            raise ResetNeeded(
                f"reset sub-environments {np.flatnonzero(waiting).tolist()} before the next step"
            )
        rewards = self._worlds.step(actions)
        self._elapsed += 1
        if waiting.any():
            self._reset(waiting)
            rewards[waiting] = 0.0
        truncations = np.zeros(self.num_envs, dtype=np.bool_)
        if self.max_episode_steps is not None:
            truncations = self._elapsed >= self.max_episode_steps
        terminations = np.zeros(self.num_envs, dtype=np.bool_)
        final: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and truncations.any():
            final = final_infos(self._worlds.frames(), self._truth(), truncations)
            self._reset(truncations)
        else:
            self._finished = truncations.copy()
        everywhere = np.ones(self.num_envs, dtype=np.bool_)
        infos = with_masks(self._truth(), everywhere) | final
        return self._worlds.frames(), rewards, terminations, truncations, infos

    def render(self) -> tuple[Array, ...] | None:
        """Returns N coloured pictures (256, 256, 3) of uint8 in the mode ``rgb_array``, else None."""
        return tuple(self._worlds.render()) if self.render_mode == "rgb_array" else None

    def get_state(self) -> BallsVectorSnapshot:
        """Returns a copy of everything that the future depends on.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        return BallsVectorSnapshot(
            self._worlds.get_state(),
            self._elapsed.copy(),
            self._finished.copy(),
            tuple(dict(generator.bit_generator.state) for generator in self._generators),
        )

    def set_state(self, snapshot: BallsVectorSnapshot) -> None:
        """Goes back to a copy; the same actions then give exactly the same frames.

        Raises:
            ConfigError: If the copy is of an environment with other rules or another number of worlds.
        """
        self._worlds.set_state(snapshot.worlds)
        self._elapsed = snapshot.elapsed.copy()
        self._finished = snapshot.finished.copy()
        for generator, state in zip(self._generators, snapshot.generators, strict=True):
            generator.bit_generator.state = state

    def _reset(self, mask: Bool[np.ndarray, " n"]) -> None:
        worlds = np.flatnonzero(mask)
        self._worlds.reset(worlds, [self._generators[world] for world in worlds.tolist()])
        self._elapsed[mask] = 0
        self._finished[mask] = False

    def _truth(self) -> dict[str, Any]:
        return self._worlds.ground_truth() if self._ground_truth else {}

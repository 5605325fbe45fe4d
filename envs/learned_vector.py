"""N learned environments as one vector environment: one model, one batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from rnem_world.envs.bouncing_balls import check_render_mode
from rnem_world.envs.vector_arguments import autoreset_mode_of, check_sizes, reset_mask_of, rows_of, seeds_of
from rnem_world.envs.vector_infos import final_infos, with_masks

from rnem_world.envs.atari_worlds import chosen_world
from rnem_world.envs.editing import Edit
from rnem_world.envs.learned_batch import LearnedBatch
from rnem_world.envs.snapshots import LearnedSnapshot, restored
from rnem_world.envs.starts import Starts

Array = NDArray[Any]


class LearnedVectorEnv(VectorEnv[Array, Array, Array]):
    """N times `LearnedEnv` in one; see there for observations, rewards, and the arguments that it shares.

    Sub-environment i chooses its starts with the seed ``seed + i``, and goes the same way, bit for bit, as the single
    environment with that seed.

    Args:
        num_envs: N.
        checkpoint: As for `LearnedEnv`, as are the next ones.
        num_slots: Slots.
        obs_type: ``"frame"`` or ``"slots"``.
        imagination: ``"latent"``, ``"pixels"`` or None.
        device: Where the model is.
        starts: Where dreams begin.
        details: What infos hold.
        soft_frames: Whether frames show probabilities.
        ensemble: Other checkpoints.
        truncate_on_uncertainty: Truncates in doubt.
        max_episode_steps: Steps after which an episode is truncated; None for never.
        autoreset_mode: When a finished episode is reset: with the next step, with the same, or not by itself.
        render_mode: ``"rgb_array"`` or None.
        game: The Atari game whose shipped world is taken if no checkpoint is given.

    Raises:
        RnemWorldError: If an argument makes no sense, or there is no such checkpoint.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array"],
        "render_fps": 20,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        checkpoint: str | Path | None = None,
        num_slots: int | None = None,
        obs_type: str = "frame",
        imagination: str | None = None,
        device: str | torch.device = "cpu",
        starts: str | Path | Starts | None = None,
        details: Sequence[str] = (),
        soft_frames: bool = False,
        ensemble: Sequence[str | Path] | str | Path = (),
        truncate_on_uncertainty: float | int | None = None,
        max_episode_steps: int | None = 100,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        game: str | None = None,
    ) -> None:
        check_sizes(num_envs, max_episode_steps)
        self.autoreset_mode = autoreset_mode_of(autoreset_mode)
        check_render_mode(render_mode)
        self.render_mode = render_mode
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        # A dictionary of one's own: others write into the one that all vector environments share.
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}  # type: ignore[misc]
        arguments = (
            chosen_world(checkpoint, game),
            num_slots,
            obs_type,
            imagination,
            device,
            starts,
            details,
            soft_frames,
            ensemble,
            truncate_on_uncertainty,
        )
        self._arguments = (num_envs, *arguments, max_episode_steps, self.autoreset_mode, render_mode)
        self.batch = LearnedBatch(num_envs, *arguments)
        self.single_observation_space = self.batch.observation_space
        self.single_action_space = self.batch.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Begins new dreams.

        Args:
            seed: A seed for all, or one for each; streams of starts without one go on.
            options: ``reset_mask``: N booleans, the environments to reset; without it all are. ``start``, ``frames``,
                ``actions`` and ``edits`` as for `LearnedEnv.reset`, one for all or N of them.

        Returns:
            The observations and the infos.

        Raises:
            ConfigError: If the seeds or options make no sense; then no dream has changed.
        """
        mask = reset_mask_of(options, self.num_envs)
        for index, single_seed in enumerate(seeds_of(seed, self.num_envs)):
            if single_seed is not None and mask[index]:
                self.batch.stream.seed(index, single_seed)
        self.batch.reset(np.flatnonzero(mask), options)
        self.batch.check_started()
        shown = self.batch.collect()
        return shown.observations, with_masks(shown.details, mask)

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Imagines one transition of every dream.

        Args:
            actions: N integers.

        Returns:
            Observations, rewards, terminations, truncations, infos.

        Raises:
            ConfigError: If the actions are of another kind.
            gymnasium.error.ResetNeeded: If an environment has to be reset first.
        """
        batch = self.batch
        waiting = np.flatnonzero(batch.finished)
        if waiting.size and self.autoreset_mode is not AutoresetMode.NEXT_STEP:
            raise ResetNeeded(f"reset sub-environments {waiting.tolist()} before the next step")
        outcome = batch.step(actions)
        if waiting.size:
            batch.reset(waiting)
        shown = batch.collect(outcome)
        shown.rewards[waiting], shown.terminations[waiting] = 0.0, False
        truncations = np.zeros(self.num_envs, dtype=np.bool_)
        if self.max_episode_steps is not None:
            truncations = batch.elapsed >= self.max_episode_steps
        if batch.limit is not None:
            truncations = truncations | (shown.details["uncertainty"] > batch.limit)
        truncations[waiting] = False
        over = shown.terminations | truncations
        final: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and over.any():
            details = {name: array.copy() for name, array in shown.details.items()}
            final = final_infos(shown.observations, details, over)
            rows = np.flatnonzero(over)
            batch.reset(rows)
            begun = batch.collect(rows=rows)
            shown.observations[rows] = begun.observations
            for name, array in begun.details.items():
                shown.details[name][rows] = array
        else:
            batch.finished[:] = over
        everywhere = np.ones(self.num_envs, dtype=np.bool_)
        infos = with_masks(shown.details, everywhere) | final
        return shown.observations, shown.rewards, shown.terminations, truncations, infos

    def render(self) -> tuple[Array, ...] | None:
        """Returns N pictures as `LearnedEnv.render` does, in the mode ``rgb_array``."""
        return tuple(self.batch.render()) if self.render_mode == "rgb_array" else None

    def edit(self, edits: Sequence[Edit] | Edit, rows: Sequence[int] | Array | None = None) -> None:
        """Edits objects, in the same way in each of some dreams; see `LearnedEnv.edit`.

        Args:
            edits: What to do.
            rows: In which sub-environments; None for all.

        Raises:
            ConfigError: If they make no sense; then nothing has changed.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        self.batch.edit(rows_of(rows, self.num_envs), edits)

    def get_state(self, rows: Sequence[int] | Array | None = None) -> LearnedSnapshot:
        """Returns a copy of everything that the future depends on.

        Args:
            rows: Of which sub-environments; None for all.

        Raises:
            ConfigError: If there are no such ones.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        return self.batch.get_state(rows_of(rows, self.num_envs))

    def set_state(self, snapshot: LearnedSnapshot, rows: Sequence[int] | Array | None = None) -> None:
        """Makes sub-environments go on as the copied ones did, be it others, or of another environment.

        Args:
            snapshot: The copy.
            rows: In which sub-environments, in the copy's order; None for all.

        Raises:
            ConfigError: If the copy is of another world, or of another number of environments.
        """
        self.batch.set_state(rows_of(rows, self.num_envs), snapshot)

    def clone(self) -> LearnedVectorEnv:
        """Returns another environment in the same state; both share the weights."""
        twin = type(self)(*self._arguments)
        if self.batch.is_started:
            twin.set_state(self.get_state())
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        snapshot = self.get_state() if self.batch.is_started else None
        return restored, (type(self), self._arguments, snapshot), {"spec": self.spec}

"""``RNEM-Balls-v0``, ``RNEM-Atari-v0`` and their like: a learned world as an environment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray
from rnem_world.envs.bouncing_balls import check_render_mode

from rnem_world.envs.atari_worlds import chosen_world
from rnem_world.envs.editing import Edit
from rnem_world.envs.learned_batch import LearnedBatch
from rnem_world.envs.snapshots import LearnedSnapshot, restored, with_generator
from rnem_world.envs.start_stream import key_of
from rnem_world.envs.starts import Starts

ONLY = np.zeros(1, dtype=np.int64)


class LearnedEnv(gymnasium.Env[NDArray[Any], np.int64]):
    """A world that a model dreams. Nothing in it is random but where a dream begins.

    A reset picks a start, a short context of real frames and actions; the model watches it and falls asleep. From
    then on every step is imagined. The reward is the sum of the slots' shares. An episode terminates where the model
    gives its end more than even odds; `gymnasium.make` truncates it.

    Observations are frames, (H, W, C) uint8 of 0 and 255, drawn on request; or the slots' output, (K, D) float32,
    what the model's decoder and heads read. The order of slots means nothing, but stays the same within an episode.

    All environments of a process share one copy of a checkpoint's weights and of its encoded starts. Starts are encoded
    when they are first drawn, and from then on only picked; `LearnedBatch.prepare` encodes all at once.

    Args:
        checkpoint: The name of a shipped world, a run or checkpoint folder, or a repository of the Hugging Face Hub
            (with huggingface_hub installed); None takes the shipped world of the game, or the balls.
        num_slots: Slots; None takes the number that the model was trained with.
        obs_type: ``"frame"`` or ``"slots"``.
        imagination: ``"latent"`` imagines without drawing, ``"pixels"`` by watching its own frames; None is latent if
            the model has learned it.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"``.
        starts: Where dreams begin: a dataset, a file of starts (`rnem-world export --starts` makes them), `Starts`,
            or ``"real"`` or ``"real:PRESET"`` to simulate new ones; None takes the checkpoint's own. Worlds of Atari
            games begin in the real game: ``"real"`` (None too, if the checkpoint has no starts) or ``"real:GAME"``
            take 512 contexts of a random policy, which are played once and kept in the user's cache folder.
        details: What ``info`` holds, any of ``gamma`` (K, H, W), ``prediction`` (K, C, H, W), ``attention`` (K, K),
            ``centroids`` (K, 2) in pixels, x first, ``masses`` (K,) in pixels, ``slot_rewards`` (K,). Attention and
            rewards are those of the last step, 0 after a reset; the others have to be drawn, which latent imagination
            otherwise spares. Of the dream's doubt: ``unexplained``, ``doubled`` and ``lost``, see
            `rnem_world.envs.doubt.signs`; ``uncertainty``, the position error to expect in pixels, for worlds that
            have been calibrated; ``disagreement``, the share of pixels in which the ensemble's frames differ.
        soft_frames: Whether frames show the sum of the slots' means, 0..255, instead of black and white.
        ensemble: Other checkpoints, which dream alongside from the same starts; for ``disagreement``.
        truncate_on_uncertainty: Truncates an episode when the ``uncertainty`` exceeds so many pixels.
        render_mode: ``"rgb_array"`` or None.
        game: The Atari game whose shipped world is taken if no checkpoint is given.

    Raises:
        RnemWorldError: If an argument makes no sense, or there is no such checkpoint.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array"],
        "render_fps": 20,
    }

    def __init__(
        self,
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
        render_mode: str | None = None,
        game: str | None = None,
    ) -> None:
        check_render_mode(render_mode)
        self.render_mode = render_mode
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
        self._arguments = (*arguments, render_mode)
        self.batch = LearnedBatch(1, *arguments)
        self.observation_space = self.batch.observation_space
        self.action_space = self.batch.action_space
        self._has_key = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Begins a new dream.

        Args:
            seed: Seeds the choice of this start and of those to come.
            options: ``start``: the number of a start. Or ``frames``, (T, H, W, C) with T >= 2, uint8 0..255, bool, or
                floats in [0, 1], and ``actions``, the T - 1 integers between them: the dream goes on from the last.
                ``edits``: see `edit`.

        Returns:
            The first observation and the info.

        Raises:
            ConfigError: If the options make no sense; then nothing has changed.
        """
        super().reset(seed=seed)
        if seed is not None or not self._has_key:
            self.batch.stream.start(0, key_of(self.np_random))
            self._has_key = True
        self.batch.reset(ONLY, options)
        shown = self.batch.collect()
        return shown.observations[0], {name: array[0] for name, array in shown.details.items()}

    def step(self, action: Any) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Imagines one transition.

        Returns:
            The observation, the reward, whether the model says that the episode ends, whether it is in doubt, and the
            info.

        Raises:
            ConfigError: If there is no such action.
            gymnasium.error.ResetNeeded: Before the first reset, or after the end of an episode.
        """
        if self.batch.finished[0]:
            raise ResetNeeded("the episode has ended: reset the environment before the next step")
        shown = self.batch.collect(self.batch.step(np.asarray(action).reshape(-1)))
        self.batch.finished[:] = shown.terminations
        info = {name: array[0] for name, array in shown.details.items()}
        truncated = self.batch.limit is not None and bool(info["uncertainty"] > self.batch.limit)
        return shown.observations[0], float(shown.rewards[0]), bool(shown.terminations[0]), truncated, info

    def render(self) -> NDArray[Any] | None:
        """Returns the frame and beside it who has which pixel, (256, 512, 3) uint8, in the mode ``rgb_array``."""
        return self.batch.render()[0] if self.render_mode == "rgb_array" else None

    def edit(self, edits: Sequence[Edit] | Edit) -> None:
        """Edits the dream's objects.

        Args:
            edits: `rnem_world.envs.editing.Remove`, `Copy`, `Swap`, `Transplant`, one after the other.

        Raises:
            ConfigError: If they make no sense; then nothing has changed.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        self.batch.edit(ONLY, edits)

    def get_state(self) -> LearnedSnapshot:
        """Returns a copy of everything that the future depends on.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        return with_generator(self.batch.get_state(ONLY), self.np_random)

    def set_state(self, snapshot: LearnedSnapshot) -> None:
        """Goes on as the copied environment did, single or one of a vector environment (`LearnedSnapshot.pick`).

        Raises:
            ConfigError: If the copy is of another world, or of several environments.
        """
        self.batch.set_state(ONLY, snapshot)
        self._has_key = True
        if snapshot.generator is not None:
            self.np_random.bit_generator.state = snapshot.generator

    def clone(self) -> LearnedEnv:
        """Returns another environment in the same state; both share the weights."""
        twin = type(self)(*self._arguments)
        if self.batch.is_started:
            twin.set_state(self.get_state())
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        snapshot = self.get_state() if self.batch.is_started else None
        return restored, (type(self), self._arguments, snapshot), {"spec": self.spec}

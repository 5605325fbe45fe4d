"""What Gymnasium wants of environments, written once: N of them as a batch, and one as the view of a batch of one.

An environment of ours says how its episodes begin, go on and look; seeds, autoresets, truncation, infos, masks and
copies are the business of the two classes here.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Int64, Shaped

from rnem_world.envs.episodes import (
    Array,
    Episodes,
    EpisodesSnapshot,
    Infos,
    Transition,
    autoreset_mode_of,
    check_actions,
    check_count,
    check_snapshot,
    final_infos,
    reset_mask_of,
    rows_of,
    seeds_of,
    with_masks,
)
from rnem_world.envs.window import Window
from rnem_world.errors import ConfigError, suggest

Kind = TypeVar("Kind")


class BatchedVectorEnv(VectorEnv[Array, Array, Array], ABC):
    """N environments that are stepped at once.

    Sub-environment i has its own random generator, seeded with ``seed + i`` as those of Gymnasium's vector environments
    are, and goes the same way as the single environment with that seed.

    Attributes:
        reset_options: What the options of a reset may name, beside ``reset_mask``.

    Args:
        num_envs: N.
        observation_space: Of one environment.
        action_space: Of one environment.
        max_episode_steps: Steps after which an episode is truncated; None for never.
        autoreset_mode: When a finished episode is reset: with the next step, with the same, or not by itself.
        render_mode: ``"rgb_array"`` or None.

    Raises:
        ConfigError: If an argument makes no sense.
    """

    reset_options: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        num_envs: int,
        observation_space: spaces.Box,
        action_space: spaces.Space[Any],
        max_episode_steps: int | None,
        autoreset_mode: AutoresetMode | str,
        render_mode: str | None,
    ) -> None:
        check_count("num_envs", num_envs)
        if max_episode_steps is not None:
            check_count("max_episode_steps", max_episode_steps)
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"render_mode is {render_mode!r}, expected None or 'rgb_array'")
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.autoreset_mode = autoreset_mode_of(autoreset_mode)
        self.render_mode = render_mode
        # A dictionary of one's own: others write into the one that all vector environments share.
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = observation_space
        self.single_action_space: spaces.Space[Any] = action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.episodes = Episodes(num_envs)

    @abstractmethod
    def begin(
        self, rows: Int64[np.ndarray, " m"], seeds: Sequence[int | None], options: dict[str, Any]
    ) -> None:
        """Begins new episodes.

        Args:
            rows: In which of the N environments.
            seeds: What the `generator` of each of these has just been seeded with; None where it goes on.
            options: Some of ``reset_options``; each holds for all rows, or has N entries.

        Raises:
            ConfigError: If the options make no sense; then nothing has changed.
        """

    @abstractmethod
    def advance(self, actions: Shaped[np.ndarray, "n ..."], waiting: Bool[np.ndarray, " n"]) -> Transition:
        """Makes one step.

        Args:
            actions: N of them, checked, of the action space's shape and kind.
            waiting: Which environments begin anew right after: what is returned of these isn't looked at.
        """

    @abstractmethod
    def observe(self, rows: Int64[np.ndarray, " m"] | None = None) -> tuple[Array, Infos]:
        """Shows how things stand now, as new arrays.

        Args:
            rows: In which environments; None for all.

        Returns:
            The observations and infos of the last reset or step.
        """

    @abstractmethod
    def copy_state(self, rows: Int64[np.ndarray, " m"]) -> Any:
        """Copies all that the future of some environments depends on, beside actions and generators.

        The copy has a length, and can ``pick`` rows, see `EpisodesSnapshot`.
        """

    @abstractmethod
    def put_state(self, rows: Int64[np.ndarray, " m"], state: Any) -> None:
        """Makes some environments go on as the copied ones did.

        Raises:
            ConfigError: If the copy, of as many environments, is of other ones; then nothing has changed.
        """

    @abstractmethod
    def pictures(self) -> Sequence[Array] | Array:
        """Draws N pictures for people, each (height, width, 3) uint8."""

    @property  # type: ignore[misc]  # as SyncVectorEnv has it
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generators of the sub-environments."""
        return tuple(self.episodes.generator(row) for row in range(self.num_envs))

    @property
    def np_random_seed(self) -> tuple[int | None, ...]:  # type: ignore[override]  # as SyncVectorEnv has it
        """What the generators were seeded with; None where that wasn't said."""
        return tuple(self.episodes.seeds)

    @property
    def elapsed(self) -> Int64[np.ndarray, " n"]:
        """Steps of each episode so far."""
        return self.episodes.elapsed.copy()

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, Infos]:
        """Begins new episodes.

        Args:
            seed: A seed for all, or one for each; generators without one go on.
            options: ``reset_mask``: N booleans, the environments to reset; without it all are. And what this kind of
                environment knows.

        Returns:
            The observations and the infos.

        Raises:
            ConfigError: If the seeds or options make no sense; then nothing has changed.
        """
        given = dict(options or {})
        mask = reset_mask_of(given.pop("reset_mask", None), self.num_envs)
        seeds = seeds_of(seed, self.num_envs)
        rows = np.flatnonzero(mask)
        self.begin_anew(rows, [seeds[row] for row in rows.tolist()], given)
        self.episodes.check_started()
        observations, infos = self.observe()
        return observations, with_masks(infos, mask)

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, Infos]:
        """Makes one step in every environment.

        Args:
            actions: N of them, as the action space has them.

        Returns:
            Observations, rewards, terminations, truncations, infos.

        Raises:
            ConfigError: If the actions are of another kind.
            gymnasium.error.ResetNeeded: If an environment has to be reset first.
        """
        waiting = self.episodes.finished
        if waiting.any() and self.autoreset_mode is not AutoresetMode.NEXT_STEP:
            raise ResetNeeded(
                f"reset sub-environments {np.flatnonzero(waiting).tolist()} before the next step"
            )
        shown = self.move(actions)
        over = shown.terminations | shown.truncations
        begun, final = waiting, {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            begun, self.episodes.finished = over, np.zeros(self.num_envs, dtype=np.bool_)
            if over.any():
                final = final_infos(shown.observations, shown.infos, over)
        infos = shown.infos
        if begun.any():
            rows = np.flatnonzero(begun)
            self.begin(rows, [None] * len(rows), {})
            self.episodes.begin(rows)
            first, first_infos = self.observe(rows)
            shown.observations[rows] = first
            if final:
                infos = {name: array.copy() for name, array in infos.items()}
            for name, array in first_infos.items():
                infos[name][rows] = array
        infos = with_masks(infos, np.ones(self.num_envs, dtype=np.bool_)) | final
        return shown.observations, shown.rewards, shown.terminations, shown.truncations, infos

    def move(self, actions: Any) -> Transition:
        """Makes a step without resetting anything; environments that wait for their reset show none.

        Args:
            actions: N of them, as the action space has them.

        Raises:
            ConfigError: If the actions are of another kind.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        episodes, waiting = self.episodes, self.episodes.finished
        if not episodes.all_started:
            episodes.check_started()
        shown = self.advance(check_actions(actions, self.num_envs, self.single_action_space), waiting)
        episodes.elapsed += 1
        truncations = shown.truncations
        if self.max_episode_steps is not None:
            truncations = truncations | (episodes.elapsed >= self.max_episode_steps)
        if waiting.any():
            shown.rewards[waiting], shown.terminations[waiting] = 0.0, False
            truncations = truncations & ~waiting
        episodes.finished = shown.terminations | truncations
        return shown._replace(truncations=truncations)

    def render(self) -> tuple[Array, ...] | None:
        """Returns N pictures, each (height, width, 3) uint8, in the mode ``rgb_array``, else None."""
        if self.render_mode != "rgb_array":
            return None
        self.episodes.check_started()
        return tuple(self.pictures())

    def get_state(self, rows: Sequence[int] | Array | None = None) -> EpisodesSnapshot:
        """Returns a copy of everything that the future depends on.

        Args:
            rows: Of which sub-environments; None for all.

        Raises:
            ConfigError: If there are no such ones.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        chosen = rows_of(rows, self.num_envs)
        self.episodes.check_started()
        return self.episodes.copy(chosen, self.copy_state(chosen))

    def set_state(self, snapshot: EpisodesSnapshot, rows: Sequence[int] | Array | None = None) -> None:
        """Makes sub-environments go on as the copied ones did, be it others, or of another environment.

        Args:
            snapshot: The copy.
            rows: In which sub-environments, in the copy's order; None for all.

        Raises:
            ConfigError: If the copy is of other rules, or of another number of environments.
        """
        chosen = rows_of(rows, self.num_envs)
        check_snapshot(snapshot, len(chosen))
        self.put_state(chosen, snapshot.state)
        self.episodes.put(chosen, snapshot)

    def clone(self: Kind) -> Kind:
        """Returns another environment in the same state; what never changes, as weights, is shared."""
        return copy.deepcopy(self)

    def begin_anew(
        self, rows: Int64[np.ndarray, " m"], seeds: Sequence[int | None], options: dict[str, Any]
    ) -> None:
        """Begins episodes as `begin` does; where that is refused, the generators haven't drawn anything.

        Raises:
            ConfigError: If the options make no sense; then nothing has changed.
        """
        for name in options:
            if name not in self.reset_options:
                raise ConfigError(
                    f"unknown option {name!r} of a reset: {suggest(str(name), self.reset_options)}"
                )
        undo = self.episodes.seed(rows, seeds)
        try:
            self.begin(rows, seeds, options)
        except Exception:
            undo()
            raise
        self.episodes.begin(rows)


ONLY = np.zeros(1, dtype=np.int64)
"""The row of a batch of one."""


class SingleEnv(gymnasium.Env[Array, Any]):
    """One environment: the view of a batch of one, which neither resets by itself nor counts its steps' limit.

    Attributes:
        batch: The batch.

    Args:
        batch: A batch of one.
        render_mode: ``"rgb_array"``, ``"human"`` for a window that shows every step, or None.

    Raises:
        ConfigError: If there is no such render mode.
    """

    def __init__(self, batch: BatchedVectorEnv, render_mode: str | None) -> None:
        if render_mode not in (None, "rgb_array", "human"):
            raise ConfigError(f"render_mode is {render_mode!r}, expected None, 'rgb_array' or 'human'")
        self.batch = batch
        self.render_mode = render_mode
        self._window: Window | None = None
        if render_mode == "human":
            self._window = Window(self.metadata["render_fps"], type(self).__name__)
        self.observation_space = batch.single_observation_space
        self.action_space = batch.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, Infos]:
        """Begins a new episode.

        Args:
            seed: Seeds the environment's generator if given.
            options: What this kind of environment knows.

        Returns:
            The first observation and the info.

        Raises:
            ConfigError: If the options make no sense; then nothing has changed.
        """
        if self._np_random is not None:
            self.batch.episodes.generators[0] = self._np_random
        seeds = seeds_of(seed, 1)
        self.batch.begin_anew(ONLY, seeds, dict(options or {}))
        self._np_random = self.batch.episodes.generator(0)
        if seed is not None:
            self._np_random_seed = seeds[0]
        observations, infos = self.batch.observe()
        if self._window is not None:
            self._window.show(self.batch.pictures()[0])
        return observations[0], {name: array[0] for name, array in infos.items()}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, Infos]:
        """Makes one step.

        Returns:
            The observation, the reward, whether the episode has ended, whether it is cut off, and the info.

        Raises:
            ConfigError: If there is no such action.
            gymnasium.error.ResetNeeded: Before the first reset, or after the end of an episode.
        """
        if self.batch.episodes.finished[0]:
            raise ResetNeeded("the episode has ended: reset the environment before the next step")
        given, shape = np.asarray(action), self.action_space.shape or ()
        shown = self.batch.move(given.reshape(1, *shape) if given.size == math.prod(shape) else given[None])
        info = {name: array[0] for name, array in shown.infos.items()}
        if self._window is not None:
            self._window.show(self.batch.pictures()[0])
        return (
            shown.observations[0],
            float(shown.rewards[0]),
            bool(shown.terminations[0]),
            bool(shown.truncations[0]),
            info,
        )

    def render(self) -> Array | None:
        """Returns a picture, (height, width, 3) uint8, in the mode ``rgb_array``, else None."""
        if self.render_mode != "rgb_array":
            return None
        self.batch.episodes.check_started()
        return self.batch.pictures()[0]

    def close(self) -> None:
        """Closes the window if there is one."""
        if self._window is not None:
            self._window.close()

    def get_state(self) -> EpisodesSnapshot:
        """Returns a copy of everything that the future depends on.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        self.batch.episodes.generators[0] = self._np_random
        return self.batch.get_state()

    def set_state(self, snapshot: EpisodesSnapshot) -> None:
        """Goes on as the copied environment did, single or one of a batch (`EpisodesSnapshot.pick`).

        Raises:
            ConfigError: If the copy is of other rules, or of several environments.
        """
        self.batch.set_state(snapshot)
        self._np_random = self.batch.episodes.generators[0]

    def clone(self: Kind) -> Kind:
        """Returns another environment in the same state; what never changes, as weights, is shared."""
        return copy.deepcopy(self)

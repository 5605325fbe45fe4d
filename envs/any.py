"""Environments of any kind, shown as the frames that a recipe makes of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, NoReturn

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from jaxtyping import Bool, Int64, Shaped, UInt8

from rnem_world.actions import ActionSpace
from rnem_world.envs.episodes import Array, Infos, Transition, check_count
from rnem_world.envs.frames import (
    FrameMaker,
    layout_of,
    picture_space,
    pixels_of,
    to_picture,
    to_text,
    usual_size,
)
from rnem_world.envs.ids import (
    MISSING,
    MakeEnv,
    close_quietly,
    first_line,
    make_raw,
    refuse_missing,
    versions_of,
)
from rnem_world.envs.recipe import EnvironmentRecipe, Layout
from rnem_world.envs.vector import BatchedVectorEnv, SingleEnv
from rnem_world.errors import ConfigError, RnemWorldError, SimulationError
from rnem_world.seeding import derive_seed

DRAWN_SIZE = 256
"""Least side in pixels of a picture for people."""

MOST_LIVES = 255
"""Lives that are recorded: if infos have whole numbers up to this under that name, from the first reset on."""


class FramedEnv:
    """One environment, and frames of what it shows.

    Attributes:
        env: The environment.
        observation: What it has shown last, as it is.
        info: What it has said last.

    Args:
        recipe: Complete, see `complete`.
        make: Makes the environment instead of what the recipe names.

    Raises:
        RnemWorldError: If there is no such environment, or it refuses its options.
    """

    def __init__(self, recipe: EnvironmentRecipe, make: MakeEnv | None = None) -> None:
        self.recipe = recipe
        self.env = make_raw(recipe, recipe.frames == "render", make)
        self._maker = FrameMaker(recipe)
        self._title = recipe.id or type(self.env.unwrapped).__name__
        self._steps = 0
        self.observation: Any = None
        self.info: Mapping[str, Any] = {}

    def reset(self, seed: int | None = None) -> UInt8[np.ndarray, "h w c"]:
        """Begins an episode.

        Raises:
            SimulationError: If the environment fails, or shows something else than before.
        """
        self._steps = 0
        with self._guard():
            # Collectors draw seeds of 63 bits, and environments that seed NumPy's old generators take 32.
            self.observation, self.info = self.env.reset(seed=None if seed is None else seed % 2**32)
        return self.frame()

    def step(self, action: Any) -> tuple[UInt8[np.ndarray, "h w c"], float, bool, bool]:
        """Makes a step, or as many as the recipe says, of which the last one is shown.

        Returns:
            The frame, the sum of the rewards, whether the episode has ended, and whether it is cut off.

        Raises:
            SimulationError: If the environment fails, or shows something else than before, or rewards aren't finite.
        """
        total, terminated, truncated = 0.0, False, False
        for _ in range(self.recipe.frame_skip):
            self._steps += 1
            with self._guard():
                self.observation, reward, terminated, truncated, self.info = self.env.step(action)
                total += float(reward)
            if terminated or truncated:
                break
        if not np.isfinite(total):
            raise SimulationError(f"{self._where()} has the reward {total}, expected a finite number")
        return self.frame(), total, bool(terminated), bool(truncated)

    def frame(self) -> UInt8[np.ndarray, "h w c"]:
        """Makes a frame of what is shown now.

        Raises:
            SimulationError: If it isn't what the environment said that it would show.
        """
        with self._guard():
            picture = self._picture()
            return self._maker(picture)

    def greys_or_colours(self) -> UInt8[np.ndarray, "h w c"]:
        """Makes a frame of what is shown now, but for what makes it binary."""
        with self._guard():
            return self._maker.greys_or_colours(self._picture())

    def close(self) -> None:
        """Closes the environment."""
        close_quietly(self.env)

    def _picture(self) -> Any:
        if self.recipe.frames == "render":
            return self.env.render()
        return self.observation if self.recipe.obs_key is None else self.observation[self.recipe.obs_key]

    def _where(self) -> str:
        return f"{self._title}, {f'step {self._steps}' if self._steps else 'reset'} of an episode,"

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Says of errors that an environment raises, of whatever kind, where that was."""
        try:
            yield
        except SimulationError as error:
            raise SimulationError(f"{self._where()} shows wrong frames: {error}") from error
        except RnemWorldError:
            raise
        except MISSING as error:
            refuse_missing(self._title, error)
        except Exception as error:
            raise SimulationError(
                f"{self._where()} fails: {type(error).__name__}: {first_line(error)}; mend the environment, what was "
                "recorded before is kept"
            ) from error


class AnyVectorEnv(BatchedVectorEnv):
    """N times `AnyRealEnv` in one, one after the other in this process; see there for observations and actions.

    Args:
        num_envs: N.
        recipe: Which environment, and how its frames are made; or its Gymnasium id.
        max_episode_steps: Steps after which an episode is truncated, beside the environment's own limit.
        autoreset_mode: When a finished episode is reset: with the next step, with the same, or not by itself.
        render_mode: ``"rgb_array"`` or None.
        make: Makes the environment instead of what the recipe names.

    Raises:
        ConfigError: If there is no such environment, or no frames can be made of it.
        DependencyError: If a package is missing.
        SimulationError: If it fails at once.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array"],
        "render_fps": 15,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        recipe: EnvironmentRecipe | str = "CartPole-v1",
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        make: MakeEnv | None = None,
    ) -> None:
        check_count("num_envs", num_envs)
        self.recipe = complete(EnvironmentRecipe(recipe) if isinstance(recipe, str) else recipe, make)
        self.envs = [FramedEnv(self.recipe, make) for _ in range(num_envs)]
        if len({id(env.env.unwrapped) for env in self.envs}) < num_envs:
            raise ConfigError(
                f"{getattr(make, '__name__', 'the function')} made the same environment again: expected a function "
                "that makes a new one with each call, for several are played side by side"
            )
        frame = spaces.Box(0, 255, self.recipe.frame_shape, np.uint8)
        actions = self.envs[0].env.action_space
        ActionSpace.of(actions)  # refuses what no model knows
        super().__init__(num_envs, frame, actions, max_episode_steps, autoreset_mode, render_mode)
        self._frames = np.zeros((num_envs, *self.recipe.frame_shape), dtype=np.uint8)
        # Other infos may bear the names of a dataset's arrays (positions, say), and mean anything.
        self._tells_lives: bool | None = None

    @property
    def own_limit(self) -> int | None:
        """Steps after which the environments cut their episodes off by themselves; None if nobody knows."""
        spec = getattr(self.envs[0].env, "spec", None)
        limit = self.recipe.max_episode_steps or getattr(spec, "max_episode_steps", None)
        return None if limit is None else -(-limit // self.recipe.frame_skip)

    @property
    def raw_observation_space(self) -> spaces.Space[Any]:
        """The space of what one of the environments shows."""
        return self.envs[0].env.observation_space

    @property
    def raw_observations(self) -> list[Any]:
        """What the environments have shown last, as they show it: for players that know them."""
        return [env.observation for env in self.envs]

    def begin(
        self, rows: Int64[np.ndarray, " m"], seeds: Sequence[int | None], options: dict[str, Any]
    ) -> None:
        """Begins new episodes."""
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            self._frames[row] = self.envs[row].reset(seed)
        if self._tells_lives is None:
            self._tells_lives = all(_lives_of(self.envs[row].info) is not None for row in rows.tolist())

    def advance(self, actions: Shaped[np.ndarray, "n ..."], waiting: Bool[np.ndarray, " n"]) -> Transition:
        """Makes a step everywhere; environments that wait for their reset stand still."""
        rewards = np.zeros(self.num_envs, dtype=np.float64)
        ended, cut = np.zeros((2, self.num_envs), dtype=np.bool_)
        for row in np.flatnonzero(~waiting).tolist():
            self._frames[row], rewards[row], ended[row], cut[row] = self.envs[row].step(actions[row])
        frames, infos = self.observe()
        return Transition(frames, rewards, ended, cut, infos)

    def observe(self, rows: Int64[np.ndarray, " m"] | None = None) -> tuple[Array, Infos]:
        """Returns the frames, (m, H, W, C), and what is said of them."""
        chosen = np.arange(self.num_envs) if rows is None else rows
        infos = {}
        if self._tells_lives:
            lives = [_lives_of(self.envs[row].info) for row in chosen.tolist()]
            if None in lives:
                raise SimulationError(
                    f"the infos of {self.recipe.title} have 'lives' of some frames and not, or no whole number from 0 "
                    f"to {MOST_LIVES}, of others: expected it of all or of none"
                )
            infos["lives"] = np.array(lives, np.int64)
        return self._frames[chosen], infos

    def pictures(self) -> list[Array]:
        """Draws the frames for people."""
        return [to_picture(frame, DRAWN_SIZE) for frame in self._frames]

    def copy_state(self, rows: Int64[np.ndarray, " m"]) -> NoReturn:
        """Refuses: environments of others can't be copied.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(f"{self.recipe.title} can't be copied: only environments of rnem-world can")

    def put_state(self, rows: Int64[np.ndarray, " m"], state: Any) -> NoReturn:
        """Refuses, as `copy_state`.

        Raises:
            ConfigError: Always.
        """
        self.copy_state(rows)

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the environments."""
        for env in self.envs:
            env.close()


class AnyRealEnv(SingleEnv):
    """An environment of any kind, seen as a model sees it.

    Observations are frames, (H, W, C) uint8; actions, rewards and ends are the environment's own, but that an action
    may be held for several steps.

    Args:
        recipe: Which environment, and how its frames are made; or its Gymnasium id.
        render_mode: ``"rgb_array"``, ``"human"`` or None.

    Raises:
        RnemWorldError: As `AnyVectorEnv`.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array", "human"],
        "render_fps": 15,
    }
    batch: AnyVectorEnv

    def __init__(
        self, recipe: EnvironmentRecipe | str = "CartPole-v1", render_mode: str | None = None
    ) -> None:
        super().__init__(AnyVectorEnv(1, recipe, None, AutoresetMode.DISABLED), render_mode)

    def close(self) -> None:
        """Closes the environment, and the window if there is one."""
        super().close()
        self.batch.close()


def _lives_of(info: Mapping[str, Any]) -> int | None:
    """Reads the lives from infos; None if they have none, or what is called so is something else."""
    lives = info.get("lives")
    if not isinstance(lives, int | np.integer) or isinstance(lives, bool):
        return None
    return int(lives) if 0 <= lives <= MOST_LIVES else None


def complete(recipe: EnvironmentRecipe, make: MakeEnv | None = None) -> EnvironmentRecipe:
    """Looks at an environment and decides what its recipe leaves open; a complete recipe stays as it is.

    Args:
        recipe: What is known.
        make: Makes the environment instead of what the recipe names.

    Raises:
        ConfigError: If there is no such environment, or no frames can be made of it.
        DependencyError: If a package is missing.
        SimulationError: If it fails at once.
    """
    if recipe.is_complete:
        return recipe
    found = _with_picture(recipe, make)
    layout = found.layout or layout_of(found.picture_shape)
    found = replace(found, layout=layout, versions=versions_of(recipe.id))
    if found.size is None:
        height, width = FrameMaker(found).cropped
        found = replace(found, size=usual_size(height, width, found.frames))
    FrameMaker(found)  # refuses what can't be
    if found.pixels == "bits" and found.threshold != EnvironmentRecipe.threshold:
        raise ConfigError(
            f"threshold is {found.threshold}, and what {recipe.id or 'the environment'} shows are bits, which are on "
            "or off: leave it out"
        )
    if found.binarise == "background" and not found.background:
        env = FramedEnv(found, make)
        try:
            found = replace(found, background=find_background(env))
        finally:
            env.close()
    return found


def _with_picture(recipe: EnvironmentRecipe, make: MakeEnv | None) -> EnvironmentRecipe:
    """Finds where frames come from, and what a picture is like."""
    if recipe.frames != "render":
        env = make_raw(recipe, False, make)
        try:
            space = env.observation_space
            found = picture_space(space, recipe.obs_key, recipe.frames)
        finally:
            close_quietly(env)
        if found is not None:
            key, pixels = found
            shape = (space if key is None else space[key]).shape  # type: ignore[index]  # a Dict
            found_shape = tuple(shape or ())
            return replace(
                recipe, frames="observation", obs_key=key, pixels=pixels, picture_shape=found_shape
            )
        if recipe.frames == "observation":
            raise ConfigError(
                f"the observations of {recipe.id or 'the environment'} are {space}, and no picture is among them: "
                "leave frames='observation' out, so that it is drawn"
            )
    env = make_raw(recipe, True, make)
    try:
        env.reset(seed=0)
        drawn = env.render()
    except MISSING as error:
        refuse_missing(recipe.id, error)
    except Exception as error:  # environments of others fail by errors of any kind
        raise SimulationError(
            f"{recipe.id or 'the environment'} can't be drawn: {type(error).__name__}: {first_line(error)}"
        ) from error
    finally:
        close_quietly(env)
    picture = np.asarray(drawn) if isinstance(drawn, np.ndarray) else None
    if picture is None or picture.ndim not in (2, 3) or picture.dtype.kind not in "buif":
        raise ConfigError(
            f"{recipe.id or 'the environment'} draws {type(drawn).__name__ if picture is None else picture.shape}, "
            "expected an array (H, W, 3): render_mode='rgb_array'"
        )
    layout: Layout = recipe.layout or ("HWC" if picture.ndim == 3 else "HW")
    return replace(
        recipe, frames="render", pixels=pixels_of(picture), picture_shape=picture.shape, layout=layout
    )


BACKGROUND_EPISODES, BACKGROUND_STEPS = 8, 250
"""A background is looked for in so many beginnings of episodes, of so many steps each."""


def find_background(env: FramedEnv) -> str:
    """Finds the grey that each pixel has most often while actions are random, always the same ones.

    Args:
        env: The environment, with a recipe that is complete but for the background.

    Returns:
        The background as text, see `to_text`.
    """
    counts = np.zeros((math.prod(env.recipe.frame_shape), 256), np.int32)
    pixels = np.arange(len(counts))
    env.env.action_space.seed(0)
    for episode in range(BACKGROUND_EPISODES):
        env.reset(derive_seed(0, "background", episode))
        for _ in range(BACKGROUND_STEPS):
            _, _, terminated, truncated = env.step(env.env.action_space.sample())
            counts[pixels, env.greys_or_colours().ravel()] += 1
            if terminated or truncated:
                env.reset()
    return to_text(counts.argmax(axis=1).astype(np.uint8).reshape(env.recipe.frame_shape))

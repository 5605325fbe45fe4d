"""Where the dreams of a learned environment begin: starts that are drawn, named, or given by the user."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Num
from numpy.typing import NDArray

from rnem_world.data.dataset import Dataset
from rnem_world.data.episodes import usual_context
from rnem_world.envs.episodes import check_actions
from rnem_world.envs.played_starts import played_starts
from rnem_world.envs.real import is_game, real_game, real_rules
from rnem_world.envs.starts import (
    CONTEXT_FRAMES,
    FEWEST_FRAMES,
    STARTS_FILE,
    Starts,
    game_starts,
    read_starts,
    simulated_starts,
    starts_from_dataset,
)
from rnem_world.envs.world import World
from rnem_world.errors import ConfigError, DataError
from rnem_world.models.world_model import DreamState

REAL = "real"
START_OPTIONS = ("frames", "actions", "start")
"""What the options of a reset may say of where a dream begins."""


class EncodedStarts:
    """Starts that a world has watched already, on the device; a reset gathers from them.

    A start is encoded when it is first taken, together with all others that are taken then.

    Args:
        number: How many starts there are.
        encode: Encodes the starts of the given numbers.
    """

    def __init__(self, number: int, encode: Callable[[NDArray[np.int64]], DreamState]) -> None:
        self._encode = encode
        self._dreams: DreamState | None = None
        self._known = np.zeros(number, dtype=np.bool_)
        self._lock = threading.Lock()

    @torch.inference_mode()
    def take(self, chosen: Int64[np.ndarray, " m"]) -> DreamState:
        """Gathers some starts, repeated or not."""
        with self._lock:
            wanted = np.unique(chosen)
            missing = wanted[~self._known[wanted]]
            dreams = self._dreams if self._dreams is not None and not missing.size else self._fill(missing)
        rows = torch.from_numpy(chosen).to(dreams.theta.device)
        return dreams.map(lambda tensor: tensor[rows])

    def take_all(self) -> None:
        """Encodes whatever isn't yet, so that no later reset has to."""
        self.take(np.arange(len(self._known)))

    def _fill(self, rows: Int64[np.ndarray, " m"]) -> DreamState:
        encoded = self._encode(rows)
        if self._dreams is None:
            self._dreams = encoded.map(lambda tensor: tensor.new_zeros(len(self._known), *tensor.shape[1:]))
        places = torch.from_numpy(rows).to(encoded.theta.device)
        for name, tensor in vars(self._dreams).items():
            if tensor is not None:
                tensor.index_copy_(0, places, getattr(encoded, name))
        self._known[rows] = True
        return self._dreams


class StartSource:
    """Begins dreams of some worlds, all of them in the same way.

    Attributes:
        number_of_starts: How many different starts there are; None where each is simulated anew.

    Args:
        worlds: The worlds, each with its number of slots; the first one says which starts it knows.
        number: How many environments choose.
        starts: Where dreams begin, see `rnem_world.envs.learned.DreamOptions`.

    Raises:
        RnemWorldError: If there are no such starts, or they are of another world.
    """

    def __init__(
        self, worlds: Sequence[tuple[World, int]], number: int, starts: str | Path | Starts | None
    ) -> None:
        self._worlds = tuple(worlds)
        self._number = number
        self._starts: Starts | None = None
        self.number_of_starts: int | None = None
        first = self._worlds[0][0]
        kind, _, name = starts.partition(":") if isinstance(starts, str) else ("", "", "")
        if kind == REAL and not is_game(first) and first.config.recipe is None:
            self._rules = real_rules(first, name or None)
        else:
            self._starts = own_starts(first) if starts is None else _find_starts(first, starts)
            for world, _ in self._worlds:
                check_starts(world, self._starts)
            self.number_of_starts = len(self._starts)

    def begin(
        self,
        rows: Int64[np.ndarray, " m"],
        draw: Callable[[int], list[int]],
        options: dict[str, Any],
    ) -> list[DreamState]:
        """Makes new dreams.

        Args:
            rows: Which of the environments are to begin.
            draw: Draws a number below the given one for each of them.
            options: ``frames`` and ``actions``, or ``start``; see `rnem_world.envs.learned.LearnedEnv`.

        Returns:
            m dreams for each world.

        Raises:
            ConfigError: If the options make no sense.
        """
        if options.get("frames") is not None or options.get("actions") is not None:
            if options.get("start") is not None:
                raise ConfigError(
                    "options have frames and a start: a dream begins in one of them, leave one out"
                )
            frames, actions = check_context(self._worlds[0][0], options, self._number, rows)
            return self._encoded(Starts.pack(frames, actions))
        if options.get("start") is not None:
            chosen = self._named(options["start"], rows)
        elif self.number_of_starts is None:
            return self._encoded(simulated_starts(self._rules, np.array(draw(2**63), dtype=np.uint64)))
        else:
            chosen = np.array(draw(self.number_of_starts), dtype=np.int64)
        return [pool.take(chosen) for pool in self._pools()]

    @property
    def context_frames(self) -> int:
        """How many frames a start has."""
        return CONTEXT_FRAMES if self._starts is None else self._starts.actions.shape[1] + 1

    def prepare(self) -> None:
        """Encodes all starts now, instead of each when it is first drawn."""
        for pool in self._pools():
            pool.take_all()

    def _pools(self) -> list[EncodedStarts]:
        starts = self._starts
        if starts is None:
            return []

        def pool(world: World, slots: int) -> EncodedStarts:
            def make() -> EncodedStarts:
                return EncodedStarts(len(starts), lambda rows: encode_starts(world, starts, slots, rows))

            return world.pool(starts, slots, make)

        return [pool(world, slots) for world, slots in self._worlds]

    def _encoded(self, starts: Starts) -> list[DreamState]:
        return [encode_starts(world, starts, slots, slice(None)) for world, slots in self._worlds]

    def _named(self, given: Any, rows: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
        if self.number_of_starts is None:
            raise ConfigError("starts are simulated here, there are none to choose from: leave out 'start'")
        chosen, number = np.asarray(given), self.number_of_starts
        fits = chosen.dtype.kind in "iu" and chosen.shape in ((), (self._number,))
        if not fits or chosen.min() < 0 or chosen.max() >= number:
            raise ConfigError(
                f"options['start'] is {given!r}, expected a number from 0 to {number - 1}, or {self._number} of them"
            )
        picked: Int64[np.ndarray, " m"] = np.broadcast_to(chosen, (self._number,))[rows].astype(np.int64)
        return picked


def encode_starts(world: World, starts: Starts, slots: int, rows: NDArray[np.int64] | slice) -> DreamState:
    """Lets a world watch some starts."""
    frames = world.inputs(world.frames_for_model(starts.frames(rows)))
    actions = torch.from_numpy(starts.actions[rows]).to(world.device)
    return world.encode(frames, actions, slots)


def check_starts(world: World, starts: Starts) -> None:
    """Refuses starts of another world.

    Raises:
        ConfigError: If their frames or actions aren't those of this world.
    """
    known, done = world.actions, starts.actions
    fits = starts.shape == world.frame_shape
    if world.takes_actions:
        fits &= done.shape[2:] == known.stored_shape and (done.dtype == np.float32) == (known.kind == "box")
        fits = fits and (known.kind == "box" or bool((done < np.array(known.sizes)).all()))
    if not fits:
        kind = "real numbers" if done.dtype == np.float32 else f"whole numbers up to {done.max(initial=0)}"
        each = f"{done.shape[2]} " if done.ndim == 3 else ""
        raise ConfigError(
            f"the starts have frames {starts.shape} and actions of {each}{kind}, the world {world.name} has "
            f"frames {world.frame_shape} and the actions {world.action_space}: give starts of this world"
        )


def own_starts(world: World) -> Starts:
    """Finds where dreams begin if the user doesn't say.

    That is in the checkpoint's own starts, in the real game, in its data, or in what is played of its environment.

    Raises:
        DataError: If there are none.
        RnemWorldError: If the game can't be played.
    """
    file = world.folder / STARTS_FILE
    if file.is_file():
        return read_starts(file)
    if is_game(world):
        return game_starts(real_game(world))
    data = world.config.data_path
    if data is not None and data.exists():
        return starts_from_dataset(data)
    if world.config.recipe is not None:
        return played_starts(world)
    raise DataError(
        f"{world.folder} has no starts ({STARTS_FILE}) and its data {world.config.data!r} isn't there: give "
        "starts=DATASET, a file of `rnem-world export RUN --starts DATASET`, or starts='real:PRESET'"
    )


def context_frames(world: World) -> int:
    """Tells how many real frames a world's dreams begin with, if the user doesn't say.

    Raises:
        RnemWorldError: If nobody knows, as `own_starts`.
    """
    file, data = world.folder / STARTS_FILE, world.config.data_path
    if not file.is_file() and world.config.recipe is not None and data is not None and data.exists():
        with Dataset.open(data) as dataset:
            return usual_context(dataset) or CONTEXT_FRAMES
    return int(own_starts(world).actions.shape[1]) + 1


def _find_starts(world: World, starts: str | Path | Starts) -> Starts:
    if isinstance(starts, Starts):
        return starts
    if isinstance(starts, str) and starts.partition(":")[0] == REAL:
        if world.config.recipe is not None:
            if starts != REAL:
                raise ConfigError(
                    f"starts is {starts!r}, and {world.name} knows its environment, "
                    f"{world.config.environment}: give starts='real'"
                )
            return played_starts(world)
        return game_starts(real_game(world, starts.partition(":")[2] or None))
    path = Path(starts)
    return read_starts(path) if path.suffix == ".npz" else starts_from_dataset(path)


def check_context(
    world: World, options: dict[str, Any], number: int, rows: NDArray[np.int64]
) -> tuple[NDArray[Any], Num[np.ndarray, "m s ..."]]:
    """Checks ``options["frames"]`` and ``options["actions"]``, a user's own start.

    Args:
        world: The world to start in.
        options: The options of a reset.
        number: Number of environments.
        rows: Those that are reset.

    Returns:
        The frames, (m, t, h, w, c) as `World.known_frames` gives them, and the actions as the model takes them, of
        the environments that are reset.

    Raises:
        ConfigError: If they don't fit the world or one another.
    """
    if options.get("frames") is None:
        raise ConfigError("options has actions and no frames: give the frames that they led through")
    frames = world.known_frames(np.asarray(options["frames"]), "options['frames']")
    each = frames.ndim == 5
    expected = f"(T, {', '.join(map(str, world.frame_shape))})"
    fits = frames.ndim in (4, 5) and frames.shape[-3:] == world.frame_shape
    if not fits or (each and len(frames) != number):
        raise ConfigError(
            f"options['frames'] have the shape {frames.shape}, expected {expected}, or {number} times that"
        )
    steps = frames.shape[-4] - 1
    if steps + 1 < FEWEST_FRAMES:
        raise ConfigError(
            f"options['frames'] holds {steps + 1} frames, expected at least {FEWEST_FRAMES} (16 are usual)"
        )
    given = options.get("actions")
    if given is None:
        if world.takes_actions and world.actions.sizes != (1,):
            raise ConfigError(
                f"options has frames and no actions: give the {steps} actions between the frames"
            )
        actions = np.zeros((steps, *world.actions.stored_shape), world.actions.stored_dtype)
    else:
        actions = _encoded_actions(world, np.asarray(given), steps, number)
    frames = frames[rows] if each else np.broadcast_to(frames, (len(rows), *frames.shape))
    single = actions.ndim == 1 + len(world.actions.stored_shape)
    actions = np.broadcast_to(actions, (len(rows), *actions.shape)) if single else actions[rows]
    return frames, actions


def _encoded_actions(world: World, given: NDArray[Any], steps: int, number: int) -> NDArray[Any]:
    """Checks actions between frames, and gives them as the model takes them, for one environment or for each."""
    own = world.action_space.shape or ()
    axes = given.shape[: given.ndim - len(own)]
    if axes not in ((steps,), (number, steps)):
        expected = ", ".join(map(str, (steps, *own))) + ("" if own else ",")
        raise ConfigError(
            f"options['actions'] have the shape {given.shape} and dtype {given.dtype}, expected ({expected}), one "
            f"action of {world.action_space} between each two of the frames, or {number} times that"
        )
    flat = check_actions(given.reshape(-1, *own), math.prod(axes), world.action_space, "options['actions']")
    return world.actions.encode(flat).reshape(*axes, *world.actions.stored_shape)

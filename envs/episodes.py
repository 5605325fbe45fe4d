"""What environments take and give: actions, seeds, masks and rows, transitions, infos, copies of their episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode
from jaxtyping import Bool, Int64, Shaped
from numpy.typing import NDArray

from rnem_world.errors import ConfigError

Array = NDArray[Any]
Infos = dict[str, Any]


class Transition(NamedTuple):
    """What one step of N environments shows, as new arrays.

    Attributes:
        observations: (n, ...).
        rewards: Float64 (n,).
        terminations: Bool (n,).
        truncations: Bool (n,), without those that the limit of steps causes.
        infos: By name, each (n, ...).
    """

    observations: Array
    rewards: Array
    terminations: Array
    truncations: Array
    infos: Infos


@dataclass(frozen=True)
class EpisodesSnapshot:
    """A copy of environments, from which they go on exactly as they did: single ones, or some of a batch.

    Attributes:
        state: What the environment itself copied: it has a length and can ``pick`` rows as this does.
        elapsed: Int64 (m,), steps since the reset.
        finished: Bool (m,), which episodes are over and wait for their reset.
        generators: The states of the random generators; None where nothing was drawn yet.
    """

    state: Any
    elapsed: Int64[np.ndarray, " m"]
    finished: Bool[np.ndarray, " m"]
    generators: tuple[dict[str, Any] | None, ...]

    def __len__(self) -> int:
        return len(self.elapsed)

    def pick(self, rows: Sequence[int] | Array) -> EpisodesSnapshot:
        """Copies some of the environments, in the given order, repeated or not."""
        chosen = np.asarray(rows, dtype=np.int64)
        generators = tuple(self.generators[row] for row in chosen.tolist())
        return EpisodesSnapshot(
            self.state.pick(chosen), self.elapsed[chosen], self.finished[chosen], generators
        )


class Episodes:
    """The books of N environments: their generators, how far their episodes are, and which wait for a reset.

    Attributes:
        generators: One for each, None where nothing has been drawn yet.
        seeds: What they were seeded with; None where that wasn't said.
        elapsed: Int64 (n,), steps of each episode so far.
        finished: Bool (n,), which episodes are over and wait for their reset; never changed in place.
        all_started: Whether every environment has been reset.

    Args:
        number: N.
    """

    def __init__(self, number: int) -> None:
        self.generators: list[np.random.Generator | None] = [None] * number
        self.seeds: list[int | None] = [None] * number
        self.elapsed = np.zeros(number, dtype=np.int64)
        self.finished = np.zeros(number, dtype=np.bool_)
        self.all_started = False
        self._started = np.zeros(number, dtype=np.bool_)

    def generator(self, row: int) -> np.random.Generator:
        """Returns the generator of an environment."""
        generator = self.generators[row]
        if generator is None:
            generator, _ = np_random()
            self.generators[row] = generator
        return generator

    def seed(self, rows: Int64[np.ndarray, " m"], seeds: Sequence[int | None]) -> Callable[[], None]:
        """Seeds generators, those of which the seed is None aside.

        Returns:
            What undoes it, and whatever was drawn since from any of these generators.
        """
        before = {row: (self.generators[row], self.seeds[row]) for row in rows.tolist()}
        states = {
            row: dict(each.bit_generator.state) for row, (each, _) in before.items() if each is not None
        }
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            if seed is not None:
                self.generators[row], self.seeds[row] = np_random(seed)

        def undo() -> None:
            for row, (generator, seed) in before.items():
                self.generators[row], self.seeds[row] = generator, seed
                if generator is not None:
                    generator.bit_generator.state = states[row]

        return undo

    def begin(self, rows: Int64[np.ndarray, " m"]) -> None:
        """Notes that episodes have begun."""
        self.elapsed[rows] = 0
        self.finished = self.finished.copy()
        self.finished[rows] = False
        self._started[rows] = True
        self.all_started = bool(self._started.all())

    def check_started(self) -> None:
        """Refuses to go on where a reset is missing.

        Raises:
            gymnasium.error.ResetNeeded: If an environment hasn't been reset yet.
        """
        if not self.all_started:
            raise ResetNeeded("reset the environment before anything else")

    def copy(self, rows: Int64[np.ndarray, " m"], state: Any) -> EpisodesSnapshot:
        """Copies what is noted of some environments, beside their own state."""
        generators = [self.generators[row] for row in rows.tolist()]
        states = tuple(None if each is None else dict(each.bit_generator.state) for each in generators)
        return EpisodesSnapshot(state, self.elapsed[rows], self.finished[rows], states)

    def put(self, rows: Int64[np.ndarray, " m"], snapshot: EpisodesSnapshot) -> None:
        """Notes of some environments what a copy says."""
        self.begin(rows)
        self.elapsed[rows] = snapshot.elapsed
        self.finished[rows] = snapshot.finished
        for row, state in zip(rows.tolist(), snapshot.generators, strict=True):
            self.seeds[row] = self.generators[row] = None
            if state is not None:
                self.generator(row).bit_generator.state = state


def check_snapshot(snapshot: object, number: int) -> None:
    """Refuses what is no copy of so many environments.

    Raises:
        ConfigError: If it isn't.
    """
    if not isinstance(snapshot, EpisodesSnapshot):
        raise ConfigError(
            f"the state is a {type(snapshot).__name__}, expected what `get_state` of such an environment returned"
        )
    if len(snapshot) != number:
        raise ConfigError(
            f"the state holds {len(snapshot)} environments, expected {number}: choose some by `pick`"
        )


def check_count(name: str, value: Any) -> None:
    """Refuses what is no number of things.

    Raises:
        ConfigError: If ``value`` is no integer of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ConfigError(f"{name} is {value!r}, expected an integer of at least 1")


def autoreset_mode_of(mode: AutoresetMode | str) -> AutoresetMode:
    """Returns the mode.

    Raises:
        ConfigError: If there is none of that name.
    """
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        modes = ", ".join(known.value for known in AutoresetMode)
        raise ConfigError(
            f"autoreset_mode is {mode!r}, expected an AutoresetMode or one of {modes}"
        ) from error


def seeds_of(seed: int | Sequence[int | None] | None, num_envs: int) -> list[int | None]:
    """Returns a seed for each sub-environment: ``seed + i`` as Gymnasium does, or those that were given.

    Raises:
        ConfigError: If the number of seeds is another, or one is no integer of at least 0.
    """
    if seed is None:
        return [None] * num_envs
    given = [seed] if isinstance(seed, int | np.integer) else list(seed)
    for each in given:
        if each is not None and (
            isinstance(each, bool) or not isinstance(each, int | np.integer) or each < 0
        ):
            raise ConfigError(f"a seed is {each!r}, expected an integer of at least 0")
    if isinstance(seed, int | np.integer):
        return [int(seed) + index for index in range(num_envs)]
    if len(given) != num_envs:
        raise ConfigError(f"{len(given)} seeds are given, expected {num_envs}, one for each world")
    return [None if each is None else int(each) for each in given]


def reset_mask_of(given: Any, num_envs: int) -> Bool[np.ndarray, " n"]:
    """Returns which sub-environments ``options["reset_mask"]`` resets: all if it is None.

    Raises:
        ConfigError: If it isn't ``num_envs`` booleans of which one is True.
    """
    if given is None:
        return np.ones(num_envs, dtype=np.bool_)
    mask = np.array(given)
    if mask.shape != (num_envs,) or mask.dtype != np.bool_ or not mask.any():
        raise ConfigError(
            f"options['reset_mask'] is {given!r}, expected {num_envs} booleans of which at least one is True"
        )
    return mask


def check_actions(
    actions: Any, number: int, space: spaces.Space[Any], what: str = "actions"
) -> Shaped[np.ndarray, "n ..."]:
    """Returns the actions as an array of the space's kind.

    Real numbers may lie beyond their bounds, and count as the bound, as most environments take them.

    Args:
        actions: What a user gives.
        number: N.
        space: The actions of one environment: Discrete, MultiDiscrete, MultiBinary or Box.
        what: What they are, for messages.

    Raises:
        ConfigError: If they aren't N actions of that kind, or one is out of range.
    """
    given = np.asarray(actions)
    shape, kinds, noun = (number, *(space.shape or ())), "iu", "integers"
    if isinstance(space, spaces.Box):
        kinds, noun = "iuf", "numbers"
    elif isinstance(space, spaces.MultiBinary):
        kinds, noun = "iub", "zeros and ones"
    if given.shape != shape or given.dtype.kind not in kinds:
        raise ConfigError(
            f"{what} have the shape {given.shape} and dtype {given.dtype}, expected {shape} {noun}"
        )
    if isinstance(space, spaces.Box):
        if not np.isfinite(given).all():
            raise ConfigError(f"{what} hold NaN or infinity, expected finite numbers")
        clipped: Shaped[np.ndarray, "n ..."] = np.clip(given, space.low, space.high).astype(space.dtype)
        return clipped
    low, high = _bounds(space)
    if (given < low).any() or (given > high).any():
        expected = f"those of {space}" if np.ndim(low) else f"{low} to {high}"
        raise ConfigError(f"{what} lie between {given.min()} and {given.max()}, expected {expected}")
    return given


def _bounds(space: spaces.Space[Any]) -> tuple[Any, Any]:
    """Gives the least and the greatest whole numbers of a space."""
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start + space.n) - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    raise ConfigError(f"the action space is {space}, expected Discrete, MultiDiscrete, MultiBinary or Box")


def rows_of(rows: Sequence[int] | Array | None, num_envs: int) -> Int64[np.ndarray, " m"]:
    """Returns the indices of the sub-environments that a user names; None names all.

    Raises:
        ConfigError: If one is out of range or named twice.
    """
    if rows is None:
        return np.arange(num_envs)
    chosen = np.atleast_1d(np.asarray(rows))
    is_index = chosen.ndim == 1 and chosen.size > 0 and chosen.dtype.kind in "iu"
    if not is_index or chosen.min() < 0 or chosen.max() >= num_envs:
        raise ConfigError(f"sub-environments {rows!r} were named, expected numbers from 0 to {num_envs - 1}")
    if len(np.unique(chosen)) != len(chosen):
        raise ConfigError(f"sub-environments {rows!r} were named, expected each at most once")
    return chosen.astype(np.int64)


def with_masks(infos: Infos, mask: Bool[np.ndarray, " n"]) -> Infos:
    """Puts beside every entry, under its name with ``_`` before it, of which sub-environments it is."""
    return infos | {f"_{name}": mask.copy() for name in infos}


def final_infos(observations: Array, infos: Infos, over: Bool[np.ndarray, " n"]) -> Infos:
    """Returns what infos hold of episodes that have ended, where the next ones begin in the same step.

    Args:
        observations: The last ones, of all N; those that are needed are copied.
        infos: The last ones, without masks.
        over: Which episodes have ended.
    """
    last = np.full(len(over), None, dtype=object)
    for row in np.flatnonzero(over).tolist():
        last[row] = observations[row].copy()
    return {
        "final_obs": last,
        "_final_obs": over.copy(),
        "final_info": with_masks(infos, over),
        "_final_info": over.copy(),
    }

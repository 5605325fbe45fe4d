"""``RNEM-AtariReal-v0``: Atari games, in frames that a model can learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from jaxtyping import Bool, Int64, Integer, UInt8

from rnem_world.envs.atari_console import MAX_EPISODE_STEPS, REPEAT_PROBABILITY, SIZE, EmulatorSnapshot
from rnem_world.envs.atari_frames import AtariRules
from rnem_world.envs.episodes import Array, Infos, Transition, check_count
from rnem_world.envs.vector import BatchedVectorEnv, SingleEnv
from rnem_world.errors import ConfigError


@dataclass(frozen=True)
class AtariSnapshot:
    """A copy of some games.

    Attributes:
        emulators: The consoles.
        frames: Uint8 (m, 84, 84) or (m, 84, 84, 3), the last frames.
        life_lost: Bool (m,), whether the last step cost a life.
    """

    emulators: tuple[EmulatorSnapshot, ...]
    frames: UInt8[np.ndarray, "m *shape"]
    life_lost: Bool[np.ndarray, " m"]

    def __len__(self) -> int:
        return len(self.emulators)

    def pick(self, rows: Int64[np.ndarray, " m"]) -> AtariSnapshot:
        """Copies some of the games, in the given order, repeated or not."""
        emulators = tuple(self.emulators[row] for row in rows.tolist())
        return AtariSnapshot(emulators, self.frames[rows], self.life_lost[rows])


class AtariVectorEnv(BatchedVectorEnv):
    """N times `AtariEnv` in one; see there for observations, actions and rewards.

    The consoles run one after the other in this process: ale-py's own vector environment was measured to be no faster
    per core, and its consoles can't be copied.

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
        check_count("num_envs", num_envs)
        self.rules = AtariRules(game, obs_type, reward, background, repeat_probability)
        self.emulators = [self.rules.emulator() for _ in range(num_envs)]
        actions = spaces.Discrete(len(self.action_names))
        super().__init__(num_envs, self.rules.space, actions, max_episode_steps, autoreset_mode, render_mode)
        colours = (3,) if obs_type == "rgb" else ()
        self._frames = np.zeros((num_envs, SIZE, SIZE, *colours), dtype=np.uint8)
        self._life_lost = np.zeros(num_envs, dtype=np.bool_)

    @property
    def action_names(self) -> list[str]:
        """The actions, in the order of their numbers."""
        return self.emulators[0].action_names

    def frames(self) -> UInt8[np.ndarray, "n 84 84 *c"]:
        """Returns the current frames in grey (in colour for ``rgb``), whatever the observations are."""
        return self._frames.copy()

    def begin(
        self, rows: Int64[np.ndarray, " m"], seeds: Sequence[int | None], options: dict[str, Any]
    ) -> None:
        """Starts new games; consoles without a seed go on with their sticky actions."""
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            emulator = self.emulators[row]
            if seed is None and not emulator.is_seeded:
                seed = int(self.episodes.generator(row).integers(2**31))  # noqa: PLW2901
            if seed is not None:
                emulator.seed(seed)
            emulator.reset()
            self._frames[row] = emulator.frame()
        self._life_lost[rows] = False

    def advance(self, actions: Integer[np.ndarray, " n"], waiting: Bool[np.ndarray, " n"]) -> Transition:
        """Holds an action for four frames in every game; games that wait for their reset stand still."""
        points = np.zeros(self.num_envs, dtype=np.float64)
        over = np.zeros(self.num_envs, dtype=np.bool_)
        for row in np.flatnonzero(~waiting).tolist():
            emulator = self.emulators[row]
            points[row], over[row], self._life_lost[row] = emulator.step(int(actions[row]))
            self._frames[row] = emulator.frame()
        observations, infos = self.observe()
        never = np.zeros(self.num_envs, dtype=np.bool_)
        return Transition(observations, self.rules.earned(points), over, never, infos)

    def observe(self, rows: Int64[np.ndarray, " m"] | None = None) -> tuple[Array, Infos]:
        """Returns the frames, (m, 84, 84, C), and the lives."""
        chosen = np.arange(self.num_envs) if rows is None else rows
        lives = np.array([self.emulators[row].lives for row in chosen.tolist()], dtype=np.int64)
        infos = {"lives": lives, "life_lost": self._life_lost[chosen]}
        return self.rules.observation(self._frames[chosen]), infos

    def pictures(self) -> list[Array]:
        """Returns the consoles' screens in colour, each (210, 160, 3) uint8."""
        return [emulator.screen() for emulator in self.emulators]

    def copy_state(self, rows: Int64[np.ndarray, " m"]) -> AtariSnapshot:
        """Copies some games, with their consoles' sticky actions to come."""
        emulators = tuple(self.emulators[row].get_state() for row in rows.tolist())
        return AtariSnapshot(emulators, self._frames[rows], self._life_lost[rows])

    def put_state(self, rows: Int64[np.ndarray, " m"], state: Any) -> None:
        """Makes some games go on as the copied ones did.

        Raises:
            ConfigError: If the copy is of an environment with other observations.
        """
        if not isinstance(state, AtariSnapshot) or state.frames.shape[1:] != self._frames.shape[1:]:
            given = state.frames.shape[1:] if isinstance(state, AtariSnapshot) else type(state).__name__
            raise ConfigError(
                f"the state's frames have the shape {given}, expected {self._frames.shape[1:]}: it is of an "
                "environment with other observations"
            )
        for row, emulator in zip(rows.tolist(), state.emulators, strict=True):
            self.emulators[row].set_state(emulator)
        self._frames[rows] = state.frames
        self._life_lost[rows] = state.life_lost


class AtariEnv(SingleEnv):
    """A game of the Arcade Learning Environment: frame skip 4, sticky actions 0.25, the minimal action set.

    Observations are frames, (84, 84, 1) uint8: the brighter of the last two screens of each pixel, by areas to
    84 x 84, and 255 where that differs from the game's background, else 0. An episode terminates with the game;
    `gymnasium.make` truncates it after half an hour of play. ``info`` has ``lives`` and ``life_lost``.

    Args:
        game: The game's name, for example ``"SpaceInvaders"``.
        obs_type: ``"binary"``, or ``"grayscale"``, or ``"rgb"`` for (84, 84, 3).
        reward: ``"raw"`` for the game's points or ``"sign"`` for their sign.
        background: None for the game's own, which is found by a short run of the game once and kept in the user's
            cache folder; or an array (84, 84) of uint8, or the path of a ``.npy`` file or a dataset of the game.
        repeat_probability: Probability that a frame of the console still gets the action before.
        render_mode: ``"rgb_array"``, ``"human"`` or None.

    Raises:
        ConfigError: If an argument makes no sense.
        DataError: If the background can't be read.
        DependencyError: If ale-py is not installed.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array", "human"],
        "render_fps": 15,
    }
    batch: AtariVectorEnv

    def __init__(
        self,
        game: str = "SpaceInvaders",
        obs_type: str = "binary",
        reward: str = "raw",
        background: Any = None,
        repeat_probability: float = REPEAT_PROBABILITY,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(
            AtariVectorEnv(
                1, game, obs_type, reward, background, repeat_probability, None, AutoresetMode.DISABLED
            ),
            render_mode,
        )

    @property
    def action_names(self) -> list[str]:
        """The actions, in the order of their numbers."""
        return self.batch.action_names

    @property
    def ale(self) -> Any:
        """The console, ``ale_py.ALEInterface``: wrappers of others ask it for the lives."""
        return self.batch.emulators[0].ale

    def get_action_meanings(self) -> list[str]:
        """Returns the actions' names, as wrappers of others ask for them."""
        return self.action_names

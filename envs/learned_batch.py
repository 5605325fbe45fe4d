"""N learned environments between NumPy and torch: starts, options, observations and infos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from jaxtyping import Int64
from torch import Tensor

from rnem_world.envs.atari_worlds import is_game, own_starts, played_starts
from rnem_world.envs.contexts import check_context
from rnem_world.envs.doubt import read_calibration
from rnem_world.envs.editing import apply_edits, check_edits
from rnem_world.envs.learned_world import REAL, LearnedWorld, Pool, load_world
from rnem_world.envs.learned_worlds import DOUBTS, LearnedWorlds, Outcome, check_details
from rnem_world.envs.snapshots import LearnedSnapshot
from rnem_world.envs.start_stream import StartStream
from rnem_world.envs.starts import Starts, read_starts, simulated_starts, starts_from_dataset
from rnem_world.envs.transfer import Array, to_host
from rnem_world.errors import ConfigError, suggest
from rnem_world.evaluation.plots import colour_grouping
from rnem_world.models.dreams import DreamState
from rnem_world.physics import BallsConfig

ObservationType = Literal["frame", "slots"]
OPTIONS = ("frames", "actions", "start", "edits", "reset_mask")
RENDERED_SIZE = 256
"""Least side of each of the two halves of a rendered picture."""


class Collected(NamedTuple):
    """What a reset or a step shows, on the host."""

    observations: Array
    rewards: Array
    terminations: Array
    details: dict[str, Array]


def observation_space(world: LearnedWorld, obs_type: str, slots: int) -> spaces.Box:
    """Returns the space of one observation.

    Raises:
        ConfigError: If ``obs_type`` is unknown.
    """
    if obs_type not in get_args(ObservationType):
        raise ConfigError(f"obs_type is {obs_type!r}: {suggest(str(obs_type), get_args(ObservationType))}")
    if obs_type == "frame":
        return spaces.Box(0, 255, world.frame_shape, np.uint8)
    low, high = world.slot_bounds()
    return spaces.Box(np.tile(low, (slots, 1)), np.tile(high, (slots, 1)), dtype=np.float32)


class LearnedBatch:
    """N learned environments without episodes: what `LearnedEnv` and `LearnedVectorEnv` share.

    Attributes:
        number_of_starts: How many different starts there are; None where each is simulated anew.

    Args:
        number: N.
        checkpoint: See `LearnedEnv`, also for the others.
        num_slots: Slots.
        obs_type: ``frame`` or ``slots``.
        imagination: ``latent``, ``pixels`` or None.
        device: Where the model is.
        starts: Where dreams begin.
        details: What infos hold.
        soft_frames: Whether frames show probabilities.
        ensemble: Other checkpoints that dream alongside.
        truncate_on_uncertainty: The uncertainty above which an episode is truncated.

    Raises:
        RnemWorldError: If an argument makes no sense.
    """

    def __init__(
        self,
        number: int,
        checkpoint: str | Path,
        num_slots: int | None,
        obs_type: str,
        imagination: str | None,
        device: str | torch.device,
        starts: str | Path | Starts | None,
        details: Sequence[str],
        soft_frames: bool,
        ensemble: Sequence[str | Path] | str | Path,
        truncate_on_uncertainty: float | int | None,
    ) -> None:
        self.names = check_details(details)
        self.limit = None if truncate_on_uncertainty is None else float(truncate_on_uncertainty)
        if self.limit is not None:
            if not self.limit > 0.0:
                raise ConfigError(
                    f"truncate_on_uncertainty is {self.limit:g}, expected a number of pixels above 0"
                )
            self.names = tuple(dict.fromkeys((*self.names, "uncertainty")))
        self.world = load_world(checkpoint, device)
        self.worlds = LearnedWorlds(
            self.world, number, num_slots, imagination, bool(set(DOUBTS) & set(self.names))
        )
        if "uncertainty" in self.names:
            self.worlds.calibration = read_calibration(self.world.folder, self.worlds.imagination)
        self.members = [
            LearnedWorlds(self._member(other, device), number, num_slots, imagination)
            for other in ([ensemble] if isinstance(ensemble, str | Path) else ensemble)
        ]
        if "disagreement" in self.names and not self.members:
            raise ConfigError(
                "disagreement needs other worlds to disagree with: give ensemble=(CHECKPOINT, ...)"
            )
        self.observation_space = observation_space(self.world, obs_type, self.worlds.slots)
        self.action_space = spaces.Discrete(self.world.number_of_actions)
        self.number = number
        self.obs_type = obs_type
        self.soft_frames = soft_frames
        self.stream = StartStream(number)
        self.elapsed = np.zeros(number, dtype=np.int64)
        self.finished = np.zeros(number, dtype=np.bool_)
        self._started = np.zeros(number, dtype=np.bool_)
        self._rules: BallsConfig | None = None
        self._pools: list[Pool] = []
        self.number_of_starts: int | None = None
        if _is_real(starts) and not is_game(self.world):
            self._rules = self.world.real_rules(_name_of(starts))
        else:
            found = _find_starts(self.world, starts)
            every = (self.worlds, *self.members)
            self._pools = [worlds.world.pool(found, worlds.slots) for worlds in every]
            self.number_of_starts = len(found)

    @property
    def is_started(self) -> bool:
        """Whether all N have been reset."""
        return bool(self._started.all())

    def reset(self, rows: Int64[np.ndarray, " m"], options: dict[str, Any] | None = None) -> None:
        """Begins new dreams.

        Args:
            rows: Which of the N.
            options: ``frames`` and ``actions``, or ``start``; see `LearnedEnv.reset`.

        Raises:
            ConfigError: If the options make no sense; then nothing has changed.
        """
        given = dict(options or {})
        edits = check_edits(given.pop("edits", None) or (), self.worlds.slots)
        if edits and self.members:
            raise ConfigError(
                "worlds of an ensemble have other slots, so edits mean nothing to them: leave one out"
            )
        begun = self._begin(rows, given)
        before = None
        if edits:
            scratch = LearnedWorlds(self.world, len(rows), self.worlds.slots, self.worlds.imagination)
            everyone = torch.arange(len(rows), device=self.world.device)
            scratch.put(everyone, begun[0])
            apply_edits(scratch, everyone, edits)
            before = scratch.get_state(everyone).dreams
        for worlds, dreams in zip((self.worlds, *self.members), begun, strict=True):
            worlds.put(self._indices(rows), dreams if before is None else before)
        self.elapsed[rows] = 0
        self.finished[rows] = False
        self._started[rows] = True

    def step(self, actions: Array) -> Outcome:
        """Imagines one transition of all N.

        Raises:
            ConfigError: If the actions are of another kind.
            gymnasium.error.ResetNeeded: If one hasn't been reset yet.
        """
        self.check_started()
        given = np.asarray(actions)
        if given.shape != (self.number,) or given.dtype.kind not in "iu":
            raise ConfigError(
                f"actions have the shape {given.shape} and dtype {given.dtype}, expected ({self.number},) integers"
            )
        if given.min() < 0 or given.max() >= self.world.number_of_actions:
            raise ConfigError(
                f"actions lie between {given.min()} and {given.max()}, expected 0 to "
                f"{self.world.number_of_actions - 1}"
            )
        told = self._indices(given)
        outcome = self.worlds.step(told)
        for member in self.members:
            member.step(told)
        self.elapsed += 1
        return outcome

    def collect(
        self, outcome: Outcome | None = None, rows: Int64[np.ndarray, " m"] | None = None
    ) -> Collected:
        """Copies to the host what the environments show.

        Args:
            outcome: Of the step before; None after a reset.
            rows: Whose; None for all.
        """
        chosen = None if rows is None else self._indices(rows)
        details = self.worlds.details(self.names, chosen) if self.names else {}
        if "disagreement" in self.names:
            details["disagreement"] = self._disagreement(chosen)
        if self.obs_type == "frame":
            shown = self.worlds.frames(chosen, self.soft_frames)
        else:
            shown = self.worlds.outputs(chosen)
        ends = [] if outcome is None else list(outcome)
        arrays = to_host([shown, *ends, *details.values()])
        observations, rest = arrays[0], arrays[1:]
        if outcome is None:
            rewards = np.zeros(len(observations))
            terminations = np.zeros(len(observations), dtype=np.bool_)
        else:
            rewards, terminations, rest = rest[0].astype(np.float64), rest[1], rest[2:]
        return Collected(observations, rewards, terminations, dict(zip(details, rest, strict=True)))

    def render(self) -> Array:
        """Draws the frames (left) and which slot has which pixel (right), (n, height, 2 width, 3) uint8."""
        self.check_started()
        picture = self.worlds.pictures()
        frame, gamma = to_host([picture.frame, picture.gamma[:, :, 0]])
        grey = frame.mean(axis=1)
        left = np.broadcast_to(frame.transpose(0, 2, 3, 1), (*grey.shape, 3))
        both = np.concatenate([left, colour_grouping(gamma, grey)], axis=2)
        factor = -(-RENDERED_SIZE // self.world.frame_shape[0])
        pictures = (both * 255.0).round().astype(np.uint8)
        return pictures.repeat(factor, axis=1).repeat(factor, axis=2)

    def get_state(self, rows: Int64[np.ndarray, " m"]) -> LearnedSnapshot:
        """Copies some of the environments.

        Raises:
            gymnasium.error.ResetNeeded: If one of the N hasn't been reset yet.
        """
        self.check_started()
        return LearnedSnapshot(
            self.worlds.get_state(self._indices(rows)),
            self.elapsed[rows],
            self.finished[rows],
            self.stream.keys[rows],
            self.stream.draws[rows],
            members=tuple(member.get_state(self._indices(rows)) for member in self.members),
        )

    def set_state(self, rows: Int64[np.ndarray, " m"], snapshot: object) -> None:
        """Makes some of the environments go on as the copied ones did.

        Raises:
            ConfigError: If the copy is of another world, or of another number of environments.
        """
        if not isinstance(snapshot, LearnedSnapshot):
            raise ConfigError(
                f"the state is a {type(snapshot).__name__}, expected what `get_state` of a learned environment returned"
            )
        every, copies = (self.worlds, *self.members), (snapshot.dreams, *snapshot.members)
        if len(copies) != len(every):
            raise ConfigError(
                f"the state is of an ensemble of {len(copies)} worlds, expected {len(every)}: make them alike"
            )
        for worlds, copy in zip(every, copies, strict=True):
            worlds.check_snapshot(copy, len(rows))
        for worlds, copy in zip(every, copies, strict=True):
            worlds.set_state(self._indices(rows), copy)
        self.elapsed[rows] = snapshot.elapsed
        self.finished[rows] = snapshot.finished
        self.stream.keys[rows] = snapshot.keys
        self.stream.draws[rows] = snapshot.draws
        self._started[rows] = True

    def check_started(self) -> None:
        """Refuses to go on where a reset is missing.

        Raises:
            gymnasium.error.ResetNeeded: If one of the N hasn't been reset yet.
        """
        if not self.is_started:
            raise ResetNeeded("reset the environment before anything else")

    def check_rows(self, rows: Sequence[int] | Array | None) -> Int64[np.ndarray, " m"]:
        """Turns what a user gives for rows into indices.

        Raises:
            ConfigError: If one is out of range or named twice.
        """
        if rows is None:
            return np.arange(self.number)
        chosen = np.atleast_1d(np.asarray(rows))
        is_index = chosen.ndim == 1 and chosen.size > 0 and chosen.dtype.kind in "iu"
        if not is_index or chosen.min() < 0 or chosen.max() >= self.number:
            raise ConfigError(
                f"sub-environments {rows!r} were named, expected numbers from 0 to {self.number - 1}"
            )
        if len(np.unique(chosen)) != len(chosen):
            raise ConfigError(f"sub-environments {rows!r} were named, expected each at most once")
        return chosen.astype(np.int64)

    def _indices(self, rows: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64)).to(self.world.device)

    def edit(self, rows: Int64[np.ndarray, " m"], edits: object) -> None:
        """Edits the objects of some dreams.

        Raises:
            ConfigError: If the edits make no sense.
            gymnasium.error.ResetNeeded: If one of the N hasn't been reset yet.
        """
        self.check_started()
        if self.members:
            raise ConfigError(
                "worlds of an ensemble have other slots, so edits mean nothing to them: leave one out"
            )
        apply_edits(self.worlds, self._indices(rows), check_edits(edits, self.worlds.slots))

    def _member(self, checkpoint: str | Path, device: str | torch.device) -> LearnedWorld:
        member, world = load_world(checkpoint, device), self.world
        given = (member.frame_shape, member.number_of_actions)
        if given != (world.frame_shape, world.number_of_actions):
            raise ConfigError(
                f"the ensemble's world {member.folder.name} has frames and actions {given}, expected "
                f"{(world.frame_shape, world.number_of_actions)}"
            )
        return member

    def _disagreement(self, rows: Tensor | None) -> Tensor:
        own = self.worlds.frames(rows).flatten(1) > 0
        white = own.sum(dim=1).clamp(min=1)
        others = torch.stack([member.frames(rows).flatten(1) > 0 for member in self.members])
        return ((others != own).sum(dim=2) / white).mean(dim=0)

    def _begin(self, rows: Int64[np.ndarray, " m"], options: dict[str, Any]) -> list[DreamState]:
        """Makes new dreams, one batch for each world of the ensemble."""
        for name in options:
            if name not in OPTIONS:
                raise ConfigError(f"unknown option {name!r} of a reset: {suggest(str(name), OPTIONS)}")
        if options.get("frames") is not None or options.get("actions") is not None:
            frames, actions = check_context(self.world, options, self.number, rows)
            return self._encoded(Starts.pack(frames, actions))
        if options.get("start") is not None:
            chosen = self._named_starts(options["start"], rows)
        else:
            numbers = self.stream.draw(rows)
            if self._rules is not None:
                return self._encoded(simulated_starts(self._rules, numbers))
            chosen = (numbers % np.uint64(self.number_of_starts or 1)).astype(np.int64)
        self._require_pools()
        return [pool.take(chosen) for pool in self._pools]

    def _encoded(self, starts: Starts) -> list[DreamState]:
        every = (self.worlds, *self.members)
        return [worlds.world.encode_starts(starts, worlds.slots, slice(None)) for worlds in every]

    def prepare(self) -> None:
        """Encodes all starts now, instead of each when it is first drawn."""
        for pool in self._pools:
            pool.take_all()

    def _require_pools(self) -> None:
        if not self._pools:
            raise ConfigError("starts are simulated here, there are none to choose from: leave out 'start'")

    def _named_starts(self, given: Any, rows: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
        self._require_pools()
        chosen, number = np.asarray(given), self.number_of_starts or 0
        fits = chosen.dtype.kind in "iu" and chosen.shape in ((), (self.number,))
        if not fits or chosen.min() < 0 or chosen.max() >= number:
            raise ConfigError(
                f"options['start'] is {given!r}, expected a number from 0 to {number - 1}, or {self.number} of them"
            )
        picked: Int64[np.ndarray, " m"] = np.broadcast_to(chosen, (self.number,))[rows].astype(np.int64)
        return picked


def _find_starts(world: LearnedWorld, starts: str | Path | Starts | None) -> Starts:
    if starts is None:
        return own_starts(world)
    if _is_real(starts):
        return played_starts(world, _name_of(starts))
    if isinstance(starts, Starts):
        return starts
    path = Path(starts)
    return read_starts(path) if path.suffix == ".npz" else starts_from_dataset(path)


def _is_real(starts: str | Path | Starts | None) -> bool:
    return isinstance(starts, str) and starts.partition(":")[0] == REAL


def _name_of(starts: str | Path | Starts | None) -> str | None:
    """Gives what stands behind ``real:``, None if nothing does."""
    return str(starts).partition(":")[2] or None

"""N learned environments between NumPy and torch: starts, options, observations and infos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from jaxtyping import Int64
from rnem_world.envs.vector_arguments import check_actions
from torch import Tensor

from rnem_world.envs.beginnings import Beginnings
from rnem_world.envs.details import DOUBTS, check_details
from rnem_world.envs.doubt import read_calibration
from rnem_world.envs.editing import apply_edits, check_edits
from rnem_world.envs.ensemble import disagreement, load_members, refuse_edits
from rnem_world.envs.learned_observation import observation_space
from rnem_world.envs.learned_world import load_world
from rnem_world.envs.learned_worlds import LearnedWorlds, Outcome
from rnem_world.envs.snapshots import LearnedSnapshot
from rnem_world.envs.starts import Starts
from rnem_world.envs.transfer import Array, to_host
from rnem_world.errors import ConfigError
from rnem_world.evaluation.plots import colour_grouping

RENDERED_SIZE = 256
"""Least side of each of the two halves of a rendered picture."""


class Collected(NamedTuple):
    """What a reset or a step shows, on the host."""

    observations: Array
    rewards: Array
    terminations: Array
    details: dict[str, Array]


class LearnedBatch:
    """N learned environments without episodes: what `LearnedEnv` and `LearnedVectorEnv` share.

    Attributes:
        stream: The random numbers that choose starts.
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
            LearnedWorlds(member, number, num_slots, imagination)
            for member in load_members(self.world, ensemble, device)
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
        self.elapsed = np.zeros(number, dtype=np.int64)
        self.finished = np.zeros(number, dtype=np.bool_)
        self._started = np.zeros(number, dtype=np.bool_)
        self._beginnings = Beginnings((self.worlds, *self.members), number, starts)
        self.stream = self._beginnings.stream
        self.number_of_starts = self._beginnings.number_of_starts

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
        if edits:
            refuse_edits(self.members)
        begun = self._beginnings.begin(rows, given)
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
        told = self._indices(check_actions(actions, self.number, self.world.number_of_actions))
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
            details["disagreement"] = disagreement(self.worlds, self.members, chosen)
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

    def edit(self, rows: Int64[np.ndarray, " m"], edits: object) -> None:
        """Edits the objects of some dreams.

        Raises:
            ConfigError: If the edits make no sense.
            gymnasium.error.ResetNeeded: If one of the N hasn't been reset yet.
        """
        self.check_started()
        refuse_edits(self.members)
        apply_edits(self.worlds, self._indices(rows), check_edits(edits, self.worlds.slots))

    def prepare(self) -> None:
        """Encodes all starts now, instead of each when it is first drawn."""
        self._beginnings.prepare()

    def _indices(self, rows: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64)).to(self.world.device)

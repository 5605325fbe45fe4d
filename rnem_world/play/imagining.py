"""The dreams of all visitors, stepped and drawn at once; each is a snapshot that its visitor keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from rnem_world.device import to_host
from rnem_world.envs.dream import DreamBatch, DreamsSnapshot
from rnem_world.envs.editing import LEAST_MASS, Edit, apply_edits
from rnem_world.envs.placing import Put, put_objects
from rnem_world.envs.start_source import StartSource
from rnem_world.envs.uncertainty import Calibration, read_calibration
from rnem_world.envs.world import World, joined
from rnem_world.errors import ConfigError, DataError

NOBODY = 255
"""Stands for a slot where a pixel is the background's."""

MOST_SLOTS = 64


@dataclass(frozen=True)
class View:
    """What a dream shows at one time.

    Attributes:
        frame: Uint8 (h, w, c).
        owner: Uint8 (h, w), the slot that has most of a pixel, or `NOBODY`.
        share: Uint8 (h, w), how much of it, 255 for all.
        slots: Float (k, 4), each slot's centre in pixels, x first, its pixels, and its share of the last reward.
        attention: Float (k, k), of each slot (row) to the others in the last step; None for models without.
        uncertainty: See `Imagining.uncertainty`.
    """

    frame: UInt8[np.ndarray, "h w c"]
    owner: UInt8[np.ndarray, "h w"]
    share: UInt8[np.ndarray, "h w"]
    slots: Float[np.ndarray, "k 4"]
    attention: Float[np.ndarray, "k k"] | None
    uncertainty: float


@dataclass(frozen=True)
class Imagined:
    """A step of one dream.

    Attributes:
        dreams: The dream after it.
        reward: What it earned.
        ended: Whether the episode is over.
        view: What it shows.
    """

    dreams: DreamsSnapshot
    reward: float
    ended: bool
    view: View


class Imagining:
    """Begins, steps, draws and changes dreams of one world, any number of them at once.

    Attributes:
        world: The world.
        slots: Slots of a dream.
        way: ``latent`` or ``pixels``.
        uncertainty: What a view's uncertainty is: ``error``, the position error to expect in pixels, for calibrated
            worlds; ``unexplained``, the share of bright pixels that no slot is sure of, for other worlds in black and
            white; ``doubt``, how much of the objects' pixels isn't their owner's, for greys and colours.

    Args:
        world: The world.
        num_slots: Slots of a dream; None takes the model's own.
        way: ``latent``, ``pixels``, or None: latent if the model can.
        starts: Where dreams begin, see `rnem_world.envs.learned.DreamOptions`.
        engine: What computes steps, see `rnem_world.envs.engine.make_engine`.

    Raises:
        RnemWorldError: If the model can't dream so, or there are no starts.
    """

    def __init__(
        self,
        world: World,
        num_slots: int | None = None,
        way: str | None = None,
        starts: str | Path | None = None,
        engine: str = "auto",
    ) -> None:
        self.world = world
        self._engine = engine
        self._calibration: Calibration | None = None
        self.uncertainty = "unexplained" if world.model.likelihood.is_binary else "doubt"
        self._arguments: tuple[Any, ...] = (num_slots, way)
        one = self._batch(1)
        self.slots, self.way = one.slots, one.imagination
        if self.slots > MOST_SLOTS:
            raise ConfigError(f"{self.slots} slots were asked for, expected at most {MOST_SLOTS}")
        if world.model.likelihood.is_binary:
            try:
                self._calibration = read_calibration(world.folder, self.way)
                self.uncertainty = "error"
            except DataError:
                pass  # most worlds have none
        self._given_starts = starts
        self._starts = StartSource([(world, self.slots)], 1, starts)

    def begin(self, seed: int) -> DreamsSnapshot:
        """Begins a dream; the seed draws where."""
        generator = np.random.default_rng(seed)
        only = np.zeros(1, dtype=np.int64)
        begun = self._starts.begin(only, lambda high: [int(generator.integers(high))], {})
        return self._batch(1).begun(begun[0])

    def begin_evenly(self, number: int) -> DreamsSnapshot:
        """Begins dreams where starts lie that are evenly spread over all; fewer where there aren't so many."""
        known = self._starts.number_of_starts
        number = number if known is None else min(number, known)
        source = StartSource([(self.world, self.slots)], number, self._given_starts)
        chosen = {} if known is None else {"start": np.linspace(0, known - 1, number).astype(np.int64)}
        begun = source.begin(np.arange(number), lambda high: list(range(number)), chosen)
        return self._batch(number).begun(begun[0])

    def watched(self, frames: NDArray[np.uint8], actions: NDArray[Any]) -> DreamsSnapshot:
        """Begins a dream after real frames.

        Args:
            frames: (t, h, w, c), 0 to 255.
            actions: (t - 1, ...), what was done between them, as actions are stored.
        """
        seen = self.world.inputs(self.world.frames_for_model(frames[None]))
        done = torch.from_numpy(actions[None]).to(self.world.device)
        return self._batch(1).begun(self.world.encode(seen, done, self.slots))

    def advance(self, dreams: Sequence[DreamsSnapshot], actions: Sequence[NDArray[Any]]) -> list[Imagined]:
        """Makes one step in each of several dreams.

        Args:
            dreams: One each.
            actions: What is done in them, as actions are stored.
        """
        if not dreams:
            return []
        batch = self._filled(dreams)
        done = torch.from_numpy(np.stack(actions)).to(self.world.device)
        outcome = batch.step(done)
        rewards, ends = to_host([outcome.rewards, outcome.terminations])
        return [
            Imagined(part, float(reward), bool(end), view)
            for part, reward, end, view in zip(
                self._parted(batch), rewards, ends, self._views(batch), strict=True
            )
        ]

    def look(self, dreams: Sequence[DreamsSnapshot]) -> list[View]:
        """Draws dreams as they are."""
        return self._views(self._filled(dreams)) if dreams else []

    def edit(self, dreams: DreamsSnapshot, edit: Edit) -> DreamsSnapshot:
        """Changes a dream's objects.

        Raises:
            ConfigError: If that isn't possible.
        """
        return self._whole(apply_edits(self._batch(1), dreams, [edit]))

    def put(
        self, past: Sequence[DreamsSnapshot], actions: Sequence[NDArray[Any]], puts: Sequence[Put]
    ) -> DreamsSnapshot:
        """Puts a dream's objects elsewhere, see `rnem_world.envs.placing.put_objects`.

        Raises:
            ConfigError: If that isn't possible.
        """
        done = self.world.no_actions(0)
        if actions:
            done = torch.from_numpy(np.stack(actions)).to(self.world.device)
        return self._whole(put_objects(self._batch(1), past, done, puts))

    def _whole(self, dreams: DreamsSnapshot) -> DreamsSnapshot:
        """Gives a changed dream the memory that uncertainty needs, which begins with the change."""
        batch = self._filled([dreams])
        return batch.state

    def _batch(self, number: int) -> DreamBatch:
        slots, way = self._arguments
        binary = self.world.model.likelihood.is_binary
        return DreamBatch(self.world, number, slots, way, binary, self._calibration, self._engine)

    def _filled(self, dreams: Sequence[DreamsSnapshot]) -> DreamBatch:
        batch = self._batch(len(dreams))
        rows = torch.arange(len(dreams), device=self.world.device)
        batch.set_state(rows, _together(dreams))
        return batch

    @staticmethod
    def _parted(batch: DreamBatch) -> list[DreamsSnapshot]:
        """Copies each dream by itself, so that what one visitor keeps doesn't keep the others'."""
        state = batch.state
        if batch.number == 1:
            return [state]
        return [
            state.map(lambda tensor, row=row: tensor[row : row + 1].clone())  # type: ignore[misc]
            for row in range(batch.number)
        ]

    @torch.inference_mode()
    def _views(self, batch: DreamBatch) -> list[View]:
        names = ["gamma", "centroids", "masses", "slot_rewards", "attention"]
        binary = self.world.model.likelihood.is_binary
        if binary:
            names.append("uncertainty" if self._calibration is not None else "unexplained")
        details = batch.details(names)
        gamma, frames = details["gamma"], batch.frames()
        most = gamma.max(dim=1)
        owned = (frames > 0).any(dim=-1) if binary else most.values > 1.0 - gamma.sum(dim=1)
        owner = torch.where(owned, most.indices, NOBODY).to(torch.uint8)
        share = (most.values * 255.0).round().to(torch.uint8)
        if binary:
            uncertainty = details[names[-1]]
        else:
            pixels = owned.sum(dim=(1, 2)).clamp(min=1)
            uncertainty = ((1.0 - most.values) * owned).sum(dim=(1, 2)) / pixels
        columns = [details["centroids"], details["masses"][..., None], details["slot_rewards"][..., None]]
        slots = torch.cat(columns, dim=2)
        attention = details.get("attention")
        shown: list[Tensor] = [frames, owner, share, slots, uncertainty]
        # A dream that has gone quite astray may hold NaN, which JSON can't.
        shown = [tensor if tensor.dtype == torch.uint8 else tensor.nan_to_num() for tensor in shown]
        arrays = to_host(shown if attention is None else [*shown, attention.nan_to_num()])
        frame, whose, shares, places, values, *rest = arrays
        return [
            View(
                frame[row],
                whose[row],
                shares[row],
                places[row],
                rest[0][row] if rest else None,
                float(values[row]),
            )
            for row in range(batch.number)
        ]


def emptiest_slot(view: View) -> int | None:
    """Finds a slot without an object; None if each has one."""
    masses = view.slots[:, 2]
    least = int(masses.argmin())
    return least if masses[least] < LEAST_MASS else None


def _together(dreams: Sequence[DreamsSnapshot]) -> DreamsSnapshot:
    """Puts single dreams side by side."""
    first = dreams[0]
    if len(dreams) == 1:
        return first

    def every(tensors: list[Tensor | None]) -> Tensor | None:
        there = [tensor for tensor in tensors if tensor is not None]
        return torch.cat(there) if there else None

    return replace(
        first,
        dreams=joined([each.dreams for each in dreams]),
        attention=every([each.attention for each in dreams]),
        slot_rewards=torch.cat([each.slot_rewards for each in dreams]),
        memory=every([each.memory for each in dreams]),
    )

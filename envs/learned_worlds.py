"""N dreams of a learned world, stepped at once: what the single and the vector environment share.

Everything here is torch on one device: nothing is copied to the host, and nothing loops over dreams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from gymnasium.error import ResetNeeded
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from rnem_world.envs.doubt import SIGNS, Calibration, signs
from rnem_world.envs.learned_world import LearnedWorld, chunks, join
from rnem_world.envs.snapshots import DreamsSnapshot
from rnem_world.errors import ConfigError, suggest
from rnem_world.evaluation.metrics import slot_centroids
from rnem_world.evaluation.pictures import attention_matrix
from rnem_world.models import em
from rnem_world.models.dreams import (
    DreamImagination,
    DreamState,
    DreamStep,
    Picture,
    check_imagination,
    dream_step,
    picture_of,
)

DETAILS = (
    "gamma",
    "prediction",
    "attention",
    "centroids",
    "masses",
    "slot_rewards",
    *SIGNS,
    "uncertainty",
    "disagreement",
)
"""What ``info`` may hold on request."""
DOUBTS = (*SIGNS, "uncertainty")


class Outcome(NamedTuple):
    """What a step earned.

    Attributes:
        rewards: Float (n,), the sum of the slots' shares.
        terminations: Bool (n,), whether the head gives the end more than even odds.
    """

    rewards: Tensor
    terminations: Tensor


def check_details(details: Sequence[str]) -> tuple[str, ...]:
    """Refuses details that nobody knows.

    Raises:
        ConfigError: If there is one.
    """
    given = (details,) if isinstance(details, str) else tuple(details)
    for name in given:
        if name not in DETAILS:
            raise ConfigError(f"unknown detail {name!r}: {suggest(str(name), DETAILS)}")
    return given


class LearnedWorlds:
    """N dreams of one world, stepped at once.

    Tensors are never changed in place, so that copies of a state cost nothing.

    Args:
        world: The world.
        number_of_dreams: N.
        num_slots: Slots of a dream; None takes the model's own.
        imagination: ``latent``, ``pixels``, or None: latent if the model can.
        measures_doubt: Whether to keep account of signs of doubt, for which every step is drawn.
        calibration: Tells the error that the signs stand for.

    Raises:
        ConfigError: If the model can't dream so.
    """

    def __init__(
        self,
        world: LearnedWorld,
        number_of_dreams: int,
        num_slots: int | None = None,
        imagination: str | None = None,
        measures_doubt: bool = False,
        calibration: Calibration | None = None,
    ) -> None:
        if imagination is None:
            imagination = "pixels" if world.model.prior_code is None else "latent"
        check_imagination(world.model, imagination)
        self.world = world
        self.model = world.model
        self.number_of_dreams = number_of_dreams
        self.slots = world.check_slots(num_slots)
        self.imagination = cast(DreamImagination, imagination)
        self._rows = world.padded(number_of_dreams, self.slots)
        self._dreams: DreamState | None = None
        self._attention: Tensor | None = None
        self._slot_rewards: Tensor | None = None
        # Each slot's means, where they are known already.
        self._prediction: Tensor | None = None
        self.measures_doubt = measures_doubt
        self.calibration = calibration
        self._memory: Tensor | None = None
        self._signs: Tensor | None = None

    @property
    def dreams(self) -> DreamState:
        """The dreams as they are, some rows more than N.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if self._dreams is None:
            raise ResetNeeded("reset the environment before anything else")
        return self._dreams

    @torch.inference_mode()
    def step(self, actions: Int64[Tensor, " n"]) -> Outcome:
        """Imagines one transition of every dream.

        Args:
            actions: One each, in range.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        dreams, n = self.dreams, self.number_of_dreams
        told = None
        if self.world.config.model.number_of_actions:
            told = torch.cat([actions, actions[:1].expand(self._rows - n)])
        steps = [
            dream_step(
                self.model,
                dreams.map(lambda tensor, rows=rows: tensor[rows]),  # type: ignore[misc]
                None if told is None else told[rows],
                self.imagination,
            )
            for rows in chunks(self._rows)
        ]
        self._dreams = join([step.state for step in steps])
        self._attention = _cat([step.attention for step in steps])
        self._slot_rewards = _cat([step.rewards for step in steps])
        self._prediction = _cat([step.prediction for step in steps])
        if self._memory is not None:
            self._remember(self._memory)
        return Outcome(self._rewards()[:n].sum(dim=1), _terminations(steps)[:n] > 0.0)

    @torch.inference_mode()
    def put(self, rows: Int64[Tensor, " m"], dreams: DreamState) -> None:
        """Puts dreams that have just begun in the place of others.

        Args:
            rows: Which of the N.
            dreams: m of them, as `LearnedWorld.encode` makes them.
        """
        if self.imagination == "latent":
            dreams = DreamState(dreams.theta, dreams.output, dreams.code)
        if self._dreams is None:
            self._allocate(dreams)
        zeros = dreams.theta.new_zeros(len(rows), self.slots)
        attention = self._attention
        blank = None if attention is None else attention.new_zeros(len(rows), *attention.shape[1:])
        self._replace(rows, dreams, blank, zeros, None)

    @torch.inference_mode()
    def get_state(self, rows: Int64[Tensor, " m"]) -> DreamsSnapshot:
        """Copies some of the dreams.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        whole = DreamsSnapshot(
            self.world.fingerprint,
            self.imagination,
            self.dreams,
            self._attention,
            self._rewards(),
            self._memory,
        )
        return whole.pick(rows)

    @torch.inference_mode()
    def set_state(self, rows: Int64[Tensor, " m"], snapshot: DreamsSnapshot) -> None:
        """Puts copies of dreams in the place of others.

        Raises:
            ConfigError: If they are of another world, or another number of them.
        """
        self.check_snapshot(snapshot, len(rows))
        dreams = snapshot.dreams.map(lambda tensor: tensor.to(self.world.device))
        if self._dreams is None:
            self._allocate(dreams)
        attention = None if snapshot.attention is None else snapshot.attention.to(self.world.device)
        memory = None if snapshot.memory is None else snapshot.memory.to(self.world.device)
        self._replace(rows, dreams, attention, snapshot.slot_rewards.to(self.world.device), memory)

    def check_snapshot(self, snapshot: DreamsSnapshot, number: int) -> None:
        """Refuses copies that can't be put in the place of so many dreams.

        Raises:
            ConfigError: If they are of another world, or another number of them.
        """
        if snapshot.world != self.world.fingerprint:
            raise ConfigError(
                f"the state is of another world (weights {snapshot.world}, expected {self.world.fingerprint}): "
                "give a state that an environment with the same checkpoint made"
            )
        slots = snapshot.dreams.theta.shape[1]
        if (snapshot.imagination, slots) != (self.imagination, self.slots):
            raise ConfigError(
                f"the state has {slots} slots and imagines in the way {snapshot.imagination}, expected {self.slots} "
                f"and {self.imagination}: make the environments alike"
            )
        if len(snapshot) != number:
            raise ConfigError(
                f"the state holds {len(snapshot)} dreams, expected {number}: choose some by `pick`"
            )

    @torch.inference_mode()
    def frames(self, rows: Int64[Tensor, " m"] | None = None, soft: bool = False) -> UInt8[Tensor, "m h w c"]:
        """Draws the frames.

        Args:
            rows: Whose; None for all.
            soft: Whether a pixel shows the sum of the slots' means instead of black or white.
        """
        chosen, n = self._all_or(rows)
        draw = em.expected_frame if soft else em.own_frame
        if self._prediction is not None:
            frames = draw(self._prediction[chosen])
        else:
            output = self.dreams.output[chosen]
            parts = chunks(len(output))
            frames = torch.cat([draw(torch.sigmoid(self.model.decode(output[part]))) for part in parts])
        return (frames[:n] * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    @torch.inference_mode()
    def outputs(self, rows: Int64[Tensor, " m"] | None = None) -> Float[Tensor, "m k d"]:
        """Gives the slots' output: what the decoder and the heads read of them."""
        chosen, n = self._all_or(rows)
        return self.dreams.output[chosen][:n]

    @torch.inference_mode()
    def pictures(self, rows: Int64[Tensor, " m"] | None = None) -> Picture:
        """Draws the slots, the frame, and who is responsible for which pixel."""
        chosen, n = self._all_or(rows)
        if rows is None:
            self._draw()
        if self._prediction is None:
            output = self.dreams.output[chosen]
            drawn = [torch.sigmoid(self.model.decode(output[part])) for part in chunks(len(output))]
            prediction = torch.cat(drawn)[:n]
        else:
            prediction = self._prediction[chosen][:n]
        return picture_of(prediction)

    @torch.inference_mode()
    def details(
        self, names: Sequence[str], rows: Int64[Tensor, " m"] | None = None
    ) -> dict[str, Float[Tensor, "m ..."]]:
        """Gives what ``info`` may hold on request.

        Args:
            names: Some of `DETAILS`.
            rows: Whose; None for all.
        """
        found: dict[str, Tensor] = {}
        chosen, n = self._all_or(rows)
        if {"gamma", "prediction", "centroids", "masses"} & set(names):
            picture = self.pictures(rows)
            found["gamma"] = picture.gamma[:, :, 0]
            found["prediction"] = picture.prediction
            weights = picture.gamma[:, :, 0] * picture.prediction.amax(dim=2)
            centres = slot_centroids(weights[:, None])
            found["centroids"], found["masses"] = centres.positions[:, 0], centres.masses[:, 0]
        if "attention" in names and self._attention is not None:
            found["attention"] = attention_matrix(self._attention[chosen][:n])
        found["slot_rewards"] = self._rewards()[chosen][:n]
        if set(DOUBTS) & set(names):
            _, now = self._doubts()
            found |= dict(zip(SIGNS, now[chosen][:n].unbind(dim=1), strict=True))
            if self.calibration is not None:
                found["uncertainty"] = self.calibration.expected_error(*self.doubt(rows).unbind(dim=1))
        return {name: found[name] for name in names if name in found}

    def _rewards(self) -> Tensor:
        if self._slot_rewards is None:
            raise ResetNeeded("reset the environment before anything else")
        return self._slot_rewards

    def _all_or(self, rows: Tensor | None) -> tuple[Tensor | slice, int]:
        """Pads rows to whole blocks, and says how many of them are asked for."""
        if rows is None:
            return slice(None), self.number_of_dreams
        extra = self.world.padded(len(rows), self.slots) - len(rows)
        return torch.cat([rows, rows[:1].expand(extra)]), len(rows)

    def _allocate(self, like: DreamState) -> None:
        self._dreams = like.map(lambda tensor: tensor.new_zeros(self._rows, *tensor.shape[1:]))
        self._slot_rewards = like.theta.new_zeros(self._rows, self.slots)
        if self.measures_doubt:
            self._memory = like.theta.new_ones(self._rows, 2 + self.slots)
        if self.world.config.model.core == "relational":
            self._attention = like.theta.new_zeros(self._rows, self.slots, self.slots - 1)

    def _replace(
        self,
        rows: Tensor,
        dreams: DreamState,
        attention: Tensor | None,
        slot_rewards: Tensor,
        memory: Tensor | None,
    ) -> None:
        old = self.dreams
        frame = None
        if old.frame is not None and dreams.frame is not None:
            frame = old.frame.index_copy(0, rows, dreams.frame)
        self._dreams = DreamState(
            old.theta.index_copy(0, rows, dreams.theta),
            old.output.index_copy(0, rows, dreams.output),
            old.code.index_copy(0, rows, dreams.code),
            frame,
        )
        self._slot_rewards = self._rewards().index_copy(0, rows, slot_rewards)
        if self._attention is not None and attention is not None:
            self._attention = self._attention.index_copy(0, rows, attention)
        if self._prediction is not None:
            known, self._prediction = self._prediction, None
            self._prediction = known.index_copy(0, rows, self.pictures(rows).prediction)
        if self._memory is not None:
            if memory is None:
                masses = _masses(self.pictures(rows))
                memory = torch.cat([masses.new_zeros(len(rows), 2), masses], dim=1)
            self._memory = self._memory.index_copy(0, rows, memory)
            self._signs = None

    def _draw(self) -> None:
        """Draws all dreams, unless they are drawn already."""
        if self._prediction is None:
            output = self.dreams.output
            drawn = [torch.sigmoid(self.model.decode(output[part])) for part in chunks(self._rows)]
            self._prediction = torch.cat(drawn)

    def _remember(self, memory: Tensor) -> None:
        self._draw()
        everyone = torch.arange(self._rows, device=self.world.device)
        found = self._signs_of(everyone, memory)
        added = torch.cat([memory[:, :2] + found[:, :2], memory[:, 2:]], dim=1)
        self._memory, self._signs = added, found

    def _signs_of(self, rows: Tensor, memory: Tensor) -> Tensor:
        parts = []
        for part in chunks(len(rows)):
            picture = self.pictures(rows[part])
            parts.append(signs(picture, _masses(picture), memory[rows[part], 2:]))
        return torch.cat(parts)

    @torch.inference_mode()
    def doubt(self, rows: Int64[Tensor, " m"] | None = None) -> Float[Tensor, "m 3"]:
        """Gives the signs of doubt as `Calibration` wants them: the first two added up since the dream began.

        Raises:
            ConfigError: If nobody keeps account of them.
        """
        memory, signs_now = self._doubts()
        chosen, n = self._all_or(rows)
        return torch.cat([memory[chosen][:n, :2], signs_now[chosen][:n, 2:]], dim=1)

    def _doubts(self) -> tuple[Tensor, Tensor]:
        if self._memory is None:
            raise ConfigError("doubt isn't measured here: ask for it when the environment is made")
        if self._signs is None:
            everyone = torch.arange(self._rows, device=self.world.device)
            self._signs = self._signs_of(everyone, self._memory)
        return self._memory, self._signs


def _masses(picture: Picture) -> Tensor:
    masses: Tensor = (picture.gamma[:, :, 0] * picture.prediction.amax(dim=2)).sum(dim=(2, 3))
    return masses


def _cat(parts: Sequence[Tensor | None]) -> Tensor | None:
    given = [part for part in parts if part is not None]
    if len(given) == 1:
        return given[0]
    return torch.cat(given) if given else None


def _terminations(steps: list[DreamStep]) -> Tensor:
    terminations = _cat([step.termination for step in steps])
    if terminations is None:
        raise ConfigError("this model has no heads, which environments need")
    return terminations

"""N dreams of a learned world, stepped at once: what the single and the vector environment share.

Everything here is torch on one device: nothing is copied to the host, and nothing loops over dreams.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import torch
from gymnasium.error import ResetNeeded
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from rnem_world.envs.details import DOUBTS, OF_PICTURES, details_of_picture
from rnem_world.envs.doubt import SIGNS, Calibration
from rnem_world.envs.doubt_memory import DoubtMemory
from rnem_world.envs.dream_batches import chunks, join_tensors, step_in_parts
from rnem_world.envs.learned_world import LearnedWorld
from rnem_world.envs.snapshots import DreamsSnapshot
from rnem_world.errors import ConfigError
from rnem_world.evaluation.pictures import attention_matrix
from rnem_world.models.imagination import DreamImagination, DreamState, Picture, check_imagination, picture_of


class Outcome(NamedTuple):
    """What a step earned.

    Attributes:
        rewards: Float (n,), the sum of the slots' shares.
        terminations: Bool (n,), whether the head gives the end more than even odds.
    """

    rewards: Tensor
    terminations: Tensor


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
        self.measures_doubt = measures_doubt
        self.calibration = calibration
        self._state: DreamsSnapshot | None = None
        # Each slot's means, where they are known already.
        self._prediction: Tensor | None = None
        # Beside the state, since it also keeps the signs that are known already.
        self._memory: DoubtMemory | None = None

    @property
    def state(self) -> DreamsSnapshot:
        """The dreams as they are, without what doubt remembers, some rows more than N.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if self._state is None:
            raise ResetNeeded("reset the environment before anything else")
        return self._state

    @torch.inference_mode()
    def step(self, actions: Int64[Tensor, " n"]) -> Outcome:
        """Imagines one transition of every dream.

        Args:
            actions: One each, in range.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        state, n = self.state, self.number_of_dreams
        told = None
        if self.world.config.model.number_of_actions:
            told = torch.cat([actions, actions[:1].expand(self._rows - n)])
        step = step_in_parts(self.model, state.dreams, told, self.imagination)
        if step.rewards is None or step.termination is None:
            raise ConfigError("this model has no heads, which environments need")
        self._state = replace(state, dreams=step.state, attention=step.attention, slot_rewards=step.rewards)
        self._prediction = step.prediction
        if self._memory is not None:
            self._draw()
            self._memory.add(self.pictures)
        return Outcome(step.rewards[:n].sum(dim=1), step.termination[:n] > 0.0)

    @torch.inference_mode()
    def put(self, rows: Int64[Tensor, " m"], dreams: DreamState) -> None:
        """Puts dreams that have just begun in the place of others.

        Args:
            rows: Which of the N.
            dreams: m of them, as `LearnedWorld.encode` makes them.
        """
        if self.imagination == "latent":
            dreams = DreamState(dreams.theta, dreams.output, dreams.code)
        self._replace(rows, self._begun(dreams))

    @torch.inference_mode()
    def get_state(self, rows: Int64[Tensor, " m"]) -> DreamsSnapshot:
        """Copies some of the dreams.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        memory = None if self._memory is None else self._memory.values
        return replace(self.state, memory=memory).pick(rows)

    @torch.inference_mode()
    def set_state(self, rows: Int64[Tensor, " m"], snapshot: DreamsSnapshot) -> None:
        """Puts copies of dreams in the place of others.

        Raises:
            ConfigError: If they are of another world, or another number of them.
        """
        self.check_snapshot(snapshot, len(rows))
        self._replace(rows, snapshot.to(self.world.device))

    def check_snapshot(self, snapshot: DreamsSnapshot, number: int) -> None:
        """Refuses copies that can't be put in the place of so many dreams.

        Raises:
            ConfigError: If they are of another world, or another number of them.
        """
        snapshot.check(self.world.fingerprint, self.imagination, self.slots, number)

    @torch.inference_mode()
    def frames(self, rows: Int64[Tensor, " m"] | None = None, soft: bool = False) -> UInt8[Tensor, "m h w c"]:
        """Draws the frames.

        Args:
            rows: Whose; None for all.
            soft: Whether a pixel shows the sum of the slots' means instead of black or white.
        """
        chosen, n = self._all_or(rows)
        likelihood = self.model.likelihood
        draw = likelihood.soft_frame if soft else likelihood.own_frame
        frames = torch.cat([draw(prediction) for prediction in self._predictions(chosen)])
        return likelihood.to_uint8(frames[:n]).permute(0, 2, 3, 1).contiguous()

    @torch.inference_mode()
    def outputs(self, rows: Int64[Tensor, " m"] | None = None) -> Float[Tensor, "m k d"]:
        """Gives the slots' output: what the decoder and the heads read of them."""
        chosen, n = self._all_or(rows)
        return self.state.dreams.output[chosen][:n]

    @torch.inference_mode()
    def pictures(self, rows: Int64[Tensor, " m"] | None = None) -> Picture:
        """Draws the slots, the frame, and who is responsible for which pixel."""
        chosen, n = self._all_or(rows)
        if rows is None:
            self._draw()
        return picture_of(self.model, join_tensors(list(self._predictions(chosen)))[:n])

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
        if set(OF_PICTURES) & set(names):
            found |= details_of_picture(self.pictures(rows))
        if "attention" in names and self.state.attention is not None:
            found["attention"] = attention_matrix(self.state.attention[chosen][:n])
        found["slot_rewards"] = self.state.slot_rewards[chosen][:n]
        if set(DOUBTS) & set(names):
            now = self._doubts().signs(self.pictures)
            found |= dict(zip(SIGNS, now[chosen][:n].unbind(dim=1), strict=True))
            if self.calibration is not None:
                found["uncertainty"] = self.calibration.expected_error(*self.doubt(rows).unbind(dim=1))
        return {name: found[name] for name in names if name in found}

    def _all_or(self, rows: Tensor | None) -> tuple[Tensor | slice, int]:
        """Pads rows to whole blocks, and says how many of them are asked for."""
        if rows is None:
            return slice(None), self.number_of_dreams
        extra = self.world.padded(len(rows), self.slots) - len(rows)
        return torch.cat([rows, rows[:1].expand(extra)]), len(rows)

    def _begun(self, dreams: DreamState) -> DreamsSnapshot:
        """Tells of dreams that have just begun what a copy of them tells."""
        number, slots, _ = dreams.theta.shape
        attention = None
        if self.world.config.model.core == "relational":
            attention = dreams.theta.new_zeros(number, slots, slots - 1)
        rewards = dreams.theta.new_zeros(number, slots)
        return DreamsSnapshot(self.world.fingerprint, self.imagination, dreams, attention, rewards)

    def _replace(self, rows: Tensor, others: DreamsSnapshot) -> None:
        if self._state is None:
            zeros = others.dreams.map(lambda tensor: tensor.new_zeros(self._rows, *tensor.shape[1:]))
            self._state = self._begun(zeros)
            if self.measures_doubt:
                self._memory = DoubtMemory(zeros.theta.new_ones(self._rows, 2 + self.slots))
        self._state = self._state.with_others(rows, others)
        if self._prediction is not None:
            known, self._prediction = self._prediction, None
            self._prediction = known.index_copy(0, rows, self.pictures(rows).prediction)
        if self._memory is not None:
            self._memory.put(rows, others.memory, self.pictures)

    def _predictions(self, chosen: Tensor | slice) -> Iterator[Tensor]:
        """Gives the slots' means: all at once if they are known already, else drawn part by part."""
        if self._prediction is not None:
            yield self._prediction[chosen]
        else:
            output = self.state.dreams.output[chosen]
            for part in chunks(len(output)):
                yield torch.sigmoid(self.model.decode(output[part]))

    def _draw(self) -> None:
        """Draws all dreams, unless they are drawn already."""
        if self._prediction is None:
            self._prediction = join_tensors(list(self._predictions(slice(None))))

    @torch.inference_mode()
    def doubt(self, rows: Int64[Tensor, " m"] | None = None) -> Float[Tensor, "m 3"]:
        """Gives the signs of doubt as `Calibration` wants them: the first two added up since the dream began.

        Raises:
            ConfigError: If nobody keeps account of them.
        """
        added_up = self._doubts().signs_added_up(self.pictures)
        chosen, n = self._all_or(rows)
        return added_up[chosen][:n]

    def _doubts(self) -> DoubtMemory:
        if self._memory is None:
            raise ConfigError("doubt isn't measured here: ask for it when the environment is made")
        return self._memory

"""N dreams of a learned world, stepped at once: what environments, planners and measurements share.

Everything here is torch on one device: nothing is copied to the host, and nothing loops over dreams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
from gymnasium.error import ResetNeeded
from jaxtyping import Float, Int64, Num, UInt8
from torch import Tensor

from rnem_world.envs.engine import Engine
from rnem_world.envs.uncertainty import SIGNS, Calibration, ErrorCurve, signs, slot_masses
from rnem_world.envs.world import World, joined
from rnem_world.errors import ConfigError
from rnem_world.evaluation.metrics import slot_centroids
from rnem_world.evaluation.pictures import attention_matrix
from rnem_world.models.layers import own_precision
from rnem_world.models.world_model import DreamImagination, DreamState, DreamStep, Picture, WorldModel

OF_PICTURES = ("gamma", "prediction", "centroids", "masses")
OF_UNCERTAINTY = (*SIGNS, "uncertainty")
DETAILS = (*OF_PICTURES, "attention", "slot_rewards", *OF_UNCERTAINTY)
"""What `DreamBatch.details` gives on request."""


class DreamOutcome(NamedTuple):
    """What a step earned.

    Attributes:
        rewards: Float (n,), the sum of the slots' shares.
        terminations: Bool (n,), whether the head gives the end more than even odds.
    """

    rewards: Tensor
    terminations: Tensor


@dataclass(frozen=True)
class DreamsSnapshot:
    """Some dreams, or a copy of them: all that their future depends on, beside the actions.

    Attributes:
        world: Fingerprint of the weights.
        imagination: How they are dreamt.
        dreams: The slots.
        attention: Float (m, k, k - 1), of the last step, zeros after a reset; None for models without.
        slot_rewards: Float (m, k), of the last step, zeros after a reset.
        memory: Float (m, 2 + k), what uncertainty remembers: two signs added up since the dream began, and the slots'
            masses at that time; None where nobody asks.
    """

    world: str
    imagination: DreamImagination
    dreams: DreamState
    attention: Tensor | None
    slot_rewards: Tensor
    memory: Tensor | None = None

    def __len__(self) -> int:
        return len(self.slot_rewards)

    def map(self, function: Callable[[Tensor], Tensor]) -> DreamsSnapshot:
        """Applies a function to every tensor, as `DreamState.map` does."""
        return replace(
            self,
            dreams=self.dreams.map(function),
            attention=None if self.attention is None else function(self.attention),
            slot_rewards=function(self.slot_rewards),
            memory=None if self.memory is None else function(self.memory),
        )

    def pick(self, rows: Int64[Tensor, " m"]) -> DreamsSnapshot:
        """Copies some of the dreams, in the given order."""
        return self.map(lambda tensor: tensor[rows])

    def with_others(self, rows: Int64[Tensor, " m"], others: DreamsSnapshot) -> DreamsSnapshot:
        """Copies the dreams, with others in the place of some."""
        dreams, new = self.dreams, others.dreams
        return replace(
            self,
            dreams=DreamState(
                dreams.theta.index_copy(0, rows, new.theta),
                dreams.output.index_copy(0, rows, new.output),
                dreams.code.index_copy(0, rows, new.code),
                _replaced(dreams.frame, rows, new.frame),
            ),
            attention=_replaced(self.attention, rows, others.attention),
            slot_rewards=self.slot_rewards.index_copy(0, rows, others.slot_rewards),
            memory=_replaced(self.memory, rows, others.memory),
        )


def _replaced(tensor: Tensor | None, rows: Tensor, others: Tensor | None) -> Tensor | None:
    return None if tensor is None or others is None else tensor.index_copy(0, rows, others)


def step_dreams(
    world: World,
    dreams: DreamState,
    actions: Num[Tensor, "n ..."],
    imagination: DreamImagination,
    engine: Engine,
) -> DreamStep:
    """Imagines one transition of every dream (`WorldModel.dream_step`), as many at once as is fastest on the device.

    Args:
        world: The world.
        dreams: The dreams.
        actions: One action each, as `World.encoded` gives them.
        imagination: ``latent`` or ``pixels``.
        engine: What computes it, of this world.
    """
    taken = actions if world.takes_actions else None
    number, most = len(dreams.theta), world.chunk if imagination == "latent" else world.pictures
    if number <= most:
        return engine.dream_step(dreams, taken, imagination)
    steps = []
    for begin in range(0, number, most):
        rows = slice(begin, begin + most)
        some = dreams.map(lambda tensor, rows=rows: tensor[rows])  # type: ignore[misc]
        steps.append(engine.dream_step(some, None if taken is None else taken[rows], imagination))

    def together(name: str) -> Tensor | None:
        parts = [getattr(step, name) for step in steps]
        return None if parts[0] is None else torch.cat(parts)

    return DreamStep(
        joined([step.state for step in steps]),
        *(together(name) for name in ("rewards", "termination", "attention", "prediction")),
    )


class DreamBatch:
    """N dreams of one world, stepped at once.

    Tensors are never changed in place, so that copies of a state cost nothing.

    Args:
        world: The world.
        number: N.
        num_slots: Slots of a dream; None takes the model's own.
        imagination: ``latent``, ``pixels``, or None: latent if the model can.
        measures_uncertainty: Whether to keep account of signs of uncertainty, for which every step is drawn.
        calibration: Tells the error that the signs stand for.
        engine: What computes steps, see `rnem_world.envs.engine.make_engine`.

    Raises:
        ConfigError: If the model can't dream so.
    """

    def __init__(
        self,
        world: World,
        number: int,
        num_slots: int | None = None,
        imagination: str | None = None,
        measures_uncertainty: bool = False,
        calibration: Calibration | None = None,
        engine: str = "auto",
    ) -> None:
        imagination = world.ways[0] if imagination is None else imagination
        world.model.check_imagination(imagination)
        self.world = world
        self.number = number
        self.slots = world.check_slots(num_slots)
        self.imagination = cast(DreamImagination, imagination)
        world.engine(engine)  # refused here, and not at the first step
        self._engine_name = engine
        self.measures_uncertainty = measures_uncertainty
        self._curve: ErrorCurve | None = None
        if calibration is not None:
            self._curve = calibration.curve(world.device)
        self._state: DreamsSnapshot | None = None
        # Each slot's means, and the signs of uncertainty, where they are known already.
        self._prediction: Tensor | None = None
        self._signs: Tensor | None = None

    @property
    def engine(self) -> Engine:
        """What computes steps; the world keeps it, so that copies of dreams share it."""
        return self.world.engine(self._engine_name)

    @property
    def state(self) -> DreamsSnapshot:
        """The dreams as they are.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if self._state is None:
            raise ResetNeeded("reset the environment before anything else")
        return self._state

    @torch.inference_mode()
    @own_precision
    def step(self, actions: Num[Tensor, "n ..."]) -> DreamOutcome:
        """Imagines one transition of every dream.

        Args:
            actions: One each, in range, as `World.encoded` gives them.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        state = self.state
        step = step_dreams(self.world, state.dreams, actions, self.imagination, self.engine)
        if step.rewards is None or step.termination is None:
            raise ConfigError("this model has no heads, which environments need")
        self._state = DreamsSnapshot(
            state.world, state.imagination, step.state, step.attention, step.rewards, state.memory
        )
        self._prediction, self._signs = step.prediction, None
        if state.memory is not None:
            found = self._signs_now()
            memory = torch.cat([state.memory[:, :2] + found[:, :2], state.memory[:, 2:]], dim=1)
            self._state = replace(self._state, memory=memory)
        return DreamOutcome(step.rewards.sum(dim=1), step.termination > 0.0)

    @torch.inference_mode()
    @own_precision
    def begin(self, rows: Int64[Tensor, " m"], dreams: DreamState) -> None:
        """Puts dreams that have just begun in the place of others.

        Args:
            rows: Which of the N.
            dreams: m of them, as `World.encode` makes them.
        """
        self._put(rows, self.begun(dreams))

    @torch.inference_mode()
    @own_precision
    def begun(self, dreams: DreamState) -> DreamsSnapshot:
        """Tells of dreams that have just begun what a copy of them tells."""
        if self.imagination == "latent":
            dreams = DreamState(dreams.theta, dreams.output, dreams.code)
        number, slots, _ = dreams.theta.shape
        attention = None
        if self.world.config.model.core == "relational":
            attention = dreams.theta.new_zeros(number, slots, slots - 1)
        memory = None
        if self.measures_uncertainty:
            masses = torch.cat(
                [slot_masses(self.world.model, picture) for picture in self._drawn(dreams.output)]
            )
            memory = torch.cat([masses.new_zeros(number, 2), masses], dim=1)
        rewards = dreams.theta.new_zeros(number, slots)
        return DreamsSnapshot(self.world.fingerprint, self.imagination, dreams, attention, rewards, memory)

    @torch.inference_mode()
    @own_precision
    def get_state(self, rows: Int64[Tensor, " m"]) -> DreamsSnapshot:
        """Copies some of the dreams.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        return self.state.pick(rows)

    @torch.inference_mode()
    @own_precision
    def set_state(self, rows: Int64[Tensor, " m"], snapshot: DreamsSnapshot) -> None:
        """Puts copies of dreams in the place of others.

        Raises:
            ConfigError: If they are of another world, or another number of them.
        """
        self.check_snapshot(snapshot, len(rows))
        here = snapshot.map(lambda tensor: tensor.to(self.world.device))
        if not self.measures_uncertainty:
            here = replace(here, memory=None)
        elif here.memory is None:
            here = replace(here, memory=self.begun(here.dreams).memory)
        self._put(rows, here)

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
    @own_precision
    def frames(self, rows: Int64[Tensor, " m"] | None = None, soft: bool = False) -> UInt8[Tensor, "m h w c"]:
        """Draws the frames.

        Args:
            rows: Whose; None for all.
            soft: Whether a pixel shows the sum of the slots' means instead of black or white.
        """
        likelihood = self.world.model.likelihood
        show = likelihood.soft_frame if soft else likelihood.own_frame
        frames = [likelihood.to_uint8(show(prediction)) for prediction in self._predictions(rows)]
        return _cat(frames).permute(0, 2, 3, 1).contiguous()

    @torch.inference_mode()
    @own_precision
    def outputs(self, rows: Int64[Tensor, " m"] | None = None) -> Float[Tensor, "m k d"]:
        """Gives the slots' output: what the decoder and the heads read of them."""
        output = self.state.dreams.output
        return output if rows is None else output[rows]

    @torch.inference_mode()
    @own_precision
    def pictures(self, rows: Int64[Tensor, " m"] | None = None) -> Picture:
        """Draws the slots, the frame, and who is responsible for which pixel."""
        prediction = _cat(list(self._predictions(rows)))
        if rows is None:
            self._prediction = prediction
        return self.world.model.picture(prediction)

    @torch.inference_mode()
    @own_precision
    def details(
        self, names: Sequence[str], rows: Int64[Tensor, " m"] | None = None
    ) -> dict[str, Float[Tensor, "m ..."]]:
        """Gives what ``info`` may hold on request.

        Args:
            names: Some of `DETAILS`; those that the model has not are left out.
            rows: Whose; None for all.

        Raises:
            ConfigError: If uncertainty is asked for, and nobody keeps account of it.
        """
        found: dict[str, Tensor] = {}
        chosen = slice(None) if rows is None else rows
        if set(OF_PICTURES) & set(names):
            found |= details_of_picture(self.world.model, self.pictures(rows))
        if "attention" in names and self.state.attention is not None:
            found["attention"] = attention_matrix(self.state.attention[chosen])
        found["slot_rewards"] = self.state.slot_rewards[chosen]
        if set(OF_UNCERTAINTY) & set(names):
            added_up = self.uncertainty_signs(rows)
            found |= dict(zip(SIGNS, self._signs_now()[chosen].unbind(dim=1), strict=True))
            if self._curve is not None:
                found["uncertainty"] = self._curve(added_up)
        return {name: found[name] for name in names if name in found}

    @torch.inference_mode()
    @own_precision
    def uncertainty_signs(self, rows: Int64[Tensor, " m"] | None = None) -> Float[Tensor, "m 3"]:
        """Gives the signs of uncertainty as a calibration wants them: the first two added up since the dream began.

        Raises:
            ConfigError: If nobody keeps account of them.
        """
        if self.state.memory is None:
            raise ConfigError("uncertainty isn't measured here: ask for it when the environment is made")
        added_up = torch.cat([self.state.memory[:, :2], self._signs_now()[:, 2:]], dim=1)
        return added_up if rows is None else added_up[rows]

    def _put(self, rows: Tensor, others: DreamsSnapshot) -> None:
        if self._state is None:
            self._state = others.map(lambda tensor: tensor.new_zeros(self.number, *tensor.shape[1:]))
        self._state = self._state.with_others(rows, others)
        if self._prediction is not None:
            drawn = [picture.prediction for picture in self._drawn(others.dreams.output)]
            self._prediction = self._prediction.index_copy(0, rows, _cat(drawn))
        self._signs = None

    def _predictions(self, rows: Tensor | None) -> Iterator[Tensor]:
        """Gives the slots' means: all at once if they are known already, else drawn part by part."""
        if self._prediction is not None:
            yield self._prediction if rows is None else self._prediction[rows]
            return
        output = self.outputs(rows)
        for begin in range(0, len(output), self.world.pictures):
            yield self.engine.predict(output[begin : begin + self.world.pictures])

    def _drawn(self, output: Tensor) -> Iterator[Picture]:
        """Draws dreams part by part."""
        for begin in range(0, len(output), self.world.pictures):
            yield self.world.model.picture(self.engine.predict(output[begin : begin + self.world.pictures]))

    def _signs_now(self) -> Tensor:
        """Gives the signs, (n, 3), of the frames that the dreams show now."""
        if self._signs is None:
            memory, found, begin = self.state.memory, [], 0
            if memory is None:
                raise ConfigError("uncertainty isn't measured here: ask for it when the environment is made")
            if self._prediction is None:
                self._prediction = _cat(list(self._predictions(None)))
            for part in self._prediction.split(self.world.pictures):
                picture = self.world.model.picture(part)
                first_masses = memory[begin : begin + len(part), 2:]
                found.append(signs(self.world.model, picture, first_masses))
                begin += len(part)
            self._signs = _cat(found)
        return self._signs


def _cat(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def details_of_picture(model: WorldModel, picture: Picture) -> dict[str, Float[Tensor, "b k ..."]]:
    """Measures what a picture tells of the slots.

    Returns:
        ``gamma`` (b, k, h, w); ``prediction`` (b, k, c, h, w); ``centroids`` (b, k, 2) in pixels, x first; ``masses``
        (b, k) in pixels.
    """
    shares = model.likelihood.object_weights(picture.prediction, picture.gamma)
    centres = slot_centroids(shares[:, None])
    return {
        "gamma": picture.gamma[:, :, 0],
        "prediction": model.likelihood.means(picture.prediction),
        "centroids": centres.positions[:, 0],
        "masses": centres.masses[:, 0],
    }

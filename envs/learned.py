"""``RNEM-Balls-v0``, ``RNEM-Atari-v0`` and their like: learned worlds as environments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from torch import Tensor

from rnem_world.device import to_host
from rnem_world.envs.dream import DETAILS, OF_UNCERTAINTY, DreamBatch, DreamsSnapshot
from rnem_world.envs.editing import Edit, apply_edits, check_edits
from rnem_world.envs.episodes import Array, Infos, Transition, check_count
from rnem_world.envs.real import ATARI_GAME, chosen_world
from rnem_world.envs.start_source import START_OPTIONS, StartSource
from rnem_world.envs.starts import Starts
from rnem_world.envs.uncertainty import read_calibration
from rnem_world.envs.vector import ONLY, BatchedVectorEnv, SingleEnv
from rnem_world.envs.world import World
from rnem_world.errors import ConfigError, suggest
from rnem_world.evaluation.pictures import brightness, colour_grouping, coloured

ObservationType = Literal["frame", "slots"]
INFOS = (*DETAILS, "disagreement")
"""What infos may hold on request."""

RENDERED_SIZE = 256
"""Least side of each of the two halves of a rendered picture."""


@dataclass(frozen=True)
class DreamOptions:
    """How an environment dreams, and what it shows of it.

    Attributes:
        checkpoint: The name of a shipped world, a run or checkpoint folder, or ``hf://owner/name``, a repository of the
            Hugging Face Hub; None takes the shipped world of the game, or the balls.
        num_slots: Slots; None takes the number that the model was trained with.
        obs_type: ``"frame"`` or ``"slots"``.
        imagination: ``"latent"`` imagines without drawing, ``"pixels"`` by watching its own frames; None is latent if
            the model has learned it.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"``.
        starts: Where dreams begin: a dataset, a file of starts (`rnem-world export --starts` makes them), `Starts`,
            or ``"real"`` or ``"real:PRESET"`` to simulate new ones; None takes the checkpoint's own. Worlds of Atari
            games begin in the real game: ``"real"`` (None too, if the checkpoint has no starts) or ``"real:GAME"``
            take 512 starts of a random policy, which are played once and kept in the user's cache folder; so do worlds
            of any other environment, of which ``"real"`` plays 256.
        details: What ``info`` holds, any of ``gamma`` (K, H, W), ``prediction`` (K, C, H, W), ``attention`` (K, K),
            ``centroids`` (K, 2) in pixels, x first, ``masses`` (K,) in pixels, ``slot_rewards`` (K,). Attention and
            rewards are those of the last step, 0 after a reset; the others have to be drawn, which latent imagination
            otherwise spares. Of the dream's uncertainty: ``unexplained``, ``doubled`` and ``lost``, see
            `rnem_world.envs.uncertainty.signs`; ``uncertainty``, the position error to expect in pixels, for worlds
            that have been calibrated; ``disagreement``, the share of pixels in which the ensemble's frames differ.
        soft_frames: Whether frames show the sum of the slots' means, 0..255, instead of black and white.
        ensemble: Other checkpoints, or a single one, which dream alongside from the same starts; for ``disagreement``.
        truncate_on_uncertainty: Truncates an episode when the ``uncertainty`` exceeds so many pixels.
        game: The Atari game whose shipped world is taken if no checkpoint is given.
        engine: What computes steps: ``"torch"``, ``"onnx"`` (ONNX Runtime, on the processor), or ``"auto"``, the faster
            one where it can be had.

    Raises:
        ConfigError: If an option makes no sense.
    """

    checkpoint: str | Path | None = None
    num_slots: int | None = None
    obs_type: str = "frame"
    imagination: str | None = None
    device: str | torch.device = "cpu"
    starts: str | Path | Starts | None = None
    details: Sequence[str] = ()
    soft_frames: bool = False
    ensemble: Sequence[str | Path] | str | Path = ()
    truncate_on_uncertainty: float | int | None = None
    game: str | None = None
    engine: str = "auto"

    def __post_init__(self) -> None:
        if self.obs_type not in get_args(ObservationType):
            raise ConfigError(
                f"obs_type is {self.obs_type!r}: {suggest(str(self.obs_type), get_args(ObservationType))}"
            )
        details = (self.details,) if isinstance(self.details, str) else tuple(self.details)
        for name in details:
            if name not in INFOS:
                raise ConfigError(f"unknown detail {name!r}: {suggest(str(name), INFOS)}")
        limit = self.truncate_on_uncertainty
        if limit is not None:
            if not limit > 0.0:
                raise ConfigError(
                    f"truncate_on_uncertainty is {limit:g}, expected a number of pixels above 0"
                )
            details = tuple(dict.fromkeys((*details, "uncertainty")))
        ensemble = (self.ensemble,) if isinstance(self.ensemble, str | Path) else tuple(self.ensemble)
        if "disagreement" in details and not ensemble:
            raise ConfigError(
                "disagreement needs other worlds to disagree with: give ensemble=(CHECKPOINT, ...)"
            )
        object.__setattr__(self, "details", details)
        object.__setattr__(self, "ensemble", ensemble)


def _options(given: dict[str, Any]) -> DreamOptions:
    known = [field.name for field in fields(DreamOptions)]
    for name in given:
        if name not in known:
            raise ConfigError(f"unknown option {name!r} of a learned environment: {suggest(name, known)}")
    return DreamOptions(**given)


@dataclass(frozen=True)
class LearnedSnapshot:
    """A copy of some dreams, and of those of the ensemble's other worlds."""

    dreams: DreamsSnapshot
    members: tuple[DreamsSnapshot, ...]

    def __len__(self) -> int:
        return len(self.dreams)

    def pick(self, rows: Int64[np.ndarray, " m"]) -> LearnedSnapshot:
        """Copies some of the dreams, in the given order, repeated or not."""
        chosen = torch.from_numpy(rows).to(self.dreams.slot_rewards.device)
        return LearnedSnapshot(self.dreams.pick(chosen), tuple(each.pick(chosen) for each in self.members))


class LearnedVectorEnv(BatchedVectorEnv):
    """N times `LearnedEnv` in one; see there for observations, rewards and the options of a reset.

    Attributes:
        options: How it dreams.
        world: The world.
        dreams: The dreams, in torch on the world's device.
        members: The dreams of the ensemble's other worlds.
        starts: Where dreams begin.

    Args:
        num_envs: N.
        checkpoint: As all of ``options`` see `DreamOptions`.
        max_episode_steps: Steps after which an episode is truncated; None for never.
        autoreset_mode: When a finished episode is reset: with the next step, with the same, or not by itself.
        render_mode: ``"rgb_array"`` or None.
        **options: Those of `DreamOptions`.

    Raises:
        RnemWorldError: If an argument makes no sense, or there is no such checkpoint.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array"],
        "render_fps": 20,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }
    reset_options = (*START_OPTIONS, "edits")

    def __init__(
        self,
        num_envs: int = 1,
        checkpoint: str | Path | None = None,
        max_episode_steps: int | None = 100,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        check_count("num_envs", num_envs)
        self.options = chosen = _options({"checkpoint": checkpoint, **options})
        self.world = world = World.load(chosen_world(chosen.checkpoint, chosen.game), chosen.device)
        calibration = None
        imagination = world.ways[0] if chosen.imagination is None else chosen.imagination
        if "uncertainty" in chosen.details:
            calibration = read_calibration(world.folder, imagination)
        measures = bool(set(OF_UNCERTAINTY) & set(chosen.details))
        if (measures or "disagreement" in chosen.details) and not world.model.likelihood.is_binary:
            raise ConfigError(
                f"{world.name} dreams in greys or colours, and uncertainty and disagreement count black and "
                "white pixels: leave them out of the details"
            )
        self.dreams = DreamBatch(
            world, num_envs, chosen.num_slots, imagination, measures, calibration, chosen.engine
        )
        self.members = [
            DreamBatch(member, num_envs, chosen.num_slots, chosen.imagination, engine=chosen.engine)
            for member in _load_members(world, chosen)
        ]
        every = [(each.world, each.slots) for each in (self.dreams, *self.members)]
        self.starts = StartSource(every, num_envs, chosen.starts)
        frame = spaces.Box(0, 255, world.frame_shape, np.uint8)
        space = frame if chosen.obs_type == "frame" else world.slot_space(self.dreams.slots)
        super().__init__(num_envs, space, world.action_space, max_episode_steps, autoreset_mode, render_mode)

    def begin(
        self, rows: Int64[np.ndarray, " m"], seeds: Sequence[int | None], options: dict[str, Any]
    ) -> None:
        """Begins new dreams."""
        given = dict(options)
        edits = check_edits(given.pop("edits", None) or (), self.dreams.slots)
        if edits:
            self._refuse_edits()

        def draw(high: int) -> list[int]:
            return [int(self.episodes.generator(row).integers(high)) for row in rows.tolist()]

        begun = self.starts.begin(rows, draw, given)
        places = self._on_device(rows)
        first = self.dreams.begun(begun[0])
        if edits:
            first = apply_edits(self.dreams, first, edits)
        self.dreams.set_state(places, first)
        for member, dreams in zip(self.members, begun[1:], strict=True):
            member.begin(places, dreams)

    def advance(self, actions: Shaped[np.ndarray, "n ..."], waiting: Bool[np.ndarray, " n"]) -> Transition:
        """Imagines one transition of all N, and copies what it shows to the host with one transfer."""
        chosen = self.world.encoded(actions)
        outcome = self.dreams.step(chosen)
        for member in self.members:
            member.step(chosen)
        observations, (rewards, terminations), infos = self._shown(None, outcome)
        truncations = np.zeros(self.num_envs, dtype=np.bool_)
        if self.options.truncate_on_uncertainty is not None:
            truncations = infos["uncertainty"] > self.options.truncate_on_uncertainty
        return Transition(observations, rewards.astype(np.float64), terminations, truncations, infos)

    def observe(self, rows: Int64[np.ndarray, " m"] | None = None) -> tuple[Array, Infos]:
        """Shows the frames or slots, and the details that were asked for."""
        observations, _, infos = self._shown(None if rows is None else self._on_device(rows), ())
        return observations, infos

    def _shown(self, rows: Tensor | None, others: Sequence[Tensor]) -> tuple[Array, list[Array], Infos]:
        """Copies observations, other tensors and details to the host, with one transfer for all of them."""
        options = self.options
        details: dict[str, Tensor] = {}
        if options.details:
            details = self.dreams.details(options.details, rows)
        if "disagreement" in options.details:
            details["disagreement"] = disagreement(self.dreams, self.members, rows)
        if options.obs_type == "frame":
            shown: Tensor = self.dreams.frames(rows, options.soft_frames)
        else:
            shown = self.dreams.outputs(rows)
        arrays = to_host([shown, *others, *details.values()])
        infos = dict(zip(details, arrays[1 + len(others) :], strict=True))
        return arrays[0], arrays[1 : 1 + len(others)], infos

    def pictures(self) -> UInt8[np.ndarray, "n height width 3"]:
        """Draws the frames (left) and which slot has which pixel (right)."""
        picture = self.dreams.pictures()
        frame, gamma = to_host([picture.frame, picture.gamma[:, :, 0]])
        shown = frame.transpose(0, 2, 3, 1)
        both = np.concatenate([coloured(shown), colour_grouping(gamma, brightness(shown))], axis=2)
        factor = -(-RENDERED_SIZE // self.world.frame_shape[0])
        pictures = (both * 255.0).round().astype(np.uint8)
        return pictures.repeat(factor, axis=1).repeat(factor, axis=2)

    def copy_state(self, rows: Int64[np.ndarray, " m"]) -> LearnedSnapshot:
        """Copies some dreams."""
        places = self._on_device(rows)
        members = tuple(member.get_state(places) for member in self.members)
        return LearnedSnapshot(self.dreams.get_state(places), members)

    def put_state(self, rows: Int64[np.ndarray, " m"], state: Any) -> None:
        """Makes some dreams go on as the copied ones did.

        Raises:
            ConfigError: If the copy is of another world.
        """
        if not isinstance(state, LearnedSnapshot):
            raise ConfigError(
                f"the state is a {type(state).__name__}, expected what `get_state` of a learned environment returned"
            )
        if len(state.members) != len(self.members):
            raise ConfigError(
                f"the state is of an ensemble of {1 + len(state.members)} worlds, expected {1 + len(self.members)}: "
                "make them alike"
            )
        both = list(zip((self.dreams, *self.members), (state.dreams, *state.members), strict=True))
        for dreams, copied in both:
            dreams.check_snapshot(copied, len(rows))
        for dreams, copied in both:
            dreams.set_state(self._on_device(rows), copied)

    def edit(self, edits: Sequence[Edit] | Edit, rows: Sequence[int] | Array | None = None) -> None:
        """Edits objects, in the same way in each of some dreams.

        Args:
            edits: `rnem_world.envs.editing.Remove`, `Copy`, `Swap`, `Transplant`, one after the other.
            rows: In which sub-environments; None for all.

        Raises:
            ConfigError: If they make no sense; then nothing has changed.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        self._refuse_edits()
        checked = check_edits(edits, self.dreams.slots)
        chosen = self.get_state(rows).state.dreams
        places = self._on_device(np.arange(self.num_envs) if rows is None else np.asarray(rows))
        self.dreams.set_state(places, apply_edits(self.dreams, chosen, checked))

    def _refuse_edits(self) -> None:
        if self.members:
            raise ConfigError(
                "worlds of an ensemble have other slots, so edits mean nothing to them: leave one out"
            )

    def _on_device(self, numbers: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.int64)).to(self.world.device)


class LearnedEnv(SingleEnv):
    """A world that a model dreams. Nothing in it is random but where a dream begins.

    A reset picks a start, some real frames and actions; the model watches them, and from then on imagines every step.
    The reward is the sum of the slots' shares. An episode terminates where the model gives its end more than even odds;
    `gymnasium.make` truncates it.

    Observations are frames, (H, W, C) uint8 of 0 and 255, drawn on request; or the slots' output, (K, D) float32,
    what the model's decoder and heads read. The order of slots means nothing, but stays the same within an episode.

    All environments of a process share one copy of a checkpoint's weights and of its encoded starts. Starts are encoded
    when they are first drawn, and from then on only picked; ``env.batch.starts.prepare()`` encodes all at once.

    The options of a reset are ``start``, the number of a start; or ``frames``, (T, H, W, C) with T >= 2, uint8 0..255,
    bool, or floats in [0, 1], and ``actions``, the T - 1 actions between them: the dream goes on from the last frame;
    and ``edits``, see `edit`. For a vector environment each is one for all, or N of them.

    Args:
        checkpoint: As all of ``options`` see `DreamOptions`.
        render_mode: ``"rgb_array"``: the frame and beside it who has which pixel, (256, 512, 3); ``"human"``: the same
            in a window; or None.
        **options: Those of `DreamOptions`.

    Raises:
        RnemWorldError: If an argument makes no sense, or there is no such checkpoint.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array", "human"],
        "render_fps": 20,
    }
    batch: LearnedVectorEnv

    def __init__(
        self, checkpoint: str | Path | None = None, render_mode: str | None = None, **options: Any
    ) -> None:
        super().__init__(
            LearnedVectorEnv(1, checkpoint, None, AutoresetMode.DISABLED, **options), render_mode
        )

    def edit(self, edits: Sequence[Edit] | Edit) -> None:
        """Edits the dream's objects.

        Args:
            edits: `rnem_world.envs.editing.Remove`, `Copy`, `Swap`, `Transplant`, one after the other.

        Raises:
            ConfigError: If they make no sense; then nothing has changed.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        self.batch.edit(edits, ONLY)


def world_env(checkpoint: str | Path | None = None, **options: Any) -> LearnedEnv:
    """Makes ``RNEM-World-v0``: the world of any checkpoint.

    Raises:
        RnemWorldError: As `LearnedEnv`; also if no checkpoint is named.
    """
    return LearnedEnv(_named(checkpoint), **options)


def world_vector_env(checkpoint: str | Path | None = None, **options: Any) -> LearnedVectorEnv:
    """Makes N times ``RNEM-World-v0``, see `world_env`."""
    return LearnedVectorEnv(checkpoint=_named(checkpoint), **options)


def _named(checkpoint: str | Path | None) -> str | Path:
    if checkpoint is None:
        raise ConfigError(
            "RNEM-World-v0 is the world of a checkpoint, and none is named: give checkpoint=, a run's folder, a shipped"
            " name, or hf://owner/name"
        )
    return checkpoint


def atari_env(**options: Any) -> LearnedEnv:
    """Makes ``RNEM-Atari-v0``: the shipped world of a game, `ATARI_GAME` unless another or a checkpoint is named."""
    return LearnedEnv(**_of_game(options))


def atari_vector_env(**options: Any) -> LearnedVectorEnv:
    """Makes N times ``RNEM-Atari-v0``, see `atari_env`."""
    return LearnedVectorEnv(**_of_game(options))


def _of_game(options: dict[str, Any]) -> dict[str, Any]:
    named = options.get("checkpoint") is not None or options.get("game") is not None
    return options if named else {**options, "game": ATARI_GAME}


def _load_members(world: World, options: DreamOptions) -> list[World]:
    """Loads the ensemble's other worlds.

    Raises:
        ConfigError: If one has other frames or actions.
        CheckpointError: If there is no such checkpoint.
    """
    expected = (world.frame_shape, world.actions)
    ensemble = (
        () if isinstance(options.ensemble, str | Path) else options.ensemble
    )  # a tuple since it was checked
    members = [World.load(checkpoint, options.device) for checkpoint in ensemble]
    for member in members:
        if (member.frame_shape, member.actions) != expected:
            raise ConfigError(
                f"the ensemble's world {member.name} has frames {member.frame_shape} and the actions "
                f"{member.action_space}, expected {world.frame_shape} and {world.action_space}"
            )
    return members


def disagreement(
    dreams: DreamBatch, members: Sequence[DreamBatch], rows: Int64[Tensor, " m"] | None = None
) -> Float[Tensor, " m"]:
    """Measures in which share of a frame's white pixels other worlds' frames differ from it, on the average of them.

    Args:
        dreams: Whose frames they are.
        members: The others, at least one.
        rows: Of which dreams; None for all.
    """
    own = dreams.frames(rows).flatten(1) > 0
    white = own.sum(dim=1).clamp(min=1)
    others = torch.stack([member.frames(rows).flatten(1) > 0 for member in members])
    return ((others != own).sum(dim=2) / white).mean(dim=0)

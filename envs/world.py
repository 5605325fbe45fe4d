"""A trained world model that environments dream in: found, loaded once, and shown real frames."""

from __future__ import annotations

import functools
import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float, Float32, Num, Shaped
from numpy.typing import NDArray
from torch import Tensor

from rnem_world.actions import ActionSpace
from rnem_world.device import choose_device
from rnem_world.envs.engine import Engine, make_engine
from rnem_world.errors import CheckpointError, ConfigError
from rnem_world.models.config import validate_slots
from rnem_world.models.cores import LongShortTermMemoryCore, RelationalCore
from rnem_world.models.export import fingerprint as fingerprint_of
from rnem_world.models.layers import own_precision
from rnem_world.models.likelihood import Likelihood
from rnem_world.models.rollout import observe
from rnem_world.models.world_model import DreamState, SlotState, WorldModel
from rnem_world.seeding import torch_generator
from rnem_world.training.checkpoint import CHECKPOINTS, MODEL_FILE, find_checkpoint, load_model
from rnem_world.training.config import RunConfig

if TYPE_CHECKING:
    from rnem_world.envs.start_source import EncodedStarts
    from rnem_world.envs.starts import Starts

MOST_LOADED, MOST_POOLS = 4, 8
"""So many worlds stay loaded, and so many sets of encoded starts with each."""

CHUNKS, PICTURES = {"cpu": 256}, {"cpu": 64}
LARGEST_CHUNK = 16_384
"""Dreams that are stepped at once on a kind of device, and of which pictures are made there; and on any other. On a
processor more don't fit the caches (with pictures of 64 at once a step is 1.1 to 1.25 times as quick as with 256),
elsewhere only memory is a bound."""


class World:
    """A world model on a device. Nothing of it changes, so that environments and threads share it.

    Attributes:
        frame_shape: (h, w, c) of a frame.
        actions: What an action is, in the environment and as the model is given it.
        action_space: The environment's, in terms of Gymnasium; one action if the model takes none.
        number_of_actions: How many actions there are to choose from; 0 where an action isn't one whole number.

    Args:
        model: The model, on its device, in evaluation mode.
        config: What its checkpoint says of it.
        folder: The checkpoint.
        fingerprint: Tells the weights of one model from those of another.

    Raises:
        CheckpointError: If the model has no heads.
    """

    def __init__(self, model: WorldModel, config: RunConfig, folder: Path, fingerprint: str) -> None:
        if model.heads is None:
            raise CheckpointError(
                f"{folder} has no heads, and without them no rewards and no ends: train a world with "
                "`rnem-world train --world-model` on data with rewards"
            )
        self.model = model
        self.config = config
        self.folder = folder
        self.fingerprint = fingerprint
        self.device = next(model.parameters()).device
        self.frame_shape = (*config.model.frame_size, config.model.channels)
        self.takes_actions = config.model.takes_actions
        self.actions = config.actions
        self.action_space: spaces.Space[Any] = self.actions.space()
        self.number_of_actions = self.actions.sizes[0] if self.actions.is_discrete else 0
        self.chunk = CHUNKS.get(self.device.type, LARGEST_CHUNK)
        self._pools: OrderedDict[tuple[str, int], EncodedStarts] = OrderedDict()
        self._engines: dict[str, Engine] = {}
        self._empty: dict[int, SlotState] = {}
        self._lock = threading.Lock()

    @property
    def pictures(self) -> int:
        """Dreams of which pictures are made at once."""
        return min(self.chunk, PICTURES.get(self.device.type, self.chunk))

    @property
    def name(self) -> str:
        """What people call it: the folder of its run, or of the world by itself."""
        folder = self.folder
        return folder.parent.parent.name if folder.parent.name == CHECKPOINTS else folder.name

    @functools.cached_property
    def ways(self) -> tuple[str, ...]:
        """How it can imagine, the usual way first."""
        if self.model.prior_code is None:
            return ("pixels",)
        # A training that ended early may not have come to the prior code; who asks for latent dreams gets them.
        return ("latent", "pixels") if self.model.prior_code.has_learned else ("pixels", "latent")

    @classmethod
    def load(cls, checkpoint: str | Path = "balls", device: str | torch.device = "cpu") -> World:
        """Loads a world, or hands out the one that is loaded already; the last four stay loaded.

        Args:
            checkpoint: A shipped name, a run or checkpoint folder, or ``hf://owner/name``, a repository of the Hugging
                Face Hub.
            device: Where it is to be; ``auto`` takes CUDA where there is any.

        Raises:
            CheckpointError: If there is none, or it has no heads.
            ConfigError: If there is no such device.
            DependencyError: If it is a repository and huggingface_hub isn't installed.
        """
        place = choose_device(str(device))
        folder = find_checkpoint(checkpoint).resolve()
        status = (folder / MODEL_FILE).stat()
        with _loading:
            return _load(folder, status.st_mtime_ns, status.st_size, place)

    def __reduce__(self) -> tuple[Any, ...]:
        return World.load, (self.folder, str(self.device))

    def __deepcopy__(self, memo: dict[int, Any]) -> World:
        return self

    def engine(self, name: str = "auto") -> Engine:
        """Returns what computes steps, see `make_engine`; made once for all.

        Raises:
            RnemWorldError: If there is no such engine for this world.
        """
        found = self._engines.get(name)
        if found is None:
            with self._lock:
                found = self._engines.get(name)
                if found is None:
                    found = make_engine(name, self.model, self.folder, self.fingerprint)
                    self._engines[name] = found
        return found

    def slot_space(self, slots: int) -> spaces.Box:
        """Returns the space of the slots' output, (k, d) float32."""
        low, high = self.slot_bounds()
        return spaces.Box(np.tile(low, (slots, 1)), np.tile(high, (slots, 1)), dtype=np.float32)

    def slot_bounds(self) -> tuple[Float32[np.ndarray, " d"], Float32[np.ndarray, " d"]]:
        """Returns the least and the greatest values that a slot's output can have."""
        core = self.model.core
        if isinstance(core, RelationalCore) and core.gated:
            norm = core.output_norm
            scale, shift = norm.weight.detach().cpu().numpy(), norm.bias.detach().cpu().numpy()
            # A vector of d numbers with mean 0 and variance 1 has none above the root of d - 1.
            spread = np.abs(scale) * np.float32(math.sqrt(len(scale)))
            return shift - spread, shift + spread
        if isinstance(core, LongShortTermMemoryCore):
            high = np.ones(core.hidden_size, np.float32)
            return -high, high
        high = np.ones(core.state_size, np.float32)
        return np.zeros_like(high), high

    def check_slots(self, num_slots: int | None) -> int:
        """Returns the number of slots to dream with.

        Raises:
            ConfigError: If the model can't run with so few.
        """
        if num_slots is None:
            return self.config.model.slots
        validate_slots(self.config.model.core, num_slots)
        return num_slots

    def check_spaces(self, observations: spaces.Space[Any], actions: spaces.Space[Any]) -> None:
        """Refuses environments that the world wasn't learned from.

        Raises:
            ConfigError: If the frames or the actions are others.
        """
        if not isinstance(observations, spaces.Box) or observations.shape != self.frame_shape:
            raise ConfigError(
                f"the environment's observations are {observations}, expected frames {self.frame_shape} as the world "
                f"{self.name} has them"
            )
        if not _are(actions, self.actions):
            raise ConfigError(
                f"the environment's actions are {actions}, expected {self.action_space} as the world "
                f"{self.name} knows them"
            )

    def empty_slots(self, batch: int, slots: int) -> SlotState:
        """Makes the slots before the first frame."""
        state = self._empty.get(slots)
        if state is None:  # made once, so that no later reset copies to the device
            with torch.inference_mode(False), torch.no_grad():
                state = self.model.initial_state(1, slots, torch_generator(0, device=self.device))
                # Always the same, on any device, so that a start is always seen alike.
                generator = torch_generator(0, "first responsibilities")
                size = self.frame_shape[:2]
                gamma = self.model.likelihood.initial_gamma(1, slots, size, generator, "cpu")
                state = replace(state, gamma=gamma.to(state.theta))
            self._empty[slots] = state

        def repeat(tensor: Tensor) -> Tensor:
            return tensor.expand(batch, *tensor.shape[1:])

        frame = None if state.frame is None else repeat(state.frame)
        return SlotState(repeat(state.theta), repeat(state.prediction), repeat(state.gamma), frame)

    def actions_for_model(self, actions: Num[Tensor, "b ..."]) -> Num[Tensor, "b ..."] | None:
        """Gives the model the actions, or none if it was trained without."""
        return actions if self.takes_actions else None

    def encoded(self, actions: Shaped[np.ndarray, "n ..."]) -> Num[Tensor, "n ..."]:
        """Copies an environment's actions, (n, *shape), to the device as the model is given them: (n,) or (n, d)."""
        return torch.from_numpy(np.ascontiguousarray(self.actions.encode(actions))).to(self.device)

    def no_actions(self, *shape: int) -> Num[Tensor, "..."]:
        """Makes actions that are all 0, as they stand where nothing was done.

        Args:
            *shape: How many, along one axis or several.
        """
        dtype = torch.int64 if self.actions.kind != "box" else torch.float32
        return torch.zeros(*shape, *self.actions.stored_shape, dtype=dtype, device=self.device)

    def still_actions(self, number: int, step: int = 0) -> Num[Tensor, "n ..."]:
        """Makes actions under which a frame can be watched for some steps though nothing moves.

        Args:
            number: How many.
            step: Which of the steps, see `ActionSpace.still`.
        """
        actions, found = self.no_actions(number), self.config.still_actions
        if found is None:  # nothing is copied to the device
            return actions
        return actions + torch.from_numpy(self.actions.still(found, step)).to(self.device)

    def known_frames(self, frames: NDArray[Any], what: str = "frames") -> NDArray[Any]:
        """Turns real frames into such as the world knows: booleans for black and white, bytes for greys or colours.

        Args:
            frames: (..., h, w, c), uint8 0..255, bool, or floats in [0, 1].
            what: What they are, for messages.

        Raises:
            ConfigError: If they are something else, or hold NaN.
        """
        checked = check_frames(frames, what)
        if self.model.likelihood.is_binary:
            return (
                checked
                if checked.dtype == np.bool_
                else checked > (127 if checked.dtype == np.uint8 else 0.5)
            )
        if checked.dtype.kind == "f":
            return (checked * 255.0).round().astype(np.uint8)
        return checked if checked.dtype == np.uint8 else checked * np.uint8(255)

    def frames_for_model(self, frames: NDArray[Any]) -> Tensor:
        """Copies real frames to the device, bool or uint8 (..., h, w, c), see `known_frames`."""
        return torch.from_numpy(np.require(self.known_frames(frames), requirements=("C", "W"))).to(
            self.device
        )

    def inputs(self, frames: Tensor) -> Float[Tensor, "*n c h w"]:
        """Makes the model's inputs of frames that `frames_for_model` gave."""
        floats = frames.to(torch.float32) if frames.dtype == torch.bool else Likelihood.from_uint8(frames)
        return floats.movedim(-1, -3).contiguous()

    @torch.inference_mode()
    @own_precision
    def encode(
        self, frames: Float[Tensor, "b t c h w"], actions: Num[Tensor, "b s ..."], slots: int
    ) -> DreamState:
        """Watches real frames and starts to imagine after the last one.

        Args:
            frames: At least two, in [0, 1].
            actions: What was done between them, as `encoded` gives it.
            slots: Number of slots.
        """
        parts = []
        for begin in range(0, len(frames), self.chunk):
            some = frames[begin : begin + self.chunk]
            done = self.actions_for_model(actions[begin : begin + self.chunk])
            before = self.empty_slots(len(some), slots)
            # Only the last step is kept: all steps of many large frames would fill gigabytes.
            ((transition, state),) = deque(observe(self.model, before, some, some[:, 1:], done), maxlen=1)
            parts.append(self.model.start_imagination(state, transition.output, some[:, -1]))
        return joined(parts)

    def pool(self, starts: Starts, slots: int, make: Callable[[], EncodedStarts]) -> EncodedStarts:
        """Returns the encoded starts, the same for all environments that use them; the last eight sets are kept.

        Args:
            starts: The starts.
            slots: The slots that they are encoded with.
            make: Makes them where there are none.
        """
        key = (starts.digest, slots)
        with self._lock:
            found = self._pools.pop(key, None) or make()
            self._pools[key] = found
            while len(self._pools) > MOST_POOLS:
                self._pools.popitem(last=False)
        return found


_loading = threading.Lock()


@functools.lru_cache(maxsize=MOST_LOADED)
def _load(folder: Path, modified: int, size: int, device: torch.device) -> World:
    """Loads a world; a file that has changed since is another one."""
    model, config = load_model(folder, device)
    # Whatever torch.set_default_dtype says: environments promise single precision.
    model.to(torch.float32).requires_grad_(False)
    return World(model, config, folder, fingerprint_of(folder / MODEL_FILE))


def joined(parts: list[DreamState]) -> DreamState:
    """Puts dreams side by side."""
    if len(parts) == 1:
        return parts[0]
    frames = [part.frame for part in parts if part.frame is not None]
    return DreamState(
        torch.cat([part.theta for part in parts]),
        torch.cat([part.output for part in parts]),
        torch.cat([part.code for part in parts]),
        torch.cat(frames) if frames else None,
    )


def check_frames(frames: NDArray[Any], what: str = "frames") -> NDArray[Any]:
    """Refuses what is no frames, and returns what is.

    Args:
        frames: uint8 0..255, bool, or floats in [0, 1].
        what: What they are, for messages.

    Raises:
        ConfigError: If they are something else, or hold NaN.
    """
    kind = frames.dtype.kind
    if frames.dtype == np.uint8:
        if frames.size and frames.max() == 1:
            raise ConfigError(
                f"{what} are uint8 of 0 and 1, expected 0 to 255: multiply them by 255, or give booleans"
            )
    elif kind == "f":
        if not np.isfinite(frames).all():
            raise ConfigError(f"{what} hold NaN or infinity, expected numbers in [0, 1]")
        if frames.size and (frames.min() < 0.0 or frames.max() > 1.0):
            raise ConfigError(
                f"{what} lie between {frames.min():g} and {frames.max():g}, expected [0, 1], or uint8 0 to 255"
            )
    elif kind != "b":
        raise ConfigError(
            f"{what} have the dtype {frames.dtype}, expected uint8 0 to 255, bool, or floats in [0, 1]"
        )
    return frames


def _are(space: spaces.Space[Any], known: ActionSpace) -> bool:
    """Compares actions as they are described: bounds that are as good as infinite can be said in several ways."""
    try:
        return ActionSpace.of(space) == known
    except ConfigError:  # of a kind that no model knows
        return False

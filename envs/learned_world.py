"""A trained world model that environments dream in: loaded once, its starts encoded once."""

from __future__ import annotations

import functools
import hashlib
import math
import threading
from collections import deque
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from rnem_world.config import build
from rnem_world.data.dataset import Dataset
from rnem_world.device import choose_device
from rnem_world.envs.dream_batches import chunks, join
from rnem_world.envs.start_pool import Pool
from rnem_world.envs.starts import STARTS_FILE, Starts, read_starts, starts_from_dataset
from rnem_world.errors import CheckpointError, ConfigError, DataError, DependencyError, suggest
from rnem_world.models import em
from rnem_world.models.affine import choose_products_by_weights
from rnem_world.models.config import validate_slots
from rnem_world.models.cores import LongShortTermMemoryCore
from rnem_world.models.dreams import DreamState, fall_asleep
from rnem_world.models.relational import RelationalCore
from rnem_world.models.rollout import observe
from rnem_world.models.world_model import SlotState, WorldModel
from rnem_world.physics import PRESETS, BallsConfig, preset
from rnem_world.seeding import torch_generator
from rnem_world.training.checkpoint import load_model
from rnem_world.training.config import RunConfig
from rnem_world.training.run_folder import CONFIG_FILE, MODEL_FILE, find_checkpoint

FEWEST_ROWS, VECTOR = 4, 32
"""Matrix products want multiples of 4 rows, elementwise functions of 32 numbers: see `LearnedWorld.padded`."""

REAL = "real"
BALLS_ENVIRONMENT = "RNEM-BallsReal-v0"
ATARI_ENVIRONMENT = "RNEM-AtariReal-v0"


def first_gamma(slots: int, size: int, device: torch.device) -> Float[Tensor, "1 k 1 h w"]:
    """Draws the responsibilities before the first frame: always the same, so that a start is always seen alike."""
    generator = torch_generator(0, "first responsibilities")
    return em.initial_gamma(1, slots, size, size, generator, "cpu").to(device)


class LearnedWorld:
    """A world model on a device. Nothing of it changes, so that environments and threads share it.

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
        size = config.model.image.image_size
        self.frame_shape = (size, size, config.model.channels)
        self.number_of_actions = max(config.model.number_of_actions, 1)
        self._pools: dict[tuple[str, int], Pool] = {}
        self._lock = threading.Lock()

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

    def padded(self, number: int, slots: int) -> int:
        """Rounds a batch size up so that a dream goes the same way, bit for bit, in any batch and any place in it.

        The processor's libraries compute the rest of a batch that doesn't fill their vectors in another way, and dreams
        are chaotic: a difference in the last bit is visible after some dozens of collisions.
        """
        image = self.config.model.image
        widths = (self.model.core.state_size, image.encoding_size, 64)
        block = max(FEWEST_ROWS, *(VECTOR // math.gcd(VECTOR, slots * width) for width in widths))
        return -(-number // block) * block

    def check_slots(self, num_slots: int | None) -> int:
        """Returns the number of slots to dream with.

        Raises:
            ConfigError: If the model can't run with so few.
        """
        if num_slots is None:
            return self.config.model.slots
        validate_slots(self.config.model.core, num_slots)
        return num_slots

    def empty_slots(self, batch: int, slots: int) -> SlotState:
        """Makes the slots before the first frame."""
        state = self.model.initial_state(1, slots, torch_generator(0, device=self.device))
        gamma = first_gamma(slots, self.frame_shape[0], self.device) if slots > 1 else state.gamma
        state = SlotState(state.theta, state.prediction, gamma, state.frame)
        return _expanded(state, batch)

    @torch.inference_mode()
    def encode(
        self, frames: Float[Tensor, "b t c h w"], actions: Int64[Tensor, "b s"], slots: int
    ) -> DreamState:
        """Watches real frames and falls asleep after the last one.

        Args:
            frames: At least two, in [0, 1].
            actions: What was done between them.
            slots: Number of slots.
        """
        parts = [self._encode(frames[rows], actions[rows], slots) for rows in chunks(len(frames))]
        return join(parts)

    def _encode(self, frames: Tensor, actions: Tensor, slots: int) -> DreamState:
        number = len(frames)
        rows = torch.arange(self.padded(number, slots), device=self.device).clamp(max=number - 1)
        frames, actions = frames[rows], actions[rows]
        told = actions if self.config.model.number_of_actions else None
        before = self.empty_slots(len(rows), slots)
        # Only the last step is kept: all steps of many large frames would fill gigabytes.
        ((transition, state),) = deque(observe(self.model, before, frames, frames[:, 1:], told), maxlen=1)
        dream = fall_asleep(self.model, state, transition.output, frames[:, -1])
        return dream.map(lambda tensor: tensor[:number])

    def encode_starts(self, starts: Starts, slots: int, rows: NDArray[np.int64] | slice) -> DreamState:
        """Encodes some starts of this world."""
        frames = torch.from_numpy(starts.frames(rows)).to(self.device).permute(0, 1, 4, 2, 3)
        actions = torch.from_numpy(starts.actions[rows]).to(self.device)
        return self.encode(frames.to(torch.float32).contiguous(), actions, slots)

    def check_starts(self, starts: Starts) -> None:
        """Refuses starts of another world.

        Raises:
            ConfigError: If their frames or actions aren't those of this world.
        """
        most = int(starts.actions.max(initial=0))
        if starts.shape != self.frame_shape or most >= self.number_of_actions:
            raise ConfigError(
                f"the starts have frames {starts.shape} and actions up to {most}, the world {self.folder.name} has "
                f"frames {self.frame_shape} and actions up to {self.number_of_actions - 1}: give starts of this world"
            )

    def pool(self, starts: Starts, slots: int) -> Pool:
        """Returns the pool of these starts, one for all environments that use them.

        Raises:
            ConfigError: If they are of another world.
        """
        self.check_starts(starts)
        with self._lock:
            pool = Pool(len(starts), lambda rows: self.encode_starts(starts, slots, rows))
            return self._pools.setdefault((starts.digest, slots), pool)

    def default_starts(self) -> Starts:
        """Finds the starts that belong to the checkpoint: its own file, or the data that it was trained on.

        Raises:
            DataError: If there are none.
        """
        file = self.folder / STARTS_FILE
        if file.is_file():
            return read_starts(file)
        data = Path(self.config.data)
        if self.config.data and data.exists():
            return starts_from_dataset(data)
        raise DataError(
            f"{self.folder} has no starts ({STARTS_FILE}) and its data {self.config.data!r} isn't there: give "
            "starts=DATASET, a file of `rnem-world export RUN --starts DATASET`, or starts='real:PRESET'"
        )

    def real_rules(self, name: str | None = None) -> BallsConfig:
        """Finds the rules of the real balls that the world was learned from.

        Args:
            name: A preset's name, instead of what the checkpoint says.

        Raises:
            ConfigError: If the world wasn't learned from balls, or nobody knows which.
        """
        if self.config.environment != BALLS_ENVIRONMENT:
            raise ConfigError(
                f"{self.folder.name} was learned from {self.config.environment or 'unknown data'}, and only "
                f"{BALLS_ENVIRONMENT} can be simulated for starts: give a dataset"
            )
        if name is not None:
            return preset(name)
        if self.config.data in PRESETS:
            return preset(self.config.data)
        if self.config.data and Path(self.config.data).exists():
            with Dataset.open(self.config.data) as dataset:
                return build(BallsConfig, dataset.attributes.settings.get("rules", {}), "rules")
        raise ConfigError(
            f"{self.folder.name} doesn't say which balls it was learned from: give starts='real:PRESET', "
            f"{suggest(self.config.data, PRESETS)}"
        )


def _expanded(state: SlotState, batch: int) -> SlotState:
    def repeat(tensor: Tensor) -> Tensor:
        return tensor.expand(batch, *tensor.shape[1:])

    frame = None if state.frame is None else repeat(state.frame)
    return SlotState(repeat(state.theta), repeat(state.prediction), repeat(state.gamma), frame)


_loading = threading.Lock()


def load_world(checkpoint: str | Path, device: str | torch.device = "cpu") -> LearnedWorld:
    """Loads a world, or hands out the one that is loaded already; the last four stay loaded.

    Args:
        checkpoint: A shipped name, a run or checkpoint folder, or a repository of the Hugging Face Hub.
        device: Where it is to be; ``auto`` takes CUDA where there is any.

    Raises:
        CheckpointError: If there is none, or it has no heads.
        ConfigError: If there is no such device.
        DependencyError: If it is a repository and huggingface_hub isn't installed.
    """
    place = choose_device(str(device))
    folder = find_world(checkpoint).resolve()
    status = (folder / MODEL_FILE).stat()
    with _loading:
        return _load(folder, status.st_mtime_ns, status.st_size, place)


@functools.lru_cache(maxsize=4)
def _load(folder: Path, modified: int, size: int, device: torch.device) -> LearnedWorld:
    """Loads a world; a file that has changed since is another one."""
    model, config = load_model(folder, device)
    model.requires_grad_(False)
    choose_products_by_weights(model)
    fingerprint = hashlib.sha256((folder / MODEL_FILE).read_bytes()).hexdigest()[:16]
    return LearnedWorld(model, config, folder, fingerprint)


def find_world(checkpoint: str | Path) -> Path:
    """Finds a checkpoint's folder; a repository of the Hub is downloaded first.

    Raises:
        CheckpointError: If there is none.
        DependencyError: If it is a repository and huggingface_hub isn't installed.
    """
    try:
        return find_checkpoint(checkpoint)
    except CheckpointError as error:
        name = str(checkpoint)
        owner, slash, repository = name.partition("/")
        is_repository = bool(slash and owner and repository) and "/" not in repository
        if not is_repository or Path(name).exists() or owner in (".", "..", "~", "runs"):
            raise
        return _download(name, error)


def _download(repository: str, not_here: CheckpointError) -> Path:
    try:
        import huggingface_hub
    except ImportError as error:
        raise DependencyError(
            f"{not_here}; if {repository} is a repository of the Hugging Face Hub: `pip install huggingface_hub`"
        ) from error
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repository, allow_patterns=[CONFIG_FILE, MODEL_FILE, STARTS_FILE]
            )
        )
    except Exception as error:  # the Hub, the network and the cache raise errors of many kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{not_here}; nor can it be had from the Hugging Face Hub ({reason})"
        ) from error

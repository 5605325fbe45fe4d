"""Starts that a world has watched already, kept on the device for resets to gather from."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int64

from rnem_world.envs.dream_batches import chunks, tensors_of
from rnem_world.errors import ConfigError
from rnem_world.models.imagination import DreamState


class Pool:
    """Encoded starts on the device; a reset gathers from them.

    A start is encoded when it is first taken, together with all others that are taken then.

    Args:
        number: How many starts there are.
        encode: Encodes the starts of the given numbers.
    """

    def __init__(self, number: int, encode: Callable[[Int64[np.ndarray, " m"]], DreamState]) -> None:
        self._encode = encode
        self._dreams: DreamState | None = None
        self._known = np.zeros(number, dtype=np.bool_)
        self._lock = threading.Lock()

    @torch.inference_mode()
    def take(self, chosen: Int64[np.ndarray, " m"]) -> DreamState:
        """Gathers some starts, repeated or not."""
        with self._lock:
            wanted = np.unique(chosen)
            missing = wanted[~self._known[wanted]]
            if missing.size or self._dreams is None:
                self._fill(missing)
            dreams = self._dreams
        if dreams is None:
            raise ConfigError("there are no starts to take from")
        rows = torch.from_numpy(chosen).to(dreams.theta.device)
        return dreams.map(lambda tensor: tensor[rows])

    def take_all(self) -> DreamState:
        """Encodes whatever isn't yet, so that no later reset has to."""
        return self.take(np.arange(len(self._known)))

    def _fill(self, rows: Int64[np.ndarray, " m"]) -> None:
        for part in chunks(len(rows)):
            some = rows[part]
            encoded = self._encode(some)
            if self._dreams is None:
                self._dreams = encoded.map(
                    lambda tensor: tensor.new_zeros(len(self._known), *tensor.shape[1:])
                )
            places = torch.from_numpy(some).to(encoded.theta.device)
            for old, new in zip(tensors_of(self._dreams), tensors_of(encoded), strict=True):
                old.index_copy_(0, places, new)
        self._known[rows] = True

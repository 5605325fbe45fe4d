"""Where a training run stands."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Progress:
    """Where a run stands; together with weights and optimizer it is all that resuming needs.

    Attributes:
        epoch: Passes over the training split that are complete.
        batch: Batches of the present pass that are done.
        updates: Updates in all.
        sequences: Sequences seen in all.
        minutes: Training time in all.
        best_loss: The lowest validation loss so far, in nats a frame.
        best_epoch: The epoch that had it, 0 before the first validation.
        best_checkpoint: The name of the checkpoint that had it.
        epoch_loss: Sum of the present pass's losses.
        log_position: Bytes of the log that belong to what is counted here.
    """

    epoch: int = 0
    batch: int = 0
    updates: int = 0
    sequences: int = 0
    minutes: float = 0.0
    best_loss: float = math.inf
    best_epoch: int = 0
    epoch_loss: float = 0.0
    log_position: int = 0
    best_checkpoint: str = ""

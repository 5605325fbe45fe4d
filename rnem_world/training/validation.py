"""Validation between epochs: the figures that choose the best checkpoint, and a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import UInt8

from rnem_world.data.loader import Batch, SequenceLoader
from rnem_world.distributed import ALONE, Processes
from rnem_world.evaluation.evaluate import Evaluation, EvaluationConfig, evaluate
from rnem_world.evaluation.pictures import overview
from rnem_world.evaluation.plots import figure_to_array
from rnem_world.models.rollout import roll_out
from rnem_world.models.world_model import WorldModel
from rnem_world.seeding import torch_generator
from rnem_world.training.config import RunConfig


class Validator:
    """Evaluates a model on the validation split, always with the same noise and responsibilities.

    Args:
        model: The model, on its device.
        config: The run.
        batches: Gives the validation batches.
        processes: Those that share the work; all have the same figures in the end.
    """

    def __init__(
        self, model: WorldModel, config: RunConfig, batches: SequenceLoader, processes: Processes = ALONE
    ) -> None:
        self.model, self.config, self.batches, self.processes = model, config, batches, processes
        self.device = next(model.parameters()).device

    def evaluate(self, before_batch: Callable[[], None]) -> Evaluation:
        """Evaluates one step ahead.

        Args:
            before_batch: Called before every batch; may raise to end the evaluation.
        """

        def watched(batches: Iterable[Batch]) -> Iterator[Batch]:
            for batch in batches:
                before_batch()
                yield batch

        options = self.config.training
        how = EvaluationConfig(
            step_weights=options.weights,
            noise=options.noise.usual_probability,
            loss=options.loss,
            last_steps=options.last_steps,
            ami_sequences=0,
            honest=False,
        )
        generator = torch_generator(options.seed, "validation", device=self.device)
        return evaluate(self.model, watched(self.batches.epoch(0)), how, generator, self.processes)

    def overview(self, updates: int) -> UInt8[np.ndarray, "h w 3"]:
        """Draws the overview figure of the first sequence.

        Args:
            updates: Number of updates so far, for the title.
        """
        options = self.config.training
        batch = next(iter(self.batches.epoch(0))).to(self.device)
        frames = self.model.likelihood.from_uint8(batch.frames[:1], batch.maximum_value)
        actions = None
        if self.config.model.number_of_actions and batch.actions is not None:
            actions = batch.actions[:1, : options.sequence_steps]
        rollout = roll_out(
            self.model,
            frames,
            context=options.sequence_steps,
            horizon=0,
            actions=actions,
            noise=options.noise.usual_probability,
            generator=torch_generator(options.seed, "overview", device=self.device),
        )
        return figure_to_array(overview(rollout, frames, 0, f"after {updates} updates"))

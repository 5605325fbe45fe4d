"""Evaluating a model one step ahead: the original's figures, and the honest ones that no gamma has helped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rnem_world.data.loader import Batch
from rnem_world.device import send
from rnem_world.distributed import ALONE, Processes
from rnem_world.errors import ConfigError
from rnem_world.evaluation import metrics
from rnem_world.models.config import LossConfig
from rnem_world.models.layers import own_precision
from rnem_world.models.likelihood import LossTerms
from rnem_world.models.rollout import observe
from rnem_world.models.world_model import Transition, WorldModel

TERMS = ("total", "intra", "inter")


@dataclass(frozen=True)
class EvaluationConfig:
    """How a model is evaluated.

    Attributes:
        step_weights: Weight of each step; their number is the number of steps.
        slots: Number of slots; None takes the model's own.
        noise: Probability that an input pixel is flipped; the original keeps its training noise here.
        loss: Weights within a step's loss.
        last_steps: How many last steps are reported by themselves (the original's dt).
        ami_sequences: Adjusted mutual information is slow; it is taken over so many sequences at most.
        honest: Whether to compute plain cross-entropy, FG-ARI and IoU too.
    """

    step_weights: tuple[float, ...] = (1.0,) * 30
    slots: int | None = None
    noise: float = 0.0
    loss: LossConfig = field(default_factory=LossConfig)
    last_steps: int = 10
    ami_sequences: int = 100
    honest: bool = True

    def __post_init__(self) -> None:
        if not self.step_weights or sum(self.step_weights) <= 0.0:
            raise ConfigError("step_weights must hold a number for each step, and one of them above 0")
        if not 0.0 <= self.noise <= 1.0:
            raise ConfigError(f"the noise's probability is {self.noise}, it must lie in [0, 1]")
        if self.last_steps < 1:
            raise ConfigError(f"last_steps is {self.last_steps}, it must be at least 1")
        if self.ami_sequences < 0:
            raise ConfigError(f"ami_sequences is {self.ami_sequences}, it must be at least 0")


@dataclass(frozen=True)
class Evaluation:
    """The figures of an evaluation.

    Attributes:
        sequences: Number of sequences.
        slots: Number of slots.
        noise: Probability that an input pixel was flipped.
        losses: The four losses ``loss``, ``upper_bound``, ``relational`` and ``relational_upper_bound``, in nats a
            frame; each with ``total``, ``intra``, ``inter`` and the same of the last steps, ``last_total`` ...
        scores: Grouping scores by name; those that the data doesn't allow are left out.
        curves: For each step: the losses' totals, and every honest figure, by name.
        available: Number of sequences that there are; 0 where nobody knows.
    """

    sequences: int
    slots: int
    noise: float
    losses: dict[str, dict[str, float]]
    scores: dict[str, float]
    curves: dict[str, list[float]]
    available: int = 0

    @property
    def loss(self) -> float:
        """The loss that training minimises, in nats a frame."""
        return self.losses["loss"]["total"]

    def to_dict(self) -> dict[str, Any]:
        """Gives the figures as JSON-ready values."""
        return vars(self).copy()


@torch.no_grad()
@own_precision
def evaluate(
    model: WorldModel,
    batches: Iterable[Batch],
    config: EvaluationConfig,
    generator: torch.Generator,
    processes: Processes = ALONE,
) -> Evaluation:
    """Runs a model over real frames and measures its predictions of the next one.

    Args:
        model: The model; it is put into evaluation mode and back.
        batches: What to evaluate on; each with one frame more than there are steps.
        config: How.
        generator: Draws noise and first responsibilities, on the model's device.
        processes: Those that share the work, each its rows of every batch; all get the same figures.

    Returns:
        Means over all sequences.

    Raises:
        ConfigError: If there is nothing to evaluate on, or too few frames.
    """
    was_training = model.training
    model.eval()
    sums = _Sums(model, config, generator, processes)
    try:
        for batch in batches:
            sums.add(batch)
    finally:
        model.train(was_training)
    if sums.sequences == 0:
        raise ConfigError("there is no sequence to evaluate on: choose a larger split")
    return sums.evaluation()


class _Sums:
    """Running sums over sequences of curves and scores; see :func:`evaluate` for the arguments.

    Attributes:
        sequences: Number of sequences so far, of all processes.
    """

    def __init__(
        self, model: WorldModel, config: EvaluationConfig, generator: torch.Generator, processes: Processes
    ) -> None:
        self.model, self.config, self.generator, self.processes = model, config, generator, processes
        self.device = next(model.parameters()).device
        self.weights = torch.tensor(config.step_weights, device=self.device)
        self.sequences = 0
        self._totals: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    def add(self, batch: Batch) -> None:
        """Evaluates a batch, of which this process takes its rows.

        Raises:
            ConfigError: If it has too few frames.
        """
        model, config, likelihood = self.model, self.config, self.model.likelihood
        (size, length), steps = batch.frames.shape[:2], len(config.step_weights)
        if length < steps + 1:
            raise ConfigError(
                f"{steps} steps need sequences of {steps + 1} frames, these have {length}: evaluate fewer steps"
            )
        # Drawn for the whole batch, so that the figures don't depend on the number of processes.
        state = model.initial_state(size, config.slots, self.generator)
        shape = batch.frames[:, :steps].shape
        noise = likelihood.draw_noise(shape, config.noise, self.generator, self.device)
        # No process may be left without rows: of a small batch all have all, and those of the first count.
        is_shared = size >= self.processes.world_size
        rows = self.processes.rows(size) if is_shared else slice(0, size)
        frames = likelihood.from_uint8(
            send(batch.frames[rows, : steps + 1], self.device), batch.maximum_value
        )
        actions = None
        if model.config.takes_actions and batch.actions is not None:
            actions = send(batch.actions[rows, :steps], self.device)
        collisions = None
        if batch.collisions is not None:
            collisions = send(batch.collisions[rows], self.device).to(torch.float32)
        begins = None
        count = torch.full((steps,), float(frames.shape[0]), device=self.device)
        if batch.is_first is not None:
            begins = send(batch.is_first[rows, 1 : steps + 1], self.device)
            count = (~begins).sum(dim=0).to(count.dtype)
        inputs = likelihood.add_noise(frames[:, :-1], None if noise is None else noise[rows])
        totals: dict[str, list[Tensor]] = defaultdict(list)
        gammas: list[Tensor] = []
        for step, (transition, after) in enumerate(
            observe(model, state.rows(rows), inputs, frames[:, 1:], actions, begins)
        ):
            there = 1.0 if begins is None else (~begins[:, step]).to(frames.dtype)
            target, mask = frames[:, step + 1], None if collisions is None else collisions[:, step]
            for name, terms in self._losses(transition, after.gamma, target, mask).items():
                totals[name].append(torch.stack([(term * there).sum() for term in terms]))
            if config.honest:
                # The mixture's weights come from the model's own frame: no gamma here has seen the target.
                own = likelihood.mix(transition.prediction, likelihood.soft_gamma(transition.prediction))
                plain = "plain_bce" if likelihood.is_binary else "plain_error"
                totals[plain].append((likelihood.frame_loss(own, target) * there).sum())
            gammas.append(after.gamma[:, :, 0])
        found = {name: (torch.stack(values), count) for name, values in totals.items()}
        if batch.groups is not None:
            groups = send(batch.groups[rows, 1 : steps + 1], self.device)
            found |= self._scores(torch.stack(gammas, dim=1), groups, self.sequences + rows.start)
        # Every process has the same names, also where its own sequences don't count.
        counts_in = is_shared or self.processes.is_first
        for name, (total, number) in found.items():
            self._totals[name] = self._totals.get(name, 0.0) + total.double() * counts_in
            self._counts[name] = self._counts.get(name, 0.0) + number.double() * counts_in
        self.sequences += size

    def _losses(
        self, transition: Transition, gamma: Tensor, target: Tensor, mask: Tensor | None
    ) -> dict[str, LossTerms]:
        likelihood, logits, config = self.model.likelihood, transition.logits, self.config.loss
        losses = {
            "loss": likelihood.slot_losses(logits, gamma, target, config),
            "upper_bound": likelihood.upper_bound_losses(logits, target, config),
        }
        if mask is not None:
            losses["relational"] = likelihood.slot_losses(logits, gamma, target, config, mask)
            losses["relational_upper_bound"] = likelihood.upper_bound_losses(logits, target, config, mask)
        return losses

    def _scores(self, gammas: Tensor, groups: Tensor, before: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Scores the grouping of sequences, of which there were some before; sums and counts by name."""
        count, config = gammas.new_tensor(float(gammas.shape[0])), self.config
        scores = vars(metrics.adjusted_rand_index(gammas, groups, self.weights))
        found = {name: (value * count, count) for name, value in scores.items()}
        if config.ami_sequences > 0:
            room = max(min(config.ami_sequences - before, gammas.shape[0]), 0)
            values, _ = metrics.adjusted_mutual_information(gammas[:room], groups[:room], self.weights)
            found["ami"] = (values.sum().to(self.device), count.new_tensor(float(room)))
        if config.honest:
            found["fg_ari"] = (metrics.foreground_ari(gammas, groups).sum(dim=0), count)
            found["miou"] = (metrics.mean_iou(gammas, groups).sum(dim=0), count)
        return found

    def evaluation(self) -> Evaluation:
        """Gives the means over the sequences of all processes."""
        config, weights = self.config, torch.tensor(self.config.step_weights, dtype=torch.float64)
        last = min(config.last_steps, len(weights))
        losses: dict[str, dict[str, float]] = {}
        scores: dict[str, float] = {}
        curves: dict[str, list[float]] = {}
        for name, total in self._totals.items():
            number = self._counts[name].reshape(-1)
            merged = self.processes.sum(torch.cat([total.reshape(-1), number])).cpu()
            # Where every sequence begins anew nothing is measured.
            counts = merged[total.numel() :].clamp(min=1.0)
            sums = merged[: total.numel()].reshape(total.shape)
            mean = sums / counts.reshape(-1, *[1] * (sums.ndim - 1)) if sums.ndim else sums / counts[0]
            if mean.ndim == 2:
                curves[name] = mean[:, 0].tolist()
                losses[name] = {}
                for index, term in enumerate(TERMS):
                    column = mean[:, index]
                    losses[name][term] = float((column * weights).sum() / weights.sum())
                    losses[name][f"last_{term}"] = float(column[-last:].mean())
            elif mean.ndim == 1:
                curves[name] = mean.tolist()
                scores[name] = float(mean.mean())
                scores[f"last_{name}"] = float(mean[-last:].mean())
            else:
                scores[name] = float(mean)
        slots = config.slots or self.model.config.slots
        return Evaluation(self.sequences, slots, config.noise, losses, scores, curves)

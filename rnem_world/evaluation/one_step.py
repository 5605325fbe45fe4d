"""Evaluating a model one step ahead: the original's figures, and the honest ones that no gamma has helped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rnem_world.data.loader import Batch
from rnem_world.distributed import ALONE, Processes
from rnem_world.errors import ConfigError
from rnem_world.evaluation import metrics
from rnem_world.models.config import LossConfig
from rnem_world.models.likelihood import Likelihood, LossTerms
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
    """

    sequences: int
    slots: int
    noise: float
    losses: dict[str, dict[str, float]]
    scores: dict[str, float]
    curves: dict[str, list[float]]

    @property
    def loss(self) -> float:
        """The loss that training minimises, in nats a frame."""
        return self.losses["loss"]["total"]

    def to_dict(self) -> dict[str, Any]:
        """Gives the figures as JSON-ready values."""
        return vars(self).copy()


class RunningSums:
    """Running sums over sequences of curves and scores.

    Attributes:
        values: Sums by name.
        counts: Number of sequences by name.
        counts_in: Whether what is added counts; else only the names do.
    """

    def __init__(self) -> None:
        self.counts_in = True
        self.values: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, name: str, total: Tensor, count: int) -> None:
        """Adds what some sequences sum up to.

        Args:
            name: Of what.
            total: Their sum.
            count: How many they are.
        """
        total = total.detach().double().cpu()
        if not self.counts_in:
            total, count = torch.zeros_like(total), 0
        self.values[name] = self.values[name] + total if name in self.values else total
        self.counts[name] = self.counts.get(name, 0) + count

    def merge(self, processes: Processes) -> None:
        """Adds up the sums of all processes, which have the same names."""
        for name, value in self.values.items():
            merged = processes.sum(torch.cat([value.reshape(-1), value.new_tensor([self.counts[name]])]))
            self.values[name], self.counts[name] = merged[:-1].reshape(value.shape), int(merged[-1])

    def mean(self, name: str) -> Tensor:
        """Gives the mean over the sequences that were counted."""
        return self.values[name] / self.counts[name]


@torch.no_grad()
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
    sums = RunningSums()
    sequences = 0
    device = next(model.parameters()).device
    try:
        for batch in batches:
            _evaluate_batch(model, batch, config, generator, device, sums, sequences, processes)
            sequences += batch.frames.shape[0]
    finally:
        model.train(was_training)
    if sequences == 0:
        raise ConfigError("there is no sequence to evaluate on: choose a larger split")
    sums.merge(processes)
    return _collect(sums, config, sequences, config.slots or model.config.slots)


def _evaluate_batch(
    model: WorldModel,
    batch: Batch,
    config: EvaluationConfig,
    generator: torch.Generator,
    device: torch.device,
    sums: RunningSums,
    before: int,
    processes: Processes,
) -> None:
    steps = len(config.step_weights)
    if batch.frames.shape[1] < steps + 1:
        raise ConfigError(
            f"{steps} steps need sequences of {steps + 1} frames, these have {batch.frames.shape[1]}: "
            "evaluate fewer steps"
        )
    # Drawn for the whole batch, so that the figures don't depend on the number of processes.
    size = batch.frames.shape[0]
    state = model.initial_state(size, config.slots, generator)
    likelihood = model.likelihood
    noise = likelihood.draw_noise(batch.frames[:, :steps].shape, config.noise, generator, device)
    # No process may be left without rows: of a small batch all have all, and those of the first count.
    is_shared = size >= processes.world_size
    rows = processes.rows(size) if is_shared else slice(0, size)
    sums.counts_in = is_shared or processes.is_first
    state = state.rows(rows)
    frames = likelihood.from_uint8(batch.frames[rows, : steps + 1].to(device), batch.maximum_value)
    actions = None
    if model.config.number_of_actions and batch.actions is not None:
        actions = batch.actions[rows, :steps].to(device)
    collisions = None if batch.collisions is None else batch.collisions[rows].to(device, torch.float32)
    count = frames.shape[0]
    inputs = likelihood.add_noise(frames[:, :-1], None if noise is None else noise[rows])
    totals: dict[str, list[Tensor]] = {}
    gammas: list[Tensor] = []
    for step, (transition, after) in enumerate(observe(model, state, inputs, frames[:, 1:], actions)):
        target = frames[:, step + 1]
        mask = None if collisions is None else collisions[:, step]
        for name, terms in _step_losses(
            likelihood, transition, after.gamma, target, mask, config.loss
        ).items():
            totals.setdefault(name, []).append(torch.stack([term.sum() for term in terms]))
        if config.honest:
            # The mixture's weights come from the model's own frame: no gamma here has seen the target.
            own = likelihood.mix(transition.prediction, likelihood.soft_gamma(transition.prediction))
            totals.setdefault("plain_bce", []).append(likelihood.frame_loss(own, target).sum())
        gammas.append(after.gamma[:, :, 0])
    for name, values in totals.items():
        sums.add(name, torch.stack(values), count)
    if batch.groups is not None:
        groups = batch.groups[rows, 1 : steps + 1].to(device)
        _score_batch(torch.stack(gammas, dim=1), groups, config, sums, before + rows.start)


def _step_losses(
    likelihood: Likelihood,
    transition: Transition,
    gamma: Tensor,
    target: Tensor,
    mask: Tensor | None,
    config: LossConfig,
) -> dict[str, LossTerms]:
    losses = {
        "loss": likelihood.slot_losses(transition.logits, gamma, target, config),
        "upper_bound": likelihood.upper_bound_losses(transition.logits, target, config),
    }
    if mask is not None:
        losses["relational"] = likelihood.slot_losses(transition.logits, gamma, target, config, mask)
        losses["relational_upper_bound"] = likelihood.upper_bound_losses(
            transition.logits, target, config, mask
        )
    return losses


def _score_batch(
    gammas: Tensor, groups: Tensor, config: EvaluationConfig, sums: RunningSums, before: int
) -> None:
    count = gammas.shape[0]
    weights = torch.tensor(config.step_weights, device=gammas.device)
    scores = metrics.adjusted_rand_index(gammas, groups, weights)
    for name in ("ari", "last_ari", "confidence", "last_confidence"):
        sums.add(name, getattr(scores, name) * count, count)
    room = max(min(config.ami_sequences - before, count), 0)
    if room > 0:
        values, _ = metrics.adjusted_mutual_information(gammas[:room], groups[:room], weights)
        sums.add("ami", values.sum(), room)
    elif config.ami_sequences > 0:  # every process has the same names
        sums.add("ami", weights.new_zeros(()), 0)
    if config.honest:
        sums.add("fg_ari", metrics.foreground_ari(gammas, groups).sum(dim=0), count)
        sums.add("miou", metrics.mean_iou(gammas, groups).sum(dim=0), count)


def _collect(sums: RunningSums, config: EvaluationConfig, sequences: int, slots: int) -> Evaluation:
    weights = torch.tensor(config.step_weights, dtype=torch.float64)
    last = min(config.last_steps, len(weights))
    losses: dict[str, dict[str, float]] = {}
    scores: dict[str, float] = {}
    curves: dict[str, list[float]] = {}
    for name in sums.values:
        mean = sums.mean(name)
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
    return Evaluation(sequences, slots, config.noise, losses, scores, curves)

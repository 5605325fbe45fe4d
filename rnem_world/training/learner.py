"""Learning from one batch: noise, unrolling, gradient, update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, Optimizer, RMSprop

from rnem_world.data.loader import Batch
from rnem_world.device import execute_layers, multiplying, send
from rnem_world.distributed import ALONE, Processes
from rnem_world.errors import ConfigError, TrainingError
from rnem_world.evaluation import metrics
from rnem_world.models.world_model import SlotState, WorldModel
from rnem_world.seeding import derive_seed
from rnem_world.training.config import OptimizerConfig, RunConfig, TrainingConfig
from rnem_world.training.losses import SequenceBatch, SequenceLoss, draw_own_frames, without_beginnings

# How fast the running norm of the gradient follows the norm.
NORM_RATE = 0.02


@dataclass(frozen=True)
class Lesson:
    """What a batch taught.

    Attributes:
        loss: Mean loss in nats a frame.
        updates: Number of updates that were made.
        steps: Pixel loss of every step.
        figures: Further figures for the log: ``ari`` if it was asked for, and the losses of ``heads`` and
            ``prior_code`` if there are any.
    """

    loss: float
    updates: int
    steps: list[float]
    figures: dict[str, float]


@dataclass
class _Part:
    """A micro-batch on its way through the chunks: its rows, its first and its present slots, its responsibilities."""

    rows: slice
    first: SlotState
    state: SlotState
    gammas: list[Tensor]


class Learner:
    """Owns the model's training: its optimizer and its loss.

    Every random draw of a batch is seeded by the run's seed and the number of updates before it, so that a resumed run
    needs no generator's state to continue as if it had never stopped.

    Several processes draw alike for the global batch, and each takes its own rows.

    Args:
        model: The model, on its device.
        config: The run.
        processes: Those that learn together, each from its rows of the batch.

    Raises:
        ConfigError: If processes and micro-batches can't share a batch evenly.
    """

    def __init__(self, model: WorldModel, config: RunConfig, processes: Processes = ALONE) -> None:
        self.model, self.config, self.options = model, config, config.training
        self.processes = processes
        check_shares(self.options, processes)
        self.device = next(model.parameters()).device
        execute_layers(model, self.options.execution.precision, self.options.execution.compile)
        hold_still(model, self.options.train_only)
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(learning, self.options.optimizer)
        self.loss = SequenceLoss(
            model, self.options.loss, self.options.head_loss, self.options.prior_code
        ).to(self.device)
        self.parallel_loss = processes.parallel(self.loss)
        self.step_weights = torch.tensor(self.options.weights, device=self.device)
        self.generator = torch.Generator(self.device)
        # What decides which work is done is drawn here, so that nobody waits for the device to tell.
        self.host_generator = self.generator if self.device.type == "cpu" else torch.Generator()
        self.gradient_norm = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Gives what a resumed run needs beside the weights."""
        return {"optimizer": self.optimizer.state_dict(), "gradient_norm": self.gradient_norm}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` gave; the learning rate is the configuration's at every update.

        Raises:
            KeyError: If something is missing; also TypeError, ValueError, AttributeError and RuntimeError for a state
                of another model.
        """
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, kept in self.optimizer.state.items():
            for name, value in kept.items():
                if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                    raise ValueError(f"{name} has shape {tuple(value.shape)}, not {tuple(parameter.shape)}")
        self.gradient_norm = float(state.get("gradient_norm", 0.0))

    def learn(self, batch: Batch, updates: int, with_score: bool) -> Lesson:
        """Makes an update from a batch, or one from each of its chunks.

        Args:
            batch: This process's sequences, with one frame more than there are steps.
            updates: Number of updates before this batch.
            with_score: Whether to score the grouping, if the batch has groups.

        Raises:
            TrainingError: If the loss or the gradient is NaN or infinite; the weights are then as before.
        """
        options = self.options
        self.model.train()
        for generator in (self.generator, self.host_generator):
            generator.manual_seed(derive_seed(options.seed, "update", updates))
        with_score = with_score and batch.groups is not None
        shares = self._shares(batch.frames.shape[0])
        whole = self._sequences(batch)
        size = whole.frames.shape[0] * self.processes.world_size
        state = self.model.initial_state(size, generator=self.generator).rows(self.processes.rows(size))
        parts = [_Part(rows, state.rows(rows), state.rows(rows), []) for rows in shares]
        length = options.chunk_steps or options.sequence_steps
        figures: list[list[float]] = []
        priors: list[float] = []
        with multiplying(options.execution.precision, self.device):
            for number, start in enumerate(range(0, options.sequence_steps, length)):
                chunk = self._chunk(whole, start, length, updates + number)
                weights = self.step_weights[start : start + length]
                measured = self._add_gradients(chunk, weights, parts, with_score)
                means = self._update(self.processes.mean(measured), updates + number)
                figures.append(means)
                if chunk.imagined is not None:
                    priors.append(means[2])
        count = len(figures)
        further = {"heads": sum(means[1] for means in figures) / count} if self.config.model.heads else {}
        if priors:
            further["prior_code"] = sum(priors) / len(priors)
        if with_score and batch.groups is not None:
            scores = torch.stack([self._score(part.gammas, batch.groups[part.rows]) for part in parts])
            further["ari"] = float(self.processes.mean(scores.mean()))
        step_losses = [round(step, 3) for means in figures for step in means[3:]]
        return Lesson(sum(means[0] for means in figures) / count, count, step_losses, further)

    def _add_gradients(
        self, chunk: SequenceBatch, weights: Float[Tensor, " t"], parts: list[_Part], with_score: bool
    ) -> Float[Tensor, " n"]:
        """Adds up a chunk's gradient over the micro-batches, and takes their slots on.

        Returns:
            Float (3 + t,), means over micro-batches: the loss, the heads' and the prior code's shares, and the steps'.
        """
        self.optimizer.zero_grad(set_to_none=True)
        measured: list[Tensor] = []
        for part in parts:
            with nullcontext() if part is parts[-1] else self.processes.holding_back(self.parallel_loss):
                rows = chunk.rows(part.rows)
                result = self.parallel_loss(part.state, rows, weights, with_score, part.first)
                # Where only some parts learn, a chunk may have nothing for them.
                if result.loss.requires_grad:
                    (result.loss / len(parts)).backward()
            part.state = result.state.detach()
            shared = torch.stack([result.loss.detach(), result.heads, result.prior])
            measured.append(torch.cat([shared, result.steps]))
            if result.gammas is not None:
                part.gammas.append(result.gammas)
        return torch.stack(measured).mean(dim=0)

    def _shares(self, size: int) -> list[slice]:
        """Cuts this process's rows into micro-batches."""
        length = size // self.options.accumulate
        return [slice(start, start + length) for start in range(0, size, length)]

    def _score(self, gammas: list[Tensor], groups: Tensor) -> Tensor:
        there = send(groups[:, 1:], self.device)
        return metrics.adjusted_rand_index(torch.cat(gammas, dim=1), there, self.step_weights).ari

    def _sequences(self, batch: Batch) -> SequenceBatch:
        noise, steps, model = self.options.noise, self.options.sequence_steps, self.config.model
        frames = self.model.likelihood.from_uint8(send(batch.frames, self.device), batch.maximum_value)
        # Drawn for the global batch, so that a process's own rows get what they would get in one process alone.
        shape = torch.Size([frames.shape[0] * self.processes.world_size, *frames[:, :-1].shape[1:]])
        strength: float | Tensor = noise.strength
        if noise.per_sequence:
            draw = torch.rand(shape[0], 1, 1, 1, 1, generator=self.generator, device=self.device)
            strength = noise.strength * draw
        drawn = self.model.likelihood.draw_noise(shape, strength, self.generator, self.device)
        if drawn is not None:
            drawn = drawn[self.processes.rows(shape[0])]
        actions = rewards = terminations = None
        if model.takes_actions and batch.actions is not None:
            actions = send(batch.actions[:, :steps], self.device)
        if model.heads and batch.rewards is not None:
            rewards = send(batch.rewards[:, :steps], self.device)
        if model.heads and batch.terminations is not None:
            terminations = send(batch.terminations[:, :steps], self.device).float()
        own = None if batch.weights is None else send(batch.weights, self.device)
        whole = SequenceBatch(frames, drawn, actions, rewards, terminations, head_weights=own)
        if batch.is_first is None:
            return whole
        begins = batch.is_first[:, 1 : steps + 1].numpy()
        counts = send(torch.from_numpy(1.0 - begins.astype(np.float32)), self.device)
        shares = self.processes.mean(counts.mean(dim=0))
        # A step in which every episode begins has nothing to learn, and weighs nothing.
        weights = counts / torch.where(shares > 0.0, shares, torch.ones_like(shares))
        return whole._replace(begins=begins, weights=weights)

    def _chunk(self, whole: SequenceBatch, start: int, length: int, updates: int) -> SequenceBatch:
        def part(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[:, start : start + length]

        loop = self.options.closed_loop
        own_frames = expected_codes = None
        if loop.fraction > 0.0 and updates >= loop.after_updates:
            size = whole.frames.shape[0] * self.processes.world_size
            rows = self.processes.rows(size)
            drawn = draw_own_frames(size, length, loop.fraction, loop.steps, self.host_generator)
            own_frames = drawn[rows]
            if whole.begins is not None:
                # Step t of a chunk is shown frame t, which is the target of the step before.
                is_first = np.zeros_like(own_frames)
                is_first[:, 1:] = whole.begins[:, start : start + length - 1]
                own_frames = without_beginnings(own_frames, is_first)
            if self.model.prior_code is not None and loop.latent_fraction > 0.0:
                is_latent = torch.rand(size, 1, generator=self.host_generator) < loop.latent_fraction
                expected_codes = own_frames & is_latent.numpy()[rows]
        imagined = self._imagined(whole.frames.shape[0], start, updates)
        return SequenceBatch(
            whole.frames[:, start : start + length + 1],
            part(whole.noise),
            part(whole.actions),
            part(whole.rewards),
            part(whole.terminations),
            own_frames,
            expected_codes,
            imagined,
            None if imagined is None else self._imagined_before(whole.frames.shape[0]),
            whole.head_weights,
            None if whole.begins is None else whole.begins[:, start : start + length],
            part(whole.weights),
        )

    def _imagined(self, batch_size: int, start: int, updates: int) -> Float32[np.ndarray, " b"] | None:
        """Chooses the sequences that train the prior code: none before the slots have watched some frames.

        They are spread evenly over the batch, so that processes have equally much to do.
        """
        options = self.options.prior_code
        unready = start == 0 and self.options.sequence_steps > (self.options.chunk_steps or 0) > 0
        if self.model.prior_code is None or unready or updates < options.after_updates:
            return None
        size = batch_size * self.processes.world_size
        number = max(1, round(options.fraction * size))
        is_chosen = np.arange(size) * number % size < number
        return (is_chosen * np.float32(size / number))[self.processes.rows(size)]

    def _imagined_before(self, batch_size: int) -> Int64[np.ndarray, " b"] | None:
        """Draws for how long each sequence is imagined before it trains the prior code."""
        most = self.options.prior_code.before
        if most == 0:
            return None
        size = batch_size * self.processes.world_size
        drawn = torch.randint(1, most + 1, (size,), generator=self.host_generator)
        drawn *= torch.randint(2, (size,), generator=self.host_generator)
        return drawn.numpy()[self.processes.rows(size)]

    def _update(self, means: Float[Tensor, " n"], updates: int) -> list[float]:
        """Moves the weights by the gradient; figures and gradient are those of all processes together.

        Args:
            means: The loss, and other figures behind it.
            updates: Number of updates before this one.

        Returns:
            The figures: the host waits for the device once in an update, here.
        """
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        norm_there = means.new_zeros(())
        if gradients:
            norm_there = torch.stack(torch._foreach_norm(gradients)).norm()
        *figures, norm = torch.cat([means, norm_there[None]]).tolist()
        for what, value in (("loss", figures[0]), ("gradient's norm", norm)):
            if not math.isfinite(value):
                raise TrainingError(f"the {what} is {value} at update {updates + 1}")
        if gradients and self.options.optimizer.clip_factor is not None:
            self._clip_outlier(gradients, norm, self.options.optimizer.clip_factor)
        clip_gradients(self.model.parameters(), self.options.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.optimizer.rate_at(updates)
        self.optimizer.step()
        return figures

    def _clip_outlier(self, gradients: list[Tensor], norm: float, factor: float) -> None:
        """Scales a gradient down that is much larger than those before; the running norm sees the scaled one."""
        if self.gradient_norm == 0.0:
            self.gradient_norm = norm
            return
        limit = factor * self.gradient_norm
        if norm > limit:
            torch._foreach_mul_(gradients, limit / norm)
        self.gradient_norm += NORM_RATE * (min(norm, limit) - self.gradient_norm)


def check_shares(options: TrainingConfig, processes: Processes) -> None:
    """Checks that processes and micro-batches share a batch evenly, so that means of means are means.

    Raises:
        ConfigError: If they don't.
    """
    parts = processes.world_size * options.accumulate
    if options.batch_size % parts:
        raise ConfigError(
            f"batch_size is {options.batch_size}, which {processes.world_size} processes with {options.accumulate} "
            f"micro-batches each (accumulate) can't share evenly: give a --batch-size that is a multiple of {parts}"
        )


def hold_still(model: WorldModel, train_only: Sequence[str]) -> None:
    """Lets only some parts of a model learn.

    Args:
        model: The model.
        train_only: The parts, by the names of its modules; empty for all.

    Raises:
        ConfigError: If the model has no such part.
    """
    parts = dict(model.named_children())
    for part in train_only:
        if part not in parts:
            raise ConfigError(f"train_only names {part}, which this model hasn't: it has {', '.join(parts)}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not train_only or name.split(".")[0] in train_only)


def make_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> Optimizer:
    """Makes the optimizer that the configuration names."""
    parameters, rate = list(parameters), config.learning_rate
    match config.name:
        case "adam":
            return Adam(parameters, lr=rate, eps=1e-8)
        case "sgd":
            return SGD(parameters, lr=rate)
        case "momentum":
            return SGD(parameters, lr=rate, momentum=config.momentum)
        case "adadelta":
            return Adadelta(parameters, lr=rate, rho=0.95, eps=1e-8)
        case "adagrad":
            return Adagrad(parameters, lr=rate, initial_accumulator_value=0.1)
        case "rmsprop":
            return RMSprop(parameters, lr=rate, alpha=0.9, eps=1e-10)


def clip_gradients(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> None:
    """Scales gradients down to the configured norm, in place."""
    if config.clip_norm is None:
        return
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    if not parameters:
        return
    if config.clip_by == "global":
        nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch._foreach_norm(gradients)
    scales = [(config.clip_norm / norm).clamp(max=1.0) for norm in norms]
    torch._foreach_mul_(gradients, scales)

"""Learning from one batch: noise, unrolling, gradient, update."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rnem_world.data.loader import Batch
from rnem_world.distributed import ALONE, Processes
from rnem_world.errors import ConfigError, TrainingError
from rnem_world.evaluation import metrics
from rnem_world.models.world_model import WorldModel
from rnem_world.seeding import derive_seed
from rnem_world.training.config import RunConfig, TrainingConfig
from rnem_world.training.execution import execute_as
from rnem_world.training.losses import SequenceBatch, SequenceLoss, draw_own_frames
from rnem_world.training.optimizer import clip_gradients, make_optimizer

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
        execute_as(model, self.options.execution)
        self.optimizer = make_optimizer(model.parameters(), self.options.optimizer)
        self.loss = SequenceLoss(
            model, self.options.loss, self.options.head_loss, self.options.prior_code
        ).to(self.device)
        self.parallel_loss = processes.parallel(self.loss)
        self.step_weights = torch.tensor(self.options.weights, device=self.device)
        self.generator = torch.Generator(self.device)
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
        for parameter in self.model.parameters():
            for name, value in self.optimizer.state[parameter].items():
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
        self.model.train()
        self.generator.manual_seed(derive_seed(self.options.seed, "update", updates))
        shares = self._shares(batch.frames.shape[0])
        whole = self._sequences(batch)
        size = whole.frames.shape[0] * self.processes.world_size
        state = self.model.initial_state(size, generator=self.generator).rows(self.processes.rows(size))
        states = [state.rows(rows) for rows in shares]
        steps = self.options.sequence_steps
        length = self.options.chunk_steps or steps
        with_score = with_score and batch.groups is not None
        figures: list[list[float]] = []
        priors: list[float] = []
        gammas: list[list[Tensor]] = [[] for _ in shares]
        for number, start in enumerate(range(0, steps, length)):
            chunk = self._chunk(whole, start, length, updates + number)
            weights = self.step_weights[start : start + length]
            self.optimizer.zero_grad(set_to_none=True)
            measured: list[Tensor] = []
            for index, rows in enumerate(shares):
                is_last = index == len(shares) - 1
                with nullcontext() if is_last else self.processes.holding_back(self.parallel_loss):
                    part = chunk.rows(rows)
                    result = self.parallel_loss(states[index], part, weights, with_gammas=with_score)
                    (result.loss / len(shares)).backward()
                states[index] = result.state.detach()
                shared = torch.stack([result.loss.detach(), result.heads, result.prior])
                measured.append(torch.cat([shared, result.steps]))
                if result.gammas is not None:
                    gammas[index].append(result.gammas)
            means = self.processes.mean(torch.stack(measured).mean(dim=0)).tolist()
            self._update(means[0], updates + number)
            figures.append(means)
            if chunk.imagined is not None:
                priors.append(means[2])
        count = len(figures)
        further = {"heads": sum(means[1] for means in figures) / count} if self.config.model.heads else {}
        if priors:
            further["prior_code"] = sum(priors) / len(priors)
        if with_score and batch.groups is not None:
            scores = [self._score(gammas[index], batch.groups[rows]) for index, rows in enumerate(shares)]
            further["ari"] = float(self.processes.mean(torch.stack(scores).mean()))
        step_losses = [round(step, 3) for means in figures for step in means[3:]]
        return Lesson(sum(means[0] for means in figures) / count, count, step_losses, further)

    def _shares(self, size: int) -> list[slice]:
        """Cuts this process's rows into micro-batches."""
        length = size // self.options.accumulate
        return [slice(start, start + length) for start in range(0, size, length)]

    def _score(self, gammas: list[Tensor], groups: Tensor) -> Tensor:
        there = groups[:, 1:].to(self.device)
        return metrics.adjusted_rand_index(torch.cat(gammas, dim=1), there, self.step_weights).ari

    def _sequences(self, batch: Batch) -> SequenceBatch:
        noise, steps, model = self.options.noise, self.options.sequence_steps, self.config.model
        frames = self.model.likelihood.from_uint8(batch.frames.to(self.device), batch.maximum_value)
        # Drawn for the global batch, so that a process's own rows get what they would get in one process alone.
        shape = torch.Size([frames.shape[0] * self.processes.world_size, *frames[:, :-1].shape[1:]])
        probability: float | Tensor = noise.flip_probability
        if noise.per_sequence:
            draw = torch.rand(shape[0], 1, 1, 1, 1, generator=self.generator, device=self.device)
            probability = noise.flip_probability * draw
        flips = self.model.likelihood.draw_noise(shape, probability, self.generator, self.device)
        if flips is not None:
            flips = flips[self.processes.rows(shape[0])]
        actions = rewards = terminations = None
        if model.number_of_actions and batch.actions is not None:
            actions = batch.actions[:, :steps].to(self.device)
        if model.heads and batch.rewards is not None:
            rewards = batch.rewards[:, :steps].to(self.device)
        if model.heads and batch.terminations is not None:
            terminations = batch.terminations[:, :steps].to(self.device, torch.float32)
        return SequenceBatch(frames, flips, actions, rewards, terminations)

    def _chunk(self, whole: SequenceBatch, start: int, length: int, updates: int) -> SequenceBatch:
        def part(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[:, start : start + length]

        loop = self.options.closed_loop
        own_frames = expected_codes = None
        if loop.fraction > 0.0 and updates >= loop.after_updates:
            size = whole.frames.shape[0] * self.processes.world_size
            rows = self.processes.rows(size)
            drawn = draw_own_frames(size, length, loop.fraction, loop.steps, self.generator)
            own_frames = drawn[rows]
            if self.model.prior_code is not None and loop.latent_fraction > 0.0:
                draw = torch.rand(size, 1, generator=self.generator, device=self.device)
                expected_codes = own_frames & (draw[rows] < loop.latent_fraction)
        return SequenceBatch(
            whole.frames[:, start : start + length + 1],
            part(whole.flips),
            part(whole.actions),
            part(whole.rewards),
            part(whole.terminations),
            own_frames,
            expected_codes,
            self._imagined(whole.frames.shape[0], start, updates),
        )

    def _imagined(self, batch_size: int, start: int, updates: int) -> Tensor | None:
        """Chooses the sequences that train the prior code: none before the slots have watched some frames.

        They are spread evenly over the batch, so that processes have equally much to do.
        """
        options = self.options.prior_code
        unready = start == 0 and self.options.sequence_steps > (self.options.chunk_steps or 0) > 0
        if self.model.prior_code is None or unready or updates < options.after_updates:
            return None
        size = batch_size * self.processes.world_size
        number = max(1, round(options.fraction * size))
        is_chosen = torch.arange(size, device=self.device) * number % size < number
        return (is_chosen * (size / number))[self.processes.rows(size)]

    def _update(self, loss: float, updates: int) -> None:
        """Moves the weights by the gradient; loss and gradient are those of all processes together."""
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} at update {updates + 1}")
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        norm = float(torch.stack(torch._foreach_norm(gradients)).norm())
        if not math.isfinite(norm):
            raise TrainingError(f"the gradient's norm is {norm} at update {updates + 1}")
        if self.options.optimizer.clip_factor is not None:
            self._clip_outlier(gradients, norm, self.options.optimizer.clip_factor)
        clip_gradients(self.model.parameters(), self.options.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.optimizer.rate_at(updates)
        self.optimizer.step()

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

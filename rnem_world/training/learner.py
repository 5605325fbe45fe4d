"""Learning from one batch: noise, unrolling, gradient, update."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rnem_world.data.batch import Batch
from rnem_world.errors import TrainingError
from rnem_world.evaluation import metrics
from rnem_world.evaluation.evaluate import unit_frames
from rnem_world.models.rollout import draw_flips
from rnem_world.models.world_model import WorldModel
from rnem_world.seeding import derive_seed
from rnem_world.training.config import RunConfig
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

    Args:
        model: The model, on its device.
        config: The run.
    """

    def __init__(self, model: WorldModel, config: RunConfig) -> None:
        self.model, self.config, self.options = model, config, config.training
        self.device = next(model.parameters()).device
        self.optimizer = make_optimizer(model.parameters(), self.options.optimizer)
        self.loss = SequenceLoss(
            model, self.options.loss, self.options.head_loss, self.options.prior_code.steps
        ).to(self.device)
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
            batch: Sequences with one frame more than there are steps.
            updates: Number of updates before this batch.
            with_score: Whether to score the grouping, if the batch has groups.

        Raises:
            TrainingError: If the loss or the gradient is NaN or infinite; the weights are then as before.
        """
        self.model.train()
        self.generator.manual_seed(derive_seed(self.options.seed, "update", updates))
        whole = self._sequences(batch)
        state = self.model.initial_state(whole.frames.shape[0], generator=self.generator)
        steps = self.options.sequence_steps
        length = self.options.chunk_steps or steps
        with_score = with_score and batch.groups is not None
        losses: list[float] = []
        heads: list[float] = []
        priors: list[float] = []
        step_losses: list[float] = []
        gammas: list[Tensor] = []
        for number, start in enumerate(range(0, steps, length)):
            chunk = self._chunk(whole, start, length, updates + number)
            weights = self.step_weights[start : start + length]
            result = self.loss(state, chunk, weights, with_gammas=with_score)
            value = float(result.loss.detach())
            self._update(result.loss, value, updates + number)
            state = result.state.detach()
            losses.append(value)
            heads.append(float(result.heads))
            if chunk.imagined:
                priors.append(float(result.prior))
            step_losses += [round(step, 3) for step in result.steps.tolist()]
            if result.gammas is not None:
                gammas.append(result.gammas)
        figures = {}
        if self.config.model.heads:
            figures["heads"] = sum(heads) / len(heads)
        if priors:
            figures["prior_code"] = sum(priors) / len(priors)
        if with_score and batch.groups is not None:
            groups = batch.groups[:, 1:].to(self.device)
            scores = metrics.adjusted_rand_index(torch.cat(gammas, dim=1), groups, self.step_weights)
            figures["ari"] = float(scores.ari)
        return Lesson(sum(losses) / len(losses), len(losses), step_losses, figures)

    def _sequences(self, batch: Batch) -> SequenceBatch:
        noise, steps, model = self.options.noise, self.options.sequence_steps, self.config.model
        frames = unit_frames(batch.frames.to(self.device), batch.maximum_value)
        probability: float | Tensor = noise.flip_probability
        if noise.per_sequence:
            draw = torch.rand(frames.shape[0], 1, 1, 1, 1, generator=self.generator, device=self.device)
            probability = noise.flip_probability * draw
        flips = draw_flips(frames[:, :-1].shape, probability, self.generator)
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
        own_frames = None
        if loop.fraction > 0.0 and updates >= loop.after_updates:
            size = whole.frames.shape[0]
            own_frames = draw_own_frames(size, length, loop.fraction, loop.steps, self.generator)
        return SequenceBatch(
            whole.frames[:, start : start + length + 1],
            part(whole.flips),
            part(whole.actions),
            part(whole.rewards),
            part(whole.terminations),
            own_frames,
            self._imagined(whole.frames.shape[0], start, updates),
        )

    def _imagined(self, batch_size: int, start: int, updates: int) -> int:
        """Counts the sequences that train the prior code: none before the slots have watched some frames."""
        options = self.options.prior_code
        unready = start == 0 and self.options.sequence_steps > (self.options.chunk_steps or 0) > 0
        if self.model.prior_code is None or unready or updates < options.after_updates:
            return 0
        return max(1, round(options.fraction * batch_size))

    def _update(self, loss: Tensor, value: float, updates: int) -> None:
        if not math.isfinite(value):
            raise TrainingError(f"the loss is {value} at update {updates + 1}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
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

"""The training loss of a batch of sequences."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from rnem_world.models import em
from rnem_world.models.heads import HeadOutput
from rnem_world.models.losses import LossConfig, training_loss
from rnem_world.models.rollout import apply_flips
from rnem_world.models.world_model import SlotState, WorldModel
from rnem_world.training.config import HeadLossConfig


class SequenceBatch(NamedTuple):
    """What a model is unrolled over: t transitions of b sequences.

    Attributes:
        frames: Float (b, t + 1, c, h, w) in [0, 1], without noise.
        flips: Bool (b, t, c, h, w), the pixels that noise flips in the inputs; None for no noise.
        actions: Int64 (b, t); None for a model without actions.
        rewards: Float (b, t); None for a model without heads.
        terminations: Float (b, t), 1 where the episode ends; None for a model without heads or data without them.
        own_frames: Bool (b, t), where the model is shown its own frame in black and white in place of the real one;
            never at 0. None shows real frames alone.
    """

    frames: Tensor
    flips: Tensor | None = None
    actions: Tensor | None = None
    rewards: Tensor | None = None
    terminations: Tensor | None = None
    own_frames: Tensor | None = None

    def rows(self, rows: slice) -> SequenceBatch:
        """Takes some of the sequences."""
        return SequenceBatch._make(None if tensor is None else tensor[rows] for tensor in self)


class SequenceLosses(NamedTuple):
    """What a batch costs.

    Attributes:
        loss: Float (), the weighted mean over steps of the mean over sequences, in nats a frame, with the heads'.
        steps: Float (t,), the mean over sequences of each step's pixel loss, without gradient.
        heads: Float (), the heads' share of ``loss``, without gradient.
        gammas: Float (b, t, k, h, w), the responsibilities for a grouping score; None unless asked for.
        state: The slots after the last step.
    """

    loss: Tensor
    steps: Tensor
    heads: Tensor
    gammas: Tensor | None
    state: SlotState


class SequenceLoss(nn.Module):
    """Unrolls a model over sequences and adds up its losses.

    It is a module so that distributed wrappers, which act on ``forward``, can hold it.
    """

    def __init__(self, model: WorldModel, pixels: LossConfig, heads: HeadLossConfig) -> None:
        super().__init__()
        self.model = model
        self.pixels = pixels
        self.heads = heads

    def forward(
        self,
        state: SlotState,
        batch: SequenceBatch,
        step_weights: Float[Tensor, " t"],
        with_gammas: bool = False,
    ) -> SequenceLosses:
        """Computes the loss.

        Args:
            state: The slots before the first frame.
            batch: The sequences.
            step_weights: Weight of each step.
            with_gammas: Whether to return the responsibilities.
        """
        losses: list[Tensor] = []
        head_losses: list[Tensor] = []
        gammas: list[Tensor] = []
        frames, shown = batch.frames, batch.frames[:, 0]
        for step in range(frames.shape[1] - 1):
            seen = shown if batch.flips is None else apply_flips(shown, batch.flips[:, step])
            actions = None if batch.actions is None else batch.actions[:, step]
            transition = self.model.predict(state, seen, actions)
            target = frames[:, step + 1]
            state = self.model.update(transition, target)
            loss = training_loss(transition.logits, transition.prediction, state.gamma, target, self.pixels)
            losses.append(loss.mean())
            if with_gammas:
                gammas.append(state.gamma[:, :, 0])
            if transition.heads is not None:
                head_losses.append(self._head_loss(transition.heads, batch, step))
            shown = target
            own = _own(batch.own_frames, step + 1)
            if own is not None:
                drawn = em.binarised_prediction(transition.prediction.detach(), em.BINARY_THRESHOLD)
                shown = torch.where(own[:, None, None, None], drawn, target)
                state = self.model.update(transition, shown)
        steps = torch.stack(losses)
        total = (steps * step_weights).sum() / step_weights.sum()
        heads = steps.new_zeros(())
        if head_losses:
            heads = (torch.stack(head_losses) * step_weights).sum() / step_weights.sum()
        return SequenceLosses(
            total + heads,
            steps.detach(),
            heads.detach(),
            torch.stack(gammas, dim=1) if with_gammas else None,
            state,
        )

    def _head_loss(self, heads: HeadOutput, batch: SequenceBatch, step: int) -> Tensor:
        loss = heads.termination.new_zeros(())
        if batch.rewards is not None:
            error = heads.rewards.sum(dim=1) - batch.rewards[:, step]
            loss = loss + self.heads.reward_weight * error.square().mean()
        if batch.terminations is not None:
            ends = F.binary_cross_entropy_with_logits(heads.termination, batch.terminations[:, step])
            loss = loss + self.heads.termination_weight * ends
        return loss


def _own(own_frames: Tensor | None, step: int) -> Tensor | None:
    if own_frames is None or step >= own_frames.shape[1] or not bool(own_frames[:, step].any()):
        return None
    return own_frames[:, step]


def draw_own_frames(
    batch_size: int, steps: int, fraction: float, longest: int, generator: torch.Generator
) -> Bool[Tensor, "b t"]:
    """Draws where short closed loops lie: at most one a sequence, of 1 to ``longest`` frames, never at step 0.

    Args:
        batch_size: Number of sequences.
        steps: Number of steps.
        fraction: Probability that a sequence has one.
        longest: Most frames of one.
        generator: Draws them; its device is the result's.
    """
    device = generator.device
    has_one = torch.rand(batch_size, generator=generator, device=device) < fraction
    start = torch.randint(1, max(steps, 2), (batch_size,), generator=generator, device=device)
    length = torch.randint(1, longest + 1, (batch_size,), generator=generator, device=device)
    step: Int64[Tensor, " t"] = torch.arange(steps, device=device)
    inside = (step >= start[:, None]) & (step < (start + length)[:, None])
    return inside & has_one[:, None]

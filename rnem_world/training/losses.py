"""The training loss of a batch of sequences."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from rnem_world.device import send
from rnem_world.models.config import LossConfig
from rnem_world.models.heads import ClassHeads, HeadOutput, shares_of_values
from rnem_world.models.world_model import SlotState, WorldModel
from rnem_world.training.config import HeadLossConfig, PriorCodeConfig
from rnem_world.training.imagination import ImaginationLosses, imagination_losses


class SequenceBatch(NamedTuple):
    """What a model is unrolled over: t transitions of b sequences.

    Tensors are on the model's device. Which sequences and steps are special is drawn on the host, in NumPy arrays: the
    loss then knows what to compute without waiting for the device.

    Attributes:
        frames: Float (b, t + 1, c, h, w) in [0, 1], without noise.
        noise: (b, t, c, h, w), as the likelihood draws it for the inputs: bits that flip; None for no noise.
        actions: Int64 (b, t); None for a model without actions.
        rewards: Float (b, t); None for a model without heads.
        terminations: Float (b, t), 1 where the episode ends; None for a model without heads or data without them.
        own_frames: Bool (b, t), where the model is shown its own frame in black and white in place of the real one;
            never at 0. None shows real frames alone.
        expected_codes: Bool (b, t), where the slots see what the prior code expects of their own frame: part of
            ``own_frames``. None nowhere.
        imagined: Float (b,), the weight of each sequence in the prior code's loss; those that have one are imagined to
            train it. They are 1 on average over the batches of all processes. None trains it on none.
        imagined_before: Int64 (b,), frames of latent imagination before those by which the prior code is trained.
            None begins all at the first frame.
        head_weights: Float (b,), of each sequence in the heads' losses, where some are drawn more often than others;
            None for 1 everywhere.
        begins: Bool (b, t), where the step's target is the first frame of an episode: the slots begin anew there. None
            if none is.
        weights: Float (b, t), of each sequence in a step's losses, 1 on average over the batches of all processes: 0
            where an episode begins, for nothing leads there. None for 1 everywhere.
    """

    frames: Tensor
    noise: Tensor | None = None
    actions: Tensor | None = None
    rewards: Tensor | None = None
    terminations: Tensor | None = None
    own_frames: Bool[np.ndarray, "b t"] | None = None
    expected_codes: Bool[np.ndarray, "b t"] | None = None
    imagined: Float32[np.ndarray, " b"] | None = None
    imagined_before: Int64[np.ndarray, " b"] | None = None
    head_weights: Float[Tensor, " b"] | None = None
    begins: Bool[np.ndarray, "b t"] | None = None
    weights: Float32[Tensor, "b t"] | None = None

    def rows(self, rows: slice) -> SequenceBatch:
        """Takes some of the sequences."""
        return SequenceBatch._make(None if array is None else array[rows] for array in self)


class SequenceLosses(NamedTuple):
    """What a batch costs.

    Attributes:
        loss: Float (), the weighted mean over steps of the mean over sequences, in nats a frame, with the heads' and
            the prior code's.
        steps: Float (t,), the mean over sequences of each step's pixel loss, without gradient.
        heads: Float (), the heads' share of ``loss``, without gradient.
        prior: Float (), the prior code's share, without gradient.
        gammas: Float (b, t, k, h, w), the responsibilities for a grouping score; None unless asked for.
        state: The slots after the last step.
    """

    loss: Tensor
    steps: Tensor
    heads: Tensor
    prior: Tensor
    gammas: Tensor | None
    state: SlotState


class SequenceLoss(nn.Module):
    """Unrolls a model over sequences and adds up its losses.

    It is a module so that distributed wrappers, which act on ``forward``, can hold it.
    """

    def __init__(
        self,
        model: WorldModel,
        pixels: LossConfig,
        heads: HeadLossConfig,
        prior_code: PriorCodeConfig | None = None,
    ) -> None:
        super().__init__()
        self.prior_code = prior_code or PriorCodeConfig()
        self.model = model
        self.pixels = pixels
        self.heads = heads

    def forward(
        self,
        state: SlotState,
        batch: SequenceBatch,
        step_weights: Float[Tensor, " t"],
        with_gammas: bool = False,
        first: SlotState | None = None,
    ) -> SequenceLosses:
        """Computes the loss.

        Args:
            state: The slots before the first frame.
            batch: The sequences.
            step_weights: Weight of each step.
            with_gammas: Whether to return the responsibilities.
            first: The slots before the first frame of an episode, where any begins within; None takes ``state``.
        """
        first = state if first is None else first
        losses: list[Tensor] = []
        head_losses: list[Tensor] = []
        gammas: list[Tensor] = []
        likelihood = self.model.likelihood
        frames, shown = batch.frames, batch.frames[:, 0]
        before = state.theta
        prior = imagined_heads = frames.new_zeros(())
        own_frames = _Mask(batch.own_frames, frames.device)
        expected_codes = _Mask(batch.expected_codes, frames.device)
        begins = _Mask(batch.begins, frames.device)
        if batch.imagined is not None and batch.imagined.any():
            learned = self._imagine(state, batch)
            prior, imagined_heads = self.prior_code.weight * learned.codes, learned.heads
        for step in range(frames.shape[1] - 1):
            seen = likelihood.add_noise(shown, None if batch.noise is None else batch.noise[:, step])
            actions = None if batch.actions is None else batch.actions[:, step]
            expects = expected_codes.at(step)
            if expects is None:
                transition = self.model.predict(state, seen, actions)
            else:
                expected = self.model.expect(before, state.theta)
                code = torch.where(expects[:, None, None], expected, self.model.encode(state, seen))
                transition = self.model.predict_from(state.theta, code, actions, seen)
            before = state.theta
            target = frames[:, step + 1]
            state = self.model.update(transition, target)
            loss = likelihood.training_loss(
                transition.logits, transition.prediction, state.gamma, target, self.pixels, frames[:, step]
            )
            losses.append(_weighted_mean(loss, batch.weights, step))
            if with_gammas:
                gammas.append(state.gamma[:, :, 0])
            if transition.heads is not None:
                head_loss = self._head_loss(transition.heads, batch, step)
                head_losses.append(_weighted_mean(head_loss, batch.weights, step))
            shown = target
            own = own_frames.at(step + 1)
            if own is not None:
                drawn = likelihood.own_frame(transition.prediction.detach())
                shown = torch.where(own[:, None, None, None], drawn, target)
                state = self.model.update(transition, shown)
            anew = begins.at(step)
            if anew is not None:
                state = state.where(anew, first)
        steps = torch.stack(losses)
        total = (steps * step_weights).sum() / step_weights.sum()
        heads = steps.new_zeros(())
        if head_losses:
            heads = (torch.stack(head_losses) * step_weights).sum() / step_weights.sum() + imagined_heads
        return SequenceLosses(
            total + heads + prior,
            steps.detach(),
            heads.detach(),
            prior.detach(),
            torch.stack(gammas, dim=1) if with_gammas else None,
            state,
        )

    def _imagine(self, state: SlotState, batch: SequenceBatch) -> ImaginationLosses:
        """Imagines the sequences that train the prior code, and the heads if these shall learn from it."""
        size = len(batch.frames)
        weights = np.ones(size, np.float32) if batch.imagined is None else batch.imagined
        before = np.zeros(size, np.int64) if batch.imagined_before is None else batch.imagined_before
        chosen = weights.nonzero()[0]
        rows = send(torch.from_numpy(chosen), state.theta.device)
        judge = None
        if self.heads.imagined_weight > 0.0:
            rewards, ends, own = (
                None if tensor is None else tensor[rows]
                for tensor in (batch.rewards, batch.terminations, batch.head_weights)
            )
            earned = SequenceBatch(batch.frames, rewards=rewards, terminations=ends, head_weights=own)

            # What an episode earns that has ended meanwhile isn't what the dream earns.
            lasts = None
            if batch.begins is not None:
                over = np.logical_or.accumulate(batch.begins[chosen], axis=1)
                lasts = send(torch.from_numpy(1.0 - over.astype(np.float32)), rows.device)

            def judge(heads: HeadOutput, step: int) -> Tensor:
                loss = self.heads.imagined_weight * self._head_loss(heads, earned, step)
                return loss if lasts is None else lasts[:, step] * loss

        return imagination_losses(
            self.model,
            state.rows(rows),
            batch.frames[rows, 0],
            None if batch.actions is None else batch.actions[rows],
            min(self.prior_code.steps, batch.frames.shape[1] - 1),
            weights[chosen] / np.float32(size),
            before[chosen],
            judge,
        )

    def _head_loss(self, heads: HeadOutput, batch: SequenceBatch, step: int) -> Float[Tensor, " b"]:
        loss = torch.zeros_like(heads.termination)
        if batch.rewards is not None:
            loss = loss + self.heads.reward_weight * self._reward_error(heads, batch.rewards[:, step])
        if batch.terminations is not None:
            ends = F.binary_cross_entropy_with_logits(
                heads.termination, batch.terminations[:, step], reduction="none"
            )
            loss = loss + self.heads.termination_weight * ends
        return loss if batch.head_weights is None else batch.head_weights * loss

    def _reward_error(self, heads: HeadOutput, rewards: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The cross-entropy of the reward's value; of a reward that is told as a number the squared error."""
        if heads.classes is None or not isinstance(self.model.heads, ClassHeads):
            return (heads.rewards.sum(dim=1) - rewards).square()
        targets = shares_of_values(rewards, self.model.heads.values)
        return F.cross_entropy(heads.classes, targets, reduction="none")


def _weighted_mean(
    losses: Float[Tensor, " b"], weights: Float[Tensor, "b t"] | None, step: int
) -> Float[Tensor, ""]:
    return losses.mean() if weights is None else (losses * weights[:, step]).mean()


class _Mask:
    """A mask of sequences and steps, known to the host and the device; None is empty."""

    def __init__(self, mask: Bool[np.ndarray, "b t"] | None, device: torch.device) -> None:
        self._steps: list[bool] = [] if mask is None else np.asarray(mask.any(axis=0)).tolist()
        self._tensor = send(torch.from_numpy(mask), device) if mask is not None and any(self._steps) else None

    def at(self, step: int) -> Bool[Tensor, " b"] | None:
        """The sequences of a step; None if there are none."""
        if self._tensor is None or step >= len(self._steps) or not self._steps[step]:
            return None
        return self._tensor[:, step]


def without_beginnings(
    own_frames: Bool[np.ndarray, "b t"], is_first: Bool[np.ndarray, "b t"]
) -> Bool[np.ndarray, "b t"]:
    """Ends closed loops where an episode begins: what comes then can't be dreamt.

    Args:
        own_frames: Where they lie, from :func:`draw_own_frames`.
        is_first: Where the frame of that step begins an episode.
    """
    return own_frames & ~np.logical_or.accumulate(own_frames & is_first, axis=1)


def draw_own_frames(
    batch_size: int, steps: int, fraction: float, longest: int, generator: torch.Generator
) -> Bool[np.ndarray, "b t"]:
    """Draws where short closed loops lie: at most one a sequence, of 1 to ``longest`` frames, never at step 0.

    Args:
        batch_size: Number of sequences.
        steps: Number of steps.
        fraction: Probability that a sequence has one.
        longest: Most frames of one.
        generator: Draws them, on the host.
    """
    has_one = torch.rand(batch_size, generator=generator) < fraction
    start = torch.randint(1, max(steps, 2), (batch_size,), generator=generator)
    length = torch.randint(1, longest + 1, (batch_size,), generator=generator)
    step = torch.arange(steps)
    inside = (step >= start[:, None]) & (step < (start + length)[:, None])
    return (inside & has_one[:, None]).numpy()

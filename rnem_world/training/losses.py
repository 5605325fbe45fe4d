"""The training loss of a batch of sequences."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from rnem_world.device import send
from rnem_world.models.config import LossConfig
from rnem_world.models.cores import HeadOutput
from rnem_world.models.world_model import SlotState, WorldModel
from rnem_world.training.config import HeadLossConfig, PriorCodeConfig


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
        prior = frames.new_zeros(())
        own_frames = _Mask(batch.own_frames, frames.device)
        expected_codes = _Mask(batch.expected_codes, frames.device)
        begins = _Mask(batch.begins, frames.device)
        if batch.imagined is not None and batch.imagined.any():
            options = self.prior_code
            prior = options.weight * prior_code_loss(self.model, state, batch, options.steps)
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
            heads = (torch.stack(head_losses) * step_weights).sum() / step_weights.sum()
        return SequenceLosses(
            total + heads + prior,
            steps.detach(),
            heads.detach(),
            prior.detach(),
            torch.stack(gammas, dim=1) if with_gammas else None,
            state,
        )

    def _head_loss(self, heads: HeadOutput, batch: SequenceBatch, step: int) -> Float[Tensor, " b"]:
        loss = torch.zeros_like(heads.termination)
        if batch.rewards is not None:
            error = heads.rewards.sum(dim=1) - batch.rewards[:, step]
            loss = loss + self.heads.reward_weight * error.square()
        if batch.terminations is not None:
            ends = F.binary_cross_entropy_with_logits(
                heads.termination, batch.terminations[:, step], reduction="none"
            )
            loss = loss + self.heads.termination_weight * ends
        return loss


def prior_code_loss(
    model: WorldModel, state: SlotState, batch: SequenceBatch, steps: int
) -> Float[Tensor, ""]:
    """Compares latent imagination with imagination in pixels, from the same slots under the same actions.

    Args:
        model: A model with a prior code.
        state: The slots before the first frame; no gradient flows into them.
        batch: The sequences; those that ``imagined`` gives a weight are used, and only their first frames and their
            actions.
        steps: Frames to imagine.

    Returns:
        The squared errors of the codes and of the slots that they lead to, each mean over all, the sequences with
        their weights. It has a gradient for the prior code's weights alone.
    """
    size, device = state.theta.shape[0], state.theta.device
    imagined = np.ones(size, np.float32) if batch.imagined is None else batch.imagined
    chosen = imagined.nonzero()[0]
    rows = send(torch.from_numpy(chosen), device)
    weights = send(torch.from_numpy(imagined[chosen] / size), device)
    core = model.core
    frozen = {name: parameter.detach() for name, parameter in core.named_parameters()}
    with torch.no_grad():
        frame = batch.frames[rows, 0]
        slots = state.rows(rows)
        code = model.encode(slots, frame)
    theta, expected = slots.theta, code
    losses: list[Tensor] = []
    for step in range(min(steps, batch.frames.shape[1] - 1)):
        actions = None if batch.actions is None else batch.actions[rows, step]
        with torch.no_grad():
            transition = model.predict_from(slots.theta, code, actions, frame)
            frame = model.likelihood.own_frame(transition.prediction)
            slots = model.update(transition, frame)
            code = model.encode(slots, frame)
            action = model.embed(actions, theta.shape[1])
        before = theta
        theta = functional_call(core, frozen, (theta, expected, action)).theta
        expected = model.expect(before, theta)
        errors = (expected - code).square().mean(dim=(1, 2)) + (theta - slots.theta).square().mean(dim=(1, 2))
        losses.append((weights * errors).sum())
    return torch.stack(losses).mean()


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

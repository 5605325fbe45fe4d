"""The losses of R-NEM, per step and per sequence, in nats summed over slots and pixels.

They stand with the models, and not with the training, because the evaluation reports them too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rnem_world.models.config import LossConfig

# The original clips means to [1e-6, 1 - 1e-6] before taking logarithms; in logits that is this far from 0.
LOGIT_LIMIT = math.log((1.0 - 1e-6) / 1e-6)
# The cross-entropy of a dark pixel that is predicted as dark as the clip allows.
OFF_LIMIT = -math.log1p(-1e-6)


class LossTerms(NamedTuple):
    """A loss and its two terms, each Float (b,), in nats a frame.

    Attributes:
        total: intra + inter_weight * inter.
        intra: Cross-entropy of the frame under the slots, weighted by responsibility.
        inter: Divergence of the slots from the prior where they are not responsible.
    """

    total: Tensor
    intra: Tensor
    inter: Tensor


def cross_entropy(logits: Float[Tensor, "*s"], target: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Binary cross-entropy of each pixel, from logits, with means clipped to [1e-6, 1 - 1e-6]."""
    clipped = logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
    return F.softplus(clipped) - target * clipped


def prior_divergence(logits: Float[Tensor, "*s"], prior: float) -> Float[Tensor, "*s"]:
    """KL(Bernoulli(prior) || Bernoulli(sigmoid(logits))) of each pixel, clipped as the original does."""
    off = F.softplus(logits.clamp(max=LOGIT_LIMIT))
    if prior == 0.0:
        return off
    on = F.softplus(-logits.clamp(min=-LOGIT_LIMIT))
    return prior * (math.log(prior) + on) + (1.0 - prior) * (math.log1p(-prior) + off)


def _sum(values: Tensor) -> Tensor:
    return values.flatten(1).sum(dim=1)


def slot_losses(
    logits: Float[Tensor, "b k c h w"],
    gamma: Float[Tensor, "b k 1 h w"],
    target: Float[Tensor, "b c h w"],
    config: LossConfig,
    mask: Float[Tensor, "b #c #h #w"] | None = None,
) -> LossTerms:
    """The loss of R-NEM: sum_k gamma_k BCE(mu_k, x) + (1 - gamma_k) KL(prior || mu_k).

    Args:
        logits: The slots' predictions.
        gamma: Responsibilities after the E-step on ``target``; constants to the gradient.
        target: The frame that was to be predicted.
        config: The weights.
        mask: Pixels to count, for the relational loss, or their weights; None counts all.
    """
    gamma = gamma.detach()
    target = target[:, None].expand_as(logits)
    intra = gamma * cross_entropy(logits, target)
    inter = (1.0 - gamma) * prior_divergence(logits, config.pixel_prior)
    if mask is not None:
        intra, inter = intra * mask[:, None], inter * mask[:, None]
    intra, inter = _sum(intra), _sum(inter)
    return LossTerms(intra + config.inter_weight * inter, intra, inter)


def upper_bound_losses(
    logits: Float[Tensor, "b k c h w"],
    target: Float[Tensor, "b c h w"],
    config: LossConfig,
    mask: Float[Tensor, "b #c #h #w"] | None = None,
) -> LossTerms:
    """The original's upper bound, which needs no E-step: one frame, the brightest slot at each pixel.

    Its inter-slot term counts every pixel in full, as in the original.
    """
    brightest = logits.amax(dim=1)
    intra = cross_entropy(brightest, target)
    inter = prior_divergence(brightest, config.pixel_prior)
    if mask is not None:
        intra, inter = intra * mask, inter * mask
    intra, inter = _sum(intra), _sum(inter)
    return LossTerms(intra + config.inter_weight * inter, intra, inter)


class _SlotLoss(torch.autograd.Function):
    """The total of :func:`slot_losses` for prior 0, with its gradient written out.

    With prior 0 both terms need the same softplus, and the gradient of their sum is mu - gamma * x (for an
    inter_weight of 1), which autograd would take a dozen passes over the pixels to find.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        logits: Tensor,
        prediction: Tensor,
        gamma: Tensor,
        target: Tensor,
        inter_weight: float,
        weights: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(logits, prediction, gamma, target)
        ctx.weights = weights  # type: ignore[attr-defined]
        ctx.inter_weight = inter_weight  # type: ignore[attr-defined]
        off = F.softplus(logits.clamp(max=LOGIT_LIMIT))
        clipped = logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        intra = gamma * (off.clamp(min=OFF_LIMIT) - target[:, None] * clipped)
        loss = intra + inter_weight * (1.0 - gamma) * off
        return _sum(loss if weights is None else loss * weights[:, None])

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        logits, prediction, gamma, target = ctx.saved_tensors  # type: ignore[attr-defined]
        weight: float = ctx.inter_weight  # type: ignore[attr-defined]
        scale = 1.0 if weight == 1.0 else gamma + weight * (1.0 - gamma)
        gradient = scale * prediction - gamma * target[:, None]
        # Where a mean is clipped the cross-entropy has no gradient; the divergence's own, there at most 1e-6 or
        # clipped as well, is left out with it.
        gradient = gradient.masked_fill_(logits.abs() > LOGIT_LIMIT, 0.0)
        weights: Tensor | None = ctx.weights  # type: ignore[attr-defined]
        if weights is not None:
            gradient *= weights[:, None]
        return gradient * gradients[0][:, None, None, None, None], None, None, None, None, None


def training_loss(
    logits: Float[Tensor, "b k c h w"],
    prediction: Float[Tensor, "b k c h w"],
    gamma: Float[Tensor, "b k 1 h w"],
    target: Float[Tensor, "b c h w"],
    config: LossConfig,
    before: Float[Tensor, "b c h w"] | None = None,
) -> Float[Tensor, " b"]:
    """The total of :func:`slot_losses` by the shortest way, and with ``config.motion_weight``.

    Args:
        logits: The slots' predictions; the gradient flows through these alone.
        prediction: The sigmoid of ``logits``, which the caller has at hand.
        gamma: Responsibilities after the E-step on ``target``.
        target: The frame that was to be predicted.
        config: The weights.
        before: The true frame before ``target``, where its motion is to be weighted.

    Returns:
        The loss of each sequence in nats.
    """
    weights = None
    if before is not None and config.motion_weight != 1.0:
        weights = 1.0 + (config.motion_weight - 1.0) * (target - before).abs()
    if config.pixel_prior != 0.0:
        return slot_losses(logits, gamma, target, config, weights).total
    loss: Tensor = _SlotLoss.apply(  # type: ignore[no-untyped-call]
        logits, prediction.detach(), gamma, target, config.inter_weight, weights
    )
    return loss

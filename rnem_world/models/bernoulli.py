"""The paper's pixels: bits, with the loss of R-NEM."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from rnem_world.models.config import LossConfig
from rnem_world.models.likelihood import Frames, Gamma, Likelihood, LossTerms, Maps, Mask

# Keeps a pixel that no slot explains from having no owner at all.
EPSILON = 1e-6
# The original clips means to [1e-6, 1 - 1e-6] before taking logarithms; in logits that is this far from 0.
LOGIT_LIMIT = math.log((1.0 - EPSILON) / EPSILON)
# The cross-entropy of a dark pixel that is predicted as dark as the clip allows.
OFF_LIMIT = -math.log1p(-EPSILON)
# The original's rollouts take a pixel for occupied when some slot's mean exceeds this ...
SOFT_THRESHOLD = 0.1
# ... and a world model's imagination when the slots' means add up to more than this.
HARD_THRESHOLD = 0.4


class Bernoulli(Likelihood):
    """The paper's pixels: each channel is a bit, and the decoder draws the logit of each slot's mean.

    Args:
        channels: Channels of a frame.
        sees_motion: Whether slots see their part of the frame, gamma * x, and of the motion, gamma * (x - previous x),
            beside the paper's masked error, gamma * (x - mu).
        initial_mean: What slots predict before the first frame.
    """

    def __init__(self, channels: int, sees_motion: bool = False, initial_mean: float = 0.0) -> None:
        super().__init__()
        self.channels = self.maps = channels
        self.sees_motion = sees_motion
        self.is_binary = True
        self.inputs = channels * (3 if sees_motion else 1)
        self.initial_mean = initial_mean

    def predict(self, logits: Maps) -> Maps:
        """Gives the means."""
        return torch.sigmoid(logits)

    def means(self, prediction: Maps) -> Float[Tensor, "*b k c h w"]:
        """Gives the means, which are all there is."""
        return prediction

    def initial_prediction(self, batch_size: int, slots: int, size: tuple[int, int], like: Tensor) -> Maps:
        """Gives every pixel the same mean."""
        return like.new_full((batch_size, slots, self.channels, *size), self.initial_mean)

    def initial_frame(self, batch_size: int, size: tuple[int, int], like: Tensor) -> Frames | None:
        """Gives black frames if slots see motion."""
        return like.new_zeros(batch_size, self.channels, *size) if self.sees_motion else None

    def slot_inputs(
        self, frame: Frames, prediction: Maps, gamma: Gamma, previous: Frames | None
    ) -> Float[Tensor, "*b k i h w"]:
        """Gives the masked error, with motion also the slot's part of the frame and of its change."""
        gamma = gamma.detach()
        error = (frame.unsqueeze(-4) - prediction) * gamma
        if previous is None:
            return error
        return torch.cat(
            [error, gamma * frame.unsqueeze(-4), gamma * (frame - previous).unsqueeze(-4)], dim=-3
        )

    @torch.no_grad()
    def e_step(self, prediction: Maps, frame: Frames) -> Gamma:
        """Computes gamma_k proportional to the product over channels of x mu_k + (1 - x)(1 - mu_k) + 1e-6.

        The original adds the channels' likelihoods up, which is right only for one.
        """
        frame = frame.unsqueeze(-4)
        # x mu + (1 - x)(1 - mu), with fewer passes over the slots.
        likelihood = prediction * (2 * frame - 1) + (1 - frame) + EPSILON
        if self.channels > 1:
            return torch.softmax(likelihood.log().sum(dim=-3, keepdim=True), dim=-4)
        return likelihood / likelihood.sum(dim=-4, keepdim=True)

    def soft_gamma(self, prediction: Maps) -> Gamma:
        """Makes the E-step on the frame that is 1 where some slot's mean exceeds 0.1."""
        return self.e_step(prediction, (prediction.amax(dim=-4) > SOFT_THRESHOLD).to(prediction.dtype))

    def own_frame(self, prediction: Maps) -> Frames:
        """Draws in black and white: 1 where the slots' means add up to more than 0.4."""
        return (self.soft_frame(prediction) > HARD_THRESHOLD).to(prediction.dtype)

    def soft_frame(self, prediction: Maps) -> Frames:
        """Adds up the slots' means, at most to 1.

        The loss is least where mu_k = gamma_k x: the means of slots that share a pixel add up to it, while each alone
        may be faint.
        """
        return prediction.sum(dim=-4).clamp(max=1.0)

    def mix(self, prediction: Maps, gamma: Gamma) -> Frames:
        """Adds up gamma_k mu_k."""
        return (prediction * gamma).sum(dim=-4)

    def object_weights(self, prediction: Maps, gamma: Gamma) -> Float[Tensor, "*b k h w"]:
        """Gives gamma times the brightest channel's mean; gamma alone means nothing where all is dark."""
        return gamma.squeeze(-3) * prediction.amax(dim=-3)

    def foreground(self, frames: Frames) -> Bool[Tensor, "*b h w"]:
        """Finds the pixels with a channel that is on."""
        return (frames > 0.5).any(dim=-3)

    def differ(self, frames: Frames, others: Frames) -> Bool[Tensor, "*b h w"]:
        """Finds the pixels with a channel that is on in one alone."""
        return (frames != others).any(dim=-3)

    def slot_losses(
        self, logits: Maps, gamma: Gamma, target: Frames, config: LossConfig, mask: Mask | None = None
    ) -> LossTerms:
        """The loss of R-NEM: sum_k gamma_k BCE(mu_k, x) + (1 - gamma_k) KL(prior || mu_k)."""
        gamma = gamma.detach()
        intra = gamma * _cross_entropy(logits, target[:, None])
        inter = (1.0 - gamma) * _prior_divergence(logits, config.pixel_prior)
        return _terms(intra, inter, config, None if mask is None else mask[:, None])

    def upper_bound_losses(
        self, logits: Maps, target: Frames, config: LossConfig, mask: Mask | None = None
    ) -> LossTerms:
        """One frame, the brightest slot at each pixel; the inter-slot term counts every pixel in full."""
        brightest = logits.amax(dim=1)
        intra = _cross_entropy(brightest, target)
        return _terms(intra, _prior_divergence(brightest, config.pixel_prior), config, mask)

    def training_loss(
        self,
        logits: Maps,
        prediction: Maps,
        gamma: Gamma,
        target: Frames,
        config: LossConfig,
        before: Frames | None = None,
    ) -> Float[Tensor, " b"]:
        """For prior 0, its gradient is written out; see :class:`Likelihood`."""
        weights = None
        if before is not None and config.motion_weight != 1.0:
            weights = 1.0 + (config.motion_weight - 1.0) * (target - before).abs()
        if config.pixel_prior != 0.0:
            return self.slot_losses(logits, gamma, target, config, weights).total
        loss: Tensor = _SlotLoss.apply(  # type: ignore[no-untyped-call]
            logits, prediction.detach(), gamma, target, config.inter_weight, weights
        )
        return loss

    def frame_loss(self, expected: Frames, frame: Frames) -> Float[Tensor, "*b"]:
        """Computes the cross-entropy under means clipped to [1e-6, 1 - 1e-6]."""
        means = expected.clamp(EPSILON, 1 - EPSILON)
        return -(frame * means.log() + (1 - frame) * torch.log1p(-means)).sum(dim=(-3, -2, -1))

    def draw_noise(
        self,
        shape: torch.Size,
        strength: float | Tensor,
        generator: torch.Generator | None,
        device: torch.device,
    ) -> Bool[Tensor, "..."] | None:
        """Draws which bits flip; the strength is the probability of that."""
        if isinstance(strength, float) and strength == 0.0:
            return None
        return torch.rand(shape, generator=generator, device=device) < strength

    def add_noise(self, frames: Float[Tensor, "*s"], noise: Tensor | None) -> Float[Tensor, "*s"]:
        """Flips bits: x + n - 2 x n."""
        return frames if noise is None else torch.where(noise, 1.0 - frames, frames)

    def quantise(self, frames: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Makes frames black and white: white above one half."""
        return (frames > 0.5).to(frames.dtype)


def _cross_entropy(logits: Float[Tensor, "*s"], target: Float[Tensor, "..."]) -> Float[Tensor, "*s"]:
    """Binary cross-entropy of each pixel, from logits, with means clipped to [1e-6, 1 - 1e-6]."""
    clipped = logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
    return F.softplus(clipped) - target * clipped


def _prior_divergence(logits: Float[Tensor, "*s"], prior: float) -> Float[Tensor, "*s"]:
    """KL(Bernoulli(prior) || Bernoulli(sigmoid(logits))) of each pixel, clipped as the original does."""
    off = F.softplus(logits.clamp(max=LOGIT_LIMIT))
    if prior == 0.0:
        return off
    on = F.softplus(-logits.clamp(min=-LOGIT_LIMIT))
    return prior * (math.log(prior) + on) + (1.0 - prior) * (math.log1p(-prior) + off)


def _sum(values: Tensor) -> Tensor:
    return values.flatten(1).sum(dim=1)


def _terms(intra: Tensor, inter: Tensor, config: LossConfig, mask: Tensor | None) -> LossTerms:
    """Adds up over all axes but the first."""
    if mask is not None:
        intra, inter = intra * mask, inter * mask
    intra, inter = _sum(intra), _sum(inter)
    return LossTerms(intra + config.inter_weight * inter, intra, inter)


class _SlotLoss(torch.autograd.Function):
    """The total of :meth:`Bernoulli.slot_losses` for prior 0, with its gradient written out.

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

"""What a pixel is: everything that the model, its losses and its environments assume about frames.

Frames are Float (b, c, h, w) in [0, 1]. ``logits`` is what the decoder draws of each slot, ``prediction`` what that
means, ``gamma`` each slot's responsibility for a pixel. Only a :class:`Likelihood` looks into the first two; the rest
of the program hands them on. gamma is a constant to the gradient wherever it is used (Greff et al., 2017).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from rnem_world.models.config import LossConfig

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

Frames = Float[Tensor, "*b c h w"]
Maps = Float[Tensor, "*b k m h w"]
Gamma = Float[Tensor, "*b k 1 h w"]
Mask = Float[Tensor, "b #c #h #w"]


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


class Likelihood(nn.Module, ABC):
    """What a pixel is, and all that follows: noise, what slots see, the E-step, losses, the model's own frame.

    It is a module so that a kind may have parameters, such as a background.

    Attributes:
        channels: Channels of a frame.
        inputs: Maps that a slot sees of a frame.
        maps: Maps that the decoder draws of a slot.
        sees_motion: Whether slots see the frame before as well, which their state then keeps.
        is_binary: Whether a pixel is on or off.
    """

    channels: int
    inputs: int
    maps: int
    sees_motion: bool
    is_binary: bool

    def prepare(self, frames: Float[Tensor, "n c h w"]) -> None:  # most kinds have nothing to prepare
        """Looks at some frames of the training data before training begins."""

    @abstractmethod
    def predict(self, logits: Maps) -> Maps:
        """Turns what the decoder draws into what it means, from which all else follows."""

    @abstractmethod
    def means(self, prediction: Maps) -> Float[Tensor, "*b k c h w"]:
        """Gives each slot's means, to be looked at."""

    @abstractmethod
    def initial_prediction(self, batch_size: int, slots: int, size: tuple[int, int], like: Tensor) -> Maps:
        """Gives what slots predict before the first frame, with ``like``'s device and dtype."""

    def initial_gamma(
        self,
        batch_size: int,
        slots: int,
        size: tuple[int, int],
        generator: torch.Generator | None,
        device: torch.device | str,
    ) -> Gamma:
        """Draws the responsibilities before the first frame: |N(0, 1)|, normalised over the slots; 1 for one slot."""
        if slots == 1:
            return torch.ones(batch_size, 1, 1, *size, device=device)
        noise = torch.randn(batch_size, slots, 1, *size, generator=generator, device=device).abs()
        return noise / noise.sum(dim=1, keepdim=True)

    @abstractmethod
    def initial_frame(self, batch_size: int, size: tuple[int, int], like: Tensor) -> Frames | None:
        """Gives the frame before the first; None if slots don't see motion."""

    @abstractmethod
    def slot_inputs(
        self, frame: Frames, prediction: Maps, gamma: Gamma, previous: Frames | None
    ) -> Float[Tensor, "*b k i h w"]:
        """Gives what each slot sees of a frame.

        Args:
            frame: The frame.
            prediction: What was predicted of it.
            gamma: The responsibilities for it.
            previous: The frame before, as :meth:`initial_frame` gives the first one.
        """

    @abstractmethod
    def e_step(self, prediction: Maps, frame: Frames) -> Gamma:
        """Computes the responsibilities for a frame. No gradient flows."""

    @abstractmethod
    def soft_gamma(self, prediction: Maps) -> Gamma:
        """Estimates the responsibilities without a frame, as the original's rollouts do."""

    @abstractmethod
    def own_frame(self, prediction: Maps) -> Frames:
        """Draws the model's own frame, made hard: as it sees it when it imagines."""

    @abstractmethod
    def soft_frame(self, prediction: Maps) -> Frames:
        """Draws the expectation of the frame."""

    @abstractmethod
    def mix(self, prediction: Maps, gamma: Gamma) -> Frames:
        """Mixes the slots' means into one frame by the responsibilities given: sum_k gamma_k mu_k."""

    @abstractmethod
    def object_weights(self, prediction: Maps, gamma: Gamma) -> Float[Tensor, "*b k h w"]:
        """Says how much of an object each slot has in each pixel, to find where its object is."""

    @abstractmethod
    def foreground(self, frames: Frames) -> Bool[Tensor, "*b h w"]:
        """Finds the pixels that show something."""

    @abstractmethod
    def differ(self, frames: Frames, others: Frames) -> Bool[Tensor, "*b h w"]:
        """Finds the pixels in which frames differ visibly from others."""

    @abstractmethod
    def slot_losses(
        self, logits: Maps, gamma: Gamma, target: Frames, config: LossConfig, mask: Mask | None = None
    ) -> LossTerms:
        """Computes the loss and its terms.

        Args:
            logits: What the decoder drew of the slots.
            gamma: Responsibilities after the E-step on ``target``; constants to the gradient.
            target: The frame that was to be predicted.
            config: The weights; ``motion_weight`` isn't used.
            mask: Pixels to count, for the relational loss, or their weights; None counts all.
        """

    @abstractmethod
    def upper_bound_losses(
        self, logits: Maps, target: Frames, config: LossConfig, mask: Mask | None = None
    ) -> LossTerms:
        """Computes the original's upper bound, which needs no E-step; as :meth:`slot_losses` otherwise."""

    @abstractmethod
    def training_loss(
        self,
        logits: Maps,
        prediction: Maps,
        gamma: Gamma,
        target: Frames,
        config: LossConfig,
        before: Frames | None = None,
    ) -> Float[Tensor, " b"]:
        """Computes the total of :meth:`slot_losses` by the shortest way, and with ``config.motion_weight``.

        Args:
            logits: What the decoder drew of the slots; the gradient flows through these alone.
            prediction: What it means, which the caller has at hand.
            gamma: Responsibilities after the E-step on ``target``.
            target: The frame that was to be predicted.
            config: The weights.
            before: The true frame before ``target``, where its motion is to be weighted.

        Returns:
            The loss of each sequence in nats.
        """

    @abstractmethod
    def frame_loss(self, expected: Frames, frame: Frames) -> Float[Tensor, "*b"]:
        """Computes how many nats a frame costs under a single frame of means."""

    @abstractmethod
    def draw_noise(
        self,
        shape: torch.Size,
        strength: float | Tensor,
        generator: torch.Generator | None,
        device: torch.device,
    ) -> Tensor | None:
        """Draws the noise of some frames, for :meth:`add_noise`.

        Args:
            shape: Shape of the frames.
            strength: How strong: one for all, or a tensor that broadcasts to ``shape``.
            generator: Draws it, on the device.
            device: Where.

        Returns:
            As large as the frames; None if the strength is 0.
        """

    @abstractmethod
    def add_noise(self, frames: Float[Tensor, "*s"], noise: Tensor | None) -> Float[Tensor, "*s"]:
        """Makes frames noisy; None leaves them as they are."""

    @abstractmethod
    def quantise(self, frames: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Makes frames from elsewhere such as the model knows."""

    def noisy(
        self, frames: Float[Tensor, "*s"], strength: float, generator: torch.Generator | None
    ) -> Float[Tensor, "*s"]:
        """Draws noise and adds it."""
        return self.add_noise(frames, self.draw_noise(frames.shape, strength, generator, frames.device))

    @staticmethod
    def from_uint8(frames: UInt8[Tensor, "*s"], maximum_value: int = 255) -> Float[Tensor, "*s"]:
        """Turns stored frames, whose white pixels have ``maximum_value``, into floats in [0, 1]."""
        floats = frames.to(torch.float32)
        return floats if maximum_value == 1 else floats / maximum_value

    def to_uint8(self, frames: Float[Tensor, "*s"]) -> UInt8[Tensor, "*s"]:
        """Turns floats in [0, 1] into bytes of 0 to 255."""
        return (frames * 255.0).round().to(torch.uint8)


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

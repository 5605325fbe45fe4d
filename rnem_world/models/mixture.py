"""Pixels of colours or greys: a mixture of what the slots draw and of a background that stays as it is."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from rnem_world.models.config import LossConfig
from rnem_world.models.likelihood import Frames, Gamma, Likelihood, LossTerms, Maps, Mask

# Pixels this far apart, over all channels, are told apart: one colour is not the other.
DIFFERENCE = 0.24
# Added to the logits of masks, so that the background has nearly everything at first.
FIRST_MASK = -2.0
# Log share of all slots together in a pixel of the first frame, beside a background that fits it.
FIRST_SHARE = -4.5
# Stands in for the frame before the first; no pixel comes near it.
UNSEEN = -1e3

Share = Float[Tensor, "*b 1 1 h w"]


class Mixture(Likelihood):
    """A pixel is drawn by one of the slots or by the background, in its colour, up to a deviation.

    The decoder draws ``channels + 1`` maps of a slot: the logit of its mask, and the logits of its means. A prediction
    has the mask's logit and the means. The background's mask has the logit 0.

    Args:
        channels: Channels of a frame.
        size: Height and width.
        initial_mean: What slots predict before the first frame.
        deviation: Sigma, the standard deviation of a pixel from the mean of its slot, in each channel.
    """

    def __init__(
        self, channels: int, size: tuple[int, int], initial_mean: float = 0.5, deviation: float = 0.12
    ) -> None:
        super().__init__()
        self.channels = channels
        self.maps = channels + 1
        self.inputs = 3 * channels + 1
        self.sees_motion = True
        self.is_binary = False
        self.initial_mean = initial_mean
        self.deviation, self.precision = deviation, 1.0 / deviation**2
        self.background = nn.Parameter(torch.full((channels, *size), 0.5))

    @torch.no_grad()
    def prepare(self, frames: Float[Tensor, "n c h w"]) -> None:
        """Takes each pixel's median over some frames for the background."""
        self.background.copy_(frames.to(self.background.dtype).median(dim=0).values)

    def predict(self, logits: Maps) -> Maps:
        """Gives the masks' logits and the means."""
        masks, means = self._split(logits)
        return torch.cat([masks + FIRST_MASK, torch.sigmoid(means)], dim=-3)

    def means(self, prediction: Maps) -> Float[Tensor, "*b k c h w"]:
        """Gives the means, also where a slot has no share."""
        return self._split(prediction)[1]

    def initial_prediction(self, batch_size: int, slots: int, size: tuple[int, int], like: Tensor) -> Maps:
        """Gives every slot the same mean and a mask that nobody looks at."""
        return like.new_full((batch_size, slots, self.maps, *size), self.initial_mean)

    def initial_frame(self, batch_size: int, size: tuple[int, int], like: Tensor) -> Frames | None:
        """Marks that there is none: the first frame stands for the one before it."""
        return like.new_full((batch_size, self.channels, *size), UNSEEN)

    @torch.no_grad()
    def slot_inputs(
        self, frame: Frames, prediction: Maps, gamma: Gamma, previous: Frames | None
    ) -> Float[Tensor, "*b k i h w"]:
        """Gives gamma (x - mu), gamma x, gamma (x - previous x) and gamma. No gradient flows.

        At the first frame, the slots' random responsibilities are shared with the background: what it explains is its.
        """
        motion = torch.zeros_like(frame)
        if previous is not None:
            begins = previous[..., :1, :1, :1] == UNSEEN
            motion = torch.where(begins, motion, frame - previous)
            slots = torch.sigmoid(FIRST_SHARE - self._log_background(frame))
            gamma = gamma * torch.where(begins.unsqueeze(-4), slots, torch.ones_like(slots))
        means = self.means(prediction)
        parts = [
            frame.unsqueeze(-4) - means,
            frame.unsqueeze(-4).expand_as(means),
            motion.unsqueeze(-4).expand_as(means),
            torch.ones_like(gamma),
        ]
        return torch.cat(parts, dim=-3) * gamma

    @torch.no_grad()
    def e_step(self, prediction: Maps, frame: Frames) -> Gamma:
        """Computes gamma proportional to the share times N(x; mu, sigma^2), the background's rest left out."""
        gamma, _ = _normalised(self._log_slots(prediction, frame), self._log_background(frame))
        return gamma

    def soft_gamma(self, prediction: Maps) -> Gamma:
        """Gives the slots' shares."""
        masks = self._split(prediction)[0]
        return _normalised(masks, torch.zeros_like(masks[..., :1, :, :, :]))[0].detach()

    def own_frame(self, prediction: Maps) -> Frames:
        """Draws the mean of the slot with the largest share, or the background where that has more than half."""
        masks, means = self._split(prediction)
        best = masks.argmax(dim=-4, keepdim=True).expand_as(means[..., :1, :, :, :])
        drawn = means.gather(-4, best).squeeze(-4)
        covered = masks.logsumexp(dim=-4) > 0.0
        return torch.where(covered, drawn, self.background.expand_as(drawn))

    def soft_frame(self, prediction: Maps) -> Frames:
        """Mixes slots and background by their shares."""
        return self.mix(prediction, self.soft_gamma(prediction))

    def mix(self, prediction: Maps, gamma: Gamma) -> Frames:
        """Adds up gamma_k mu_k, and the background where slots leave room."""
        rest = 1.0 - gamma.sum(dim=-4)
        return (self.means(prediction) * gamma).sum(dim=-4) + rest * self.background

    def object_weights(self, prediction: Maps, gamma: Gamma) -> Float[Tensor, "*b k h w"]:
        """Gives gamma: what isn't an object is the background's."""
        return gamma.squeeze(-3)

    def foreground(self, frames: Frames) -> Bool[Tensor, "*b h w"]:
        """Finds the pixels that the background is far from."""
        return self.differ(frames, self.background.expand_as(frames))

    def differ(self, frames: Frames, others: Frames) -> Bool[Tensor, "*b h w"]:
        """Finds the pixels that are further apart than two deviations."""
        return (frames - others).square().sum(dim=-3) > DIFFERENCE**2

    def slot_losses(
        self, logits: Maps, gamma: Gamma, target: Frames, config: LossConfig, mask: Mask | None = None
    ) -> LossTerms:
        """The negative logarithm of sum_k pi_k N(x; mu_k, sigma^2), without its constant; there is no inter-slot term.

        gamma is not looked at: that of the E-step follows from the logits.
        """
        prediction = self.predict(logits)
        masks = self._split(prediction)[0]
        shares = _normalised(masks, torch.zeros_like(masks[:, :1]))[1]
        evidence = _normalised(self._log_slots(prediction, target), self._log_background(target))[1]
        nats = (shares - evidence).squeeze(1)
        total = (nats if mask is None else nats * mask.amax(dim=1, keepdim=True)).flatten(1).sum(dim=1)
        return LossTerms(total, total, torch.zeros_like(total))

    def upper_bound_losses(
        self, logits: Maps, target: Frames, config: LossConfig, mask: Mask | None = None
    ) -> LossTerms:
        """The loss itself: a mixture needs no E-step for it, so nothing stands above."""
        return self.slot_losses(logits, logits[:, :, :1], target, config, mask)

    def training_loss(
        self,
        logits: Maps,
        prediction: Maps,
        gamma: Gamma,
        target: Frames,
        config: LossConfig,
        before: Frames | None = None,
    ) -> Float[Tensor, " b"]:
        """Its gradient is written out; see :class:`Likelihood`. The background learns too."""
        weights = None
        if before is not None and config.motion_weight != 1.0:
            motion = (target - before).abs().amax(dim=1, keepdim=True)
            weights = 1.0 + (config.motion_weight - 1.0) * motion
        loss: Tensor = _MixtureLoss.apply(  # type: ignore[no-untyped-call]
            logits, self.background, prediction.detach(), gamma.detach(), target, weights, self.precision
        )
        return loss

    def frame_loss(self, expected: Frames, frame: Frames) -> Float[Tensor, "*b"]:
        """Computes the squared error over 2 sigma^2."""
        return (expected - frame).square().sum(dim=(-3, -2, -1)) * (0.5 * self.precision)

    def draw_noise(
        self,
        shape: torch.Size,
        strength: float | Tensor,
        generator: torch.Generator | None,
        device: torch.device,
    ) -> Float[Tensor, "..."] | None:
        """Draws what is added to each value; the strength is its standard deviation."""
        if isinstance(strength, float) and strength == 0.0:
            return None
        return torch.randn(shape, generator=generator, device=device) * strength

    def add_noise(self, frames: Float[Tensor, "*s"], noise: Tensor | None) -> Float[Tensor, "*s"]:
        """Adds it; values may then lie outside [0, 1]."""
        return frames if noise is None else frames + noise

    def quantise(self, frames: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Leaves frames as they are, within [0, 1]."""
        return frames.clamp(0.0, 1.0)

    def to_uint8(self, frames: Float[Tensor, "*s"]) -> UInt8[Tensor, "*s"]:
        """Turns floats into bytes of 0 to 255; the background may have learned to lie outside [0, 1]."""
        return super().to_uint8(frames.clamp(0.0, 1.0))

    def _split(self, maps: Maps) -> tuple[Float[Tensor, "*b k 1 h w"], Float[Tensor, "*b k c h w"]]:
        return maps[..., :1, :, :], maps[..., 1:, :, :]

    def _log_slots(self, prediction: Maps, frame: Frames) -> Float[Tensor, "*b k 1 h w"]:
        """Gives log pi N(x; mu, sigma^2) of the slots, up to terms that all have in common."""
        masks, means = self._split(prediction)
        distances = (means - frame.unsqueeze(-4)).square().sum(dim=-3, keepdim=True)
        return masks - (0.5 * self.precision) * distances

    def _log_background(self, frame: Frames) -> Share:
        """The same of the background."""
        distances = (self.background - frame).square().sum(dim=-3, keepdim=True)
        return (-0.5 * self.precision) * distances.unsqueeze(-4)


def _normalised(slots: Float[Tensor, "*b k 1 h w"], background: Share) -> tuple[Gamma, Share]:
    """Gives the slots' shares and the logarithm of the sum of all, from the logarithms of all."""
    most = torch.maximum(slots.amax(dim=-4, keepdim=True), background).detach()
    shares = (slots - most).exp()
    total = shares.sum(dim=-4, keepdim=True) + (background - most).exp()
    return shares / total, total.log() + most


class _MixtureLoss(torch.autograd.Function):
    """The total of :meth:`Mixture.slot_losses` with its gradient written out.

    The gradient is that of EM with gamma held constant: pi_k - gamma_k for a mask's logit, gamma_k (mu_k - x) / sigma^2
    for a mean. What autograd would keep of a dozen passes over the slots' pixels isn't made.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        logits: Tensor,
        background: Tensor,
        prediction: Tensor,
        gamma: Tensor,
        target: Tensor,
        weights: Tensor | None,
        precision: float,
    ) -> Tensor:
        masks, means = prediction[:, :, :1], prediction[:, :, 1:]
        pi, shares = _normalised(masks, torch.zeros_like(masks[:, :1]))
        errors = means - target[:, None]
        slots = torch.add(masks, errors.square().sum(dim=2, keepdim=True), alpha=-0.5 * precision)
        behind = background - target
        rest = (-0.5 * precision) * behind.square().sum(dim=1, keepdim=True)[:, None]
        nats = shares - torch.logaddexp(slots.logsumexp(dim=1, keepdim=True), rest)
        ctx.save_for_backward(pi, gamma, means, errors, behind)
        ctx.weights, ctx.precision = weights, precision  # type: ignore[attr-defined]
        losses = nats if weights is None else nats * weights[:, None]
        return losses.flatten(1).sum(dim=1)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pi, gamma, means, errors, behind = ctx.saved_tensors  # type: ignore[attr-defined]
        scale = gradients[0][:, None, None, None, None]
        weights: Tensor | None = ctx.weights  # type: ignore[attr-defined]
        precision: float = ctx.precision  # type: ignore[attr-defined]
        if weights is not None:
            scale = scale * weights[:, None]
        of_masks = (pi - gamma) * scale
        of_means = (gamma * (scale * precision)) * errors * means * (1.0 - means)
        rest = 1.0 - gamma.sum(dim=1)
        of_background = (rest * (scale[:, 0] * precision) * behind).sum(dim=0)
        return torch.cat([of_masks, of_means], dim=2), of_background, *([None] * 5)

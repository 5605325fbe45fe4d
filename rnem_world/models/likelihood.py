"""What a pixel is: everything that the model, its losses and its environments assume about frames.

Frames are Float (b, c, h, w) in [0, 1]. ``logits`` is what the decoder draws of each slot, ``prediction`` what that
means, ``gamma`` each slot's responsibility for a pixel. Only a :class:`Likelihood` looks into the first two; the rest
of the program hands them on. gamma is a constant to the gradient wherever it is used (Greff et al., 2017).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from rnem_world.models.config import LossConfig

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

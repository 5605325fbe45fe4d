"""Expectation maximisation over pixels: pure functions of predictions, frames and responsibilities.

Frames are Bernoulli variables in [0, 1]. ``prediction`` holds each slot's means, ``gamma`` each slot's
responsibility for a pixel; gamma is a constant to the gradient wherever it is used (Greff et al., 2017).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

# Keeps a pixel that no slot explains from having no owner at all.
EPSILON = 1e-6
# The original's rollouts take a pixel for occupied when some slot's mean exceeds this ...
SOFT_THRESHOLD = 0.1
# ... and a world model's imagination when the slots' means add up to more than this.
BINARY_THRESHOLD = 0.4


def masked_error(
    frame: Float[Tensor, "b c h w"],
    prediction: Float[Tensor, "b k c h w"],
    gamma: Float[Tensor, "b k 1 h w"],
) -> Float[Tensor, "b k c h w"]:
    """Gives each slot the part of the prediction error that it is responsible for: gamma * (x - mu)."""
    return (frame[:, None] - prediction) * gamma.detach()


@torch.no_grad()
def e_step(
    prediction: Float[Tensor, "b k c h w"], frame: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b k 1 h w"]:
    """Computes the responsibilities: gamma_k proportional to x mu_k + (1 - x)(1 - mu_k).

    With several channels the likelihoods are summed over them, as the original does. No gradient flows.
    """
    frame = frame[:, None]
    # x mu + (1 - x)(1 - mu), with fewer passes over the slots.
    likelihood = prediction * (2 * frame - 1) + (1 - frame)
    likelihood = (
        likelihood.sum(dim=2, keepdim=True) + EPSILON if likelihood.shape[2] > 1 else likelihood + EPSILON
    )
    return likelihood / likelihood.sum(dim=1, keepdim=True)


def expected_frame(prediction: Float[Tensor, "b k c h w"]) -> Float[Tensor, "b c h w"]:
    """Adds up the slots' means, at most to 1.

    The loss is least where mu_k = gamma_k x: the means of slots that share a pixel add up to it, while each alone may
    be faint.
    """
    return prediction.sum(dim=1).clamp(max=1.0)


def own_frame(prediction: Float[Tensor, "b k c h w"]) -> Float[Tensor, "b c h w"]:
    """Draws the model's own frame in black and white: 1 where the slots' means add up to more than 0.4."""
    return (expected_frame(prediction) > BINARY_THRESHOLD).to(prediction.dtype)


def soft_gamma(prediction: Float[Tensor, "b k c h w"]) -> Float[Tensor, "b k 1 h w"]:
    """Estimates the responsibilities without a frame as the original's rollouts do.

    It is the E-step on the frame that is 1 where some slot's mean exceeds 0.1.
    """
    return e_step(prediction, (prediction.amax(dim=1) > SOFT_THRESHOLD).to(prediction.dtype))


def mixture_prediction(
    prediction: Float[Tensor, "b k c h w"], gamma: Float[Tensor, "b k 1 h w"]
) -> Float[Tensor, "b c h w"]:
    """Mixes the slots' means into one frame: sum_k gamma_k mu_k."""
    return (prediction * gamma).sum(dim=1)


def initial_gamma(
    batch_size: int,
    slots: int,
    height: int,
    width: int,
    generator: torch.Generator | None,
    device: torch.device | str,
) -> Float[Tensor, "b k 1 h w"]:
    """Draws the responsibilities before the first frame: |N(0, 1)|, normalised over the slots."""
    noise = torch.randn(batch_size, slots, 1, height, width, generator=generator, device=device).abs()
    return noise / noise.sum(dim=1, keepdim=True)

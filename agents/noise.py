"""Coloured noise: random sequences whose neighbouring entries resemble one another."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def coloured_noise(
    shape: tuple[int, ...], exponent: float, generator: torch.Generator
) -> Float[Tensor, "*s"]:
    """Draws standard normal numbers whose power falls with frequency f as f^-exponent along the last axis.

    The algorithm is that of Timmer & Koenig (1995), as in iCEM (Pinneri et al., 2020). 0 is white noise; the
    larger the exponent, the longer an action is held.

    Args:
        shape: Of the result; time last.
        exponent: At least 0.
        generator: Draws it; its device is the result's.

    Returns:
        Float32; every entry has mean 0 and variance 1.
    """
    steps, device = shape[-1], generator.device
    if exponent == 0.0 or steps == 1:
        return torch.randn(shape, generator=generator, device=device)
    frequencies = torch.fft.rfftfreq(steps, device=device)
    # The lowest frequency stands in for 0, at which the power would be infinite.
    scale = frequencies.clamp(min=1.0 / steps) ** (-exponent / 2.0)
    real, imaginary = torch.randn((2, *shape[:-1], len(scale)), generator=generator, device=device) * scale
    # Without an imaginary part, the constant and the highest term need its variance for themselves.
    edges = torch.zeros(len(scale), dtype=torch.bool, device=device)
    edges[0] = True
    edges[-1] = steps % 2 == 0
    real = torch.where(edges, real * 2.0**0.5, real)
    imaginary = torch.where(edges, torch.zeros_like(imaginary), imaginary)
    weights = torch.where(edges, 1.0, 2.0)
    variance = 2.0 * (weights * scale**2).sum() / steps**2
    noise: Tensor = torch.fft.irfft(torch.complex(real, imaginary), n=steps, dim=-1)
    noise /= variance.sqrt()
    return noise

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rnem_world.errors import ConfigError
from rnem_world.models.config import LossConfig
from rnem_world.models.likelihood import Bernoulli

BITS = Bernoulli(1)


def example(scale: float = 3.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(2, 3, 1, 6, 6, generator=generator, dtype=torch.float64)
    target = (torch.rand(2, 1, 6, 6, generator=generator) > 0.7).double()
    prediction = torch.sigmoid(logits)
    return logits, prediction, BITS.e_step(prediction, target), target


def written_out(logits: Tensor, gamma: Tensor, target: Tensor, prior: float) -> tuple[Tensor, Tensor]:
    """The two terms as the paper's program computes them, in means rather than logits."""
    mu, x = torch.sigmoid(logits), target[:, None]
    clipped = mu.clamp(1e-6, 1 - 1e-6)
    intra = gamma * -(x * clipped.log() + (1 - x) * (1 - clipped).log())
    on = (torch.tensor(prior) / mu.clamp(1e-6, 1e6)).clamp(1e-6, 1e6).log()
    off = ((1 - torch.tensor(prior)) / (1 - mu).clamp(1e-6, 1e6)).clamp(1e-6, 1e6).log()
    inter = (1 - gamma) * (prior * on + (1 - prior) * off)
    return intra.flatten(1).sum(1), inter.flatten(1).sum(1)


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("prior", [0.0, 0.2])
def test_terms_equal_the_written_out_formula_even_where_clipped(scale: float, prior: float) -> None:
    logits, _, gamma, target = example(scale)
    terms = BITS.slot_losses(logits, gamma, target, LossConfig(pixel_prior=prior, inter_weight=0.5))
    intra, inter = written_out(logits, gamma, target, prior)
    torch.testing.assert_close(terms.intra, intra)
    torch.testing.assert_close(terms.inter, inter)
    torch.testing.assert_close(terms.total, intra + 0.5 * inter)


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize("prior", [0.0, 0.2])
def test_training_loss_and_its_gradient_equal_the_plain_ones(
    scale: float, weight: float, prior: float
) -> None:
    logits, prediction, gamma, target = example(scale)
    config = LossConfig(inter_weight=weight, pixel_prior=prior)
    logits.requires_grad_()
    quick = BITS.training_loss(logits, prediction, gamma, target, config)
    plain = BITS.slot_losses(logits, gamma, target, config).total
    torch.testing.assert_close(quick, plain)
    upstream = torch.tensor([0.5, 2.0], dtype=torch.float64)
    (quick_gradient,) = torch.autograd.grad(quick, logits, upstream)
    (plain_gradient,) = torch.autograd.grad(plain, logits, upstream)
    # A mean below 1e-6 keeps a gradient of that size from the divergence; leaving it out is the only difference.
    torch.testing.assert_close(quick_gradient, plain_gradient, atol=4e-6, rtol=1e-9)


def test_one_slot_has_no_inter_loss() -> None:
    logits, _, _, target = example()
    terms = BITS.slot_losses(
        logits[:, :1], torch.ones(2, 1, 1, 6, 6, dtype=torch.float64), target, LossConfig()
    )
    assert terms.inter.abs().max() == 0


def test_a_mask_selects_pixels() -> None:
    logits, _, gamma, target = example()
    mask = torch.zeros(2, 1, 6, 6, dtype=torch.float64)
    mask[:, :, :3] = 1
    part = BITS.slot_losses(logits, gamma, target, LossConfig(), mask)
    crop = BITS.slot_losses(logits[:, :, :, :3], gamma[:, :, :, :3], target[:, :, :3], LossConfig())
    torch.testing.assert_close(part.total, crop.total)
    whole_frame = torch.ones(2, 1, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(
        BITS.upper_bound_losses(logits, target, LossConfig(), whole_frame).total,
        BITS.upper_bound_losses(logits, target, LossConfig()).total,
    )


def test_the_order_of_slots_does_not_matter() -> None:
    logits, _, gamma, target = example()
    order = [2, 0, 1]
    for first, second in zip(
        BITS.slot_losses(logits, gamma, target, LossConfig()),
        BITS.slot_losses(logits[:, order], gamma[:, order], target, LossConfig()),
        strict=True,
    ):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize(
    "options", [{"inter_weight": -1.0}, {"inter_weight": math.nan}, {"pixel_prior": 1.0}]
)
def test_senseless_weights_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        LossConfig(**options)


@pytest.mark.parametrize("prior", [0.0, 0.2])
def test_pixels_that_change_weigh_more(prior: float) -> None:
    logits, prediction, gamma, target = example()
    before = target.clone()
    before[:, :, :2] = 1.0 - before[:, :, :2]
    logits.requires_grad_()
    plain = LossConfig(pixel_prior=prior)
    weighted = BITS.training_loss(logits, prediction, gamma, target, LossConfig(1.0, prior, 4.0), before)
    changed = (target != before).double()
    moving = BITS.slot_losses(logits, gamma, target, plain, changed).total
    expected = BITS.slot_losses(logits, gamma, target, plain).total + 3.0 * moving
    torch.testing.assert_close(weighted, expected)
    (gradient,) = torch.autograd.grad(weighted.sum(), logits, retain_graph=True)
    (reference,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(gradient, reference, atol=2e-5, rtol=1e-9)
    unweighted = BITS.training_loss(logits, prediction, gamma, target, plain, before)
    torch.testing.assert_close(unweighted, BITS.slot_losses(logits, gamma, target, plain).total)
    with pytest.raises(ConfigError, match="motion_weight"):
        LossConfig(motion_weight=0.0)

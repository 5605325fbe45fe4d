from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from rnem_world.errors import ConfigError
from rnem_world.models.bernoulli import Bernoulli
from rnem_world.models.config import LossConfig

BITS = Bernoulli(1)


def random_slots(slots: int, channels: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.rand(2, slots, channels, 6, 6, generator=generator)
    frame = (torch.rand(2, channels, 6, 6, generator=generator) > 0.5).float()
    return prediction, frame


@settings(max_examples=25, deadline=None)
@given(slots=st.integers(1, 8), channels=st.integers(1, 3), seed=st.integers(0, 999))
def test_responsibilities_are_a_distribution_over_slots(slots: int, channels: int, seed: int) -> None:
    gamma = Bernoulli(channels).e_step(*random_slots(slots, channels, seed))
    assert gamma.min() >= 0
    torch.testing.assert_close(gamma.sum(dim=1), torch.ones(2, 1, 6, 6))


def test_e_step_follows_the_bernoulli_likelihood() -> None:
    prediction, frame = random_slots(3)
    gamma = BITS.e_step(prediction, frame)
    likelihood = torch.where(frame[:, None] == 1, prediction, 1 - prediction) + 1e-6
    torch.testing.assert_close(gamma, likelihood / likelihood.sum(1, keepdim=True))


@pytest.mark.parametrize("channels", [2, 3])
def test_channels_add_their_log_likelihoods(channels: int) -> None:
    prediction, frame = random_slots(3, channels=channels)
    expected = torch.zeros(2, 3, 1, 6, 6, dtype=torch.float64)
    for sequence, slot, row, column in itertools.product(range(2), range(3), range(6), range(6)):
        likelihood = 1.0
        for channel in range(channels):
            mean = float(prediction[sequence, slot, channel, row, column])
            is_on = bool(frame[sequence, channel, row, column])
            likelihood *= (mean if is_on else 1.0 - mean) + 1e-6
        expected[sequence, slot, 0, row, column] = likelihood
    expected /= expected.sum(dim=1, keepdim=True)
    gamma = Bernoulli(channels).e_step(prediction, frame)
    torch.testing.assert_close(gamma.double(), expected, atol=1e-6, rtol=1e-5)


def test_many_channels_leave_no_pixel_without_an_owner() -> None:
    gamma = Bernoulli(12).e_step(torch.zeros(1, 4, 12, 2, 2), torch.ones(1, 12, 2, 2))
    torch.testing.assert_close(gamma, torch.full_like(gamma, 0.25))


def test_a_pixel_that_no_slot_explains_is_shared() -> None:
    gamma = BITS.e_step(torch.zeros(1, 4, 1, 2, 2), torch.ones(1, 1, 2, 2))
    torch.testing.assert_close(gamma, torch.full_like(gamma, 0.25))


def test_no_gradient_flows_through_gamma() -> None:
    prediction, frame = random_slots(3)
    prediction.requires_grad_()
    gamma = BITS.e_step(prediction, frame)
    assert not gamma.requires_grad
    error = BITS.slot_inputs(frame, prediction, gamma.clone().requires_grad_(), None)
    (gradient,) = torch.autograd.grad(error.sum(), prediction)
    torch.testing.assert_close(gradient, -gamma)


def test_soft_gamma_needs_no_frame_and_thresholds_strictly() -> None:
    prediction = torch.tensor([[0.1, 0.05], [0.3, 0.1]]).view(
        1, 2, 1, 1, 2
    )  # pixel 0: 0.1, 0.3; pixel 1: 0.05, 0.1
    gamma = BITS.soft_gamma(prediction)
    bright = torch.tensor([0.1, 0.3]) + 1e-6
    dark = torch.tensor([0.95, 0.9]) + 1e-6
    torch.testing.assert_close(gamma[0, :, 0, 0, 0], bright / bright.sum())
    torch.testing.assert_close(gamma[0, :, 0, 0, 1], dark / dark.sum())


def test_means_of_slots_that_share_a_pixel_add_up_to_it() -> None:
    frame = random_slots(3)[1].round()
    gamma = torch.full((*frame.shape[:1], 4, *frame.shape[1:]), 0.25)
    optimum = gamma * frame[:, None]  # where the loss is least
    torch.testing.assert_close(BITS.soft_frame(optimum), frame)
    torch.testing.assert_close(BITS.own_frame(optimum), frame)
    assert BITS.soft_frame(torch.full((1, 3, 1, 2, 2), 0.9)).max() == 1.0


def test_own_frame_is_white_above_the_threshold_alone() -> None:
    prediction = torch.tensor([[0.4, 0.3, 0.0], [0.0, 0.2, 0.41]]).view(1, 2, 1, 1, 3)
    assert BITS.own_frame(prediction).flatten().tolist() == [0.0, 1.0, 1.0]


def test_initial_gamma_is_random_and_reproducible() -> None:
    def draw() -> torch.Tensor:
        return BITS.initial_gamma(2, 3, (4, 5), torch.Generator().manual_seed(1), "cpu")

    torch.testing.assert_close(draw(), draw())
    torch.testing.assert_close(draw().sum(1), torch.ones(2, 1, 4, 5))
    assert draw().std() > 0.1


def test_frames_of_bytes_come_back() -> None:
    stored = torch.tensor([[0, 1], [1, 0]], dtype=torch.uint8)
    frames = BITS.from_uint8(stored, 1)
    torch.testing.assert_close(BITS.from_uint8(stored * 255), frames)
    assert torch.equal(BITS.to_uint8(frames), stored * 255)
    assert BITS.to_uint8(torch.tensor([0.5, 1.0])).tolist() == [128, 255]
    assert BITS.quantise(torch.tensor([0.5, 0.51])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("leading", [(2,), (2, 3)])
def test_the_cross_entropy_of_frames_is_torchs(leading: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(7)
    prediction = torch.rand(*leading, 2, 5, 6, generator=generator)
    frames = torch.rand(*leading, 2, 5, 6, generator=generator).round()
    expected = F.binary_cross_entropy(prediction, frames, reduction="none").sum(dim=(-3, -2, -1))
    torch.testing.assert_close(BITS.frame_loss(prediction, frames), expected)


def test_cross_entropy_of_certain_and_wrong_predictions_is_clipped() -> None:
    prediction = torch.tensor([0.0, 1.0, 0.0, 1.0]).reshape(4, 1, 1, 1)
    frames = torch.tensor([0.0, 1.0, 1.0, 0.0]).reshape(4, 1, 1, 1)
    found = BITS.frame_loss(prediction, frames)
    assert found[:2].max() < 2e-6
    assert found[2:].tolist() == pytest.approx([13.8155, 13.8155], rel=0.01)


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

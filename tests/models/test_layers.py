from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rnem_world.models import layers as module
from rnem_world.models.layers import (
    Affine,
    MapNorm,
    ResizeConvolution,
    SameConvolution,
    VectorNorm,
    affine,
    has_onednn,
    own_precision,
    same_padding,
    suits_onednn,
)


def plain_resize_convolution(layer: ResizeConvolution, maps: torch.Tensor) -> torch.Tensor:
    resized = F.interpolate(maps, size=layer.output_size, mode="nearest")
    kernel = layer.weight.shape[2]
    before, after = (kernel - 1) // 2, kernel // 2
    return F.conv2d(F.pad(resized, (before, after, before, after)), layer.weight, layer.bias)


@pytest.mark.parametrize("outputs", [1, 3, 4, 16])
@pytest.mark.parametrize(
    ("kernel", "scale", "offset"),
    [(4, 2, 0), (8, 4, 0), (4, 2, 1), (3, 2, 0), (5, 2, 0), (4, 3, 0), (1, 2, 0)],
)
def test_folded_resize_convolution_equals_resize_then_convolve(
    outputs: int, kernel: int, scale: int, offset: int
) -> None:
    torch.manual_seed(0)
    layer = ResizeConvolution(3, outputs, kernel, scale, size=(5, 7), offset=offset).double()
    torch.nn.init.normal_(layer.bias)
    maps = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    folded, plain = layer(maps), plain_resize_convolution(layer, maps)
    torch.testing.assert_close(folded, plain)
    weight = torch.randn_like(plain)
    inputs = (maps, layer.weight, layer.bias)
    folded_gradients = torch.autograd.grad((folded * weight).sum(), inputs)
    plain_gradients = torch.autograd.grad((plain * weight).sum(), inputs)
    torch.testing.assert_close(folded_gradients, plain_gradients)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [(64, 4, 2, (1, 1)), (84, 8, 4, (2, 2)), (21, 4, 2, (1, 2)), (16, 4, 1, (1, 2)), (84, 8, 1, (3, 4))],
)
def test_same_padding_follows_tensorflow(
    size: int, kernel: int, stride: int, expected: tuple[int, int]
) -> None:
    assert same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 4, 2), (21, 4, 2), (20, 8, 4), (7, 3, 2)])
def test_same_convolution_pads_behind_when_uneven(size: int, kernel: int, stride: int) -> None:
    layer = SameConvolution(2, 3, kernel, stride, (size, size))
    maps = torch.randn(2, 2, size, size)
    before, after = same_padding(size, kernel, stride)
    expected = F.conv2d(F.pad(maps, (before, after, before, after)), layer.weight, layer.bias, stride)
    torch.testing.assert_close(layer(maps), expected)
    assert layer.output_size == expected.shape[2:] == (-(-size // stride),) * 2


@pytest.mark.parametrize("inputs", [2, 8])
def test_same_convolution_of_maps_that_are_no_squares(inputs: int) -> None:
    layer = SameConvolution(inputs, 3, 4, 2, (9, 16))
    maps = torch.randn(2, inputs, 9, 16)
    expected = F.conv2d(F.pad(maps, (1, 1, 1, 2)), layer.weight, layer.bias, 2)
    torch.testing.assert_close(layer(maps), expected)
    assert layer.output_size == (5, 8)


def test_map_norm_takes_statistics_over_channels_and_pixels_and_scales_channels() -> None:
    norm = MapNorm(3).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    maps = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    mean = maps.mean(dim=(1, 2, 3), keepdim=True)
    variance = maps.var(dim=(1, 2, 3), keepdim=True, unbiased=False)
    expected = (maps - mean) / (variance + 1e-12).sqrt()
    expected = expected * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(maps), expected)


def test_vector_norm_normalises_tiny_vectors_too() -> None:
    vector = torch.randn(2, 50, dtype=torch.float64) * 1e-4
    normed = VectorNorm(50).double()(vector)
    deviation = normed.std(dim=1, unbiased=False)
    torch.testing.assert_close(deviation, torch.ones(2, dtype=torch.float64), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(64, 4, 2), (84, 8, 4), (21, 4, 2)])
@pytest.mark.parametrize("inputs", [1, 3])
def test_convolution_by_blocks_has_the_same_gradients(
    size: int, kernel: int, stride: int, inputs: int
) -> None:
    layer = SameConvolution(inputs, 3, kernel, stride, (size, size)).double()
    assert layer.by_blocks
    maps = torch.randn(2, inputs, size, size, dtype=torch.float64, requires_grad=True)
    before, after = same_padding(size, kernel, stride)
    padded = F.pad(maps, (before, after, before, after))
    expected = F.conv2d(padded, layer.weight, layer.bias, stride)
    weight, leaves = torch.randn_like(expected), (maps, layer.weight, layer.bias)
    gradients = torch.autograd.grad((layer(maps) * weight).sum(), leaves)
    torch.testing.assert_close(gradients, torch.autograd.grad((expected * weight).sum(), leaves))


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the products that went to oneDNN."""
    if not has_onednn():
        pytest.skip("this PyTorch has no oneDNN")
    shapes: list[tuple[int, ...]] = []
    original = module._product

    def product(rows: Tensor, columns: Tensor, bias: Tensor | None = None) -> Tensor:
        shapes.append((*rows.shape, columns.shape[0]))
        return original(rows, columns, bias)

    monkeypatch.setattr(module, "_product", product)
    return shapes


def check(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    expected, result = F.linear(inputs, weight, bias), affine(inputs, weight, bias)
    torch.testing.assert_close(result, expected, atol=2e-4, rtol=1e-4)
    leaves = [leaf for leaf in (inputs, weight, bias) if leaf is not None and leaf.requires_grad]
    upstream = torch.randn_like(expected)
    for got, wanted in zip(
        torch.autograd.grad(result, leaves, upstream),
        torch.autograd.grad(expected, leaves, upstream),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("leading", [(80,), (16, 5), (4, 4, 5)])
def test_values_and_gradients_are_those_of_linear(
    leading: tuple[int, ...], with_bias: bool, products: list[tuple[int, ...]]
) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(*leading, 250, requires_grad=True)
    weight = torch.randn(120, 250, requires_grad=True)
    check(inputs, weight, torch.randn(120, requires_grad=True) if with_bias else None)
    assert products == [(80, 250, 120), (80, 120, 250), (120, 80, 250)]


def test_views_and_missing_gradients(products: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    columns = torch.randn(120, 500).split(250, dim=1)[1]
    check(torch.randn(250, 80).t().requires_grad_(), columns, None)
    check(torch.randn(80, 1, 250).expand(80, 3, 250), columns.clone().requires_grad_(), torch.randn(120))
    assert products == [(80, 250, 120), (80, 120, 250), (240, 250, 120), (120, 240, 250)]


@pytest.mark.parametrize(
    ("rows", "outputs", "dtype"),
    [(4, 500, torch.float32), (500, 1, torch.float32), (500, 500, torch.float64)],
)
def test_small_and_double_products_stay_with_linear(rows: int, outputs: int, dtype: torch.dtype) -> None:
    inputs, weight = torch.randn(rows, 500, dtype=dtype), torch.randn(outputs, 500, dtype=dtype)
    assert not suits_onednn(inputs, weight)
    assert torch.equal(affine(inputs, weight, None), F.linear(inputs, weight))


def test_a_new_layer_is_glorot_uniform_without_bias() -> None:
    layer = Affine(300, 100)
    assert layer.bias.abs().max() == 0
    limit = (6 / 400) ** 0.5
    assert 0.99 * limit < layer.weight.abs().max() <= limit


def test_on_a_graphics_card_evaluation_rounds_nothing(monkeypatch):
    """PyTorch by itself rounds convolutions there to TF32."""
    settings = torch.backends.cuda.matmul, torch.backends.cudnn
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    before = [setting.allow_tf32 for setting in settings]

    @own_precision
    def seen() -> list[bool]:
        return [setting.allow_tf32 for setting in settings]

    assert seen() == [False, False]
    assert [setting.allow_tf32 for setting in settings] == before
    assert before[1]

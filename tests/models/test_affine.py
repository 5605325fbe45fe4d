from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rnem_world.models import layers as module
from rnem_world.models.layers import Affine, affine, has_onednn, suits_onednn


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

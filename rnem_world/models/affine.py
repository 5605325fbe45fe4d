"""Fully connected layers by the quicker of the two matrix products that PyTorch has on a CPU."""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

# Multiplications below which a call costs more than the product.
FEWEST_PRODUCTS = 2**20
# oneDNN falls back to a very slow loop for some narrow matrices, and gains nothing on them.
SMALLEST_AXIS = 16


class _OneDNNAffine(torch.autograd.Function):
    """``x w' + b`` and its gradients, each as one oneDNN product."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, inputs: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return _product(inputs, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        needs: tuple[bool, ...] = ctx.needs_input_grad  # type: ignore[attr-defined]
        gradient = gradients[0].contiguous()
        return (
            _product(gradient, weight.t()) if needs[0] else None,
            _product(gradient.t(), inputs.t()) if needs[1] else None,
            gradient.sum(dim=0) if needs[2] else None,
        )


def _product(rows: Tensor, columns: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, columns, bias, "none", [], "")
    return product


@functools.cache
def has_onednn() -> bool:
    """Whether this PyTorch has oneDNN's linear operator, and it does what is expected of it.

    The operator is not part of PyTorch's public interface, so another release may have it otherwise or not at all.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    rows, columns = torch.eye(SMALLEST_AXIS), torch.arange(2.0 * SMALLEST_AXIS).view(2, SMALLEST_AXIS)
    try:
        product = _product(rows, columns, torch.ones(2))
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(product, columns.t() + 1.0)


def suits_onednn(inputs: Tensor, weight: Tensor) -> bool:
    """Whether a product should go to oneDNN: single precision on the CPU, and large enough."""
    outputs, width = weight.shape
    rows = inputs.numel() // width
    return (
        weight.device.type == "cpu"
        and inputs.dtype == weight.dtype == torch.float32
        and min(rows, outputs, width) >= SMALLEST_AXIS
        and rows * outputs * width >= FEWEST_PRODUCTS
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # which can't lower the operator for weights that change
        and has_onednn()
    )


def affine(
    inputs: Float[Tensor, "*n i"], weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"] | None
) -> Float[Tensor, "*n o"]:
    """Computes ``x w' + b`` for every row x.

    ``F.linear`` multiplies by MKL, which uses half the width of the vector units of some AMD processors; oneDNN,
    which PyTorch convolves with, knows them all.
    """
    if not suits_onednn(inputs, weight):
        return F.linear(inputs, weight, bias)
    # Where rows lie apart, oneDNN falls back to its slow loop too.
    rows = inputs.reshape(-1, inputs.shape[-1]).contiguous()
    outputs: Tensor = _OneDNNAffine.apply(rows, weight.contiguous(), bias)  # type: ignore[no-untyped-call]
    return outputs.view(*inputs.shape[:-1], weight.shape[0])


class Affine(nn.Linear):
    """A fully connected layer, with Glorot-uniform weights and zero biases."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias=bias)
        nn.init.xavier_uniform_(self.weight)
        if bias:
            nn.init.zeros_(self.bias)

    def forward(self, input: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        """Multiplies every row; see :func:`affine`."""
        return affine(input, self.weight, self.bias)

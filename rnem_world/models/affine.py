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
# Weights from which a layer goes to oneDNN where the number of rows may not matter.
FEWEST_WEIGHTS = 2**13


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


def suits_onednn(inputs: Tensor, weight: Tensor, by_weights: bool = False) -> bool:
    """Whether a product should go to oneDNN: single precision on the CPU, and large enough.

    Args:
        inputs: The rows.
        weight: The matrix.
        by_weights: Whether only the matrix may decide, not the number of rows.
    """
    outputs, width = weight.shape
    rows = inputs.numel() // width
    if by_weights:
        large = min(outputs, width) >= SMALLEST_AXIS and outputs * width >= FEWEST_WEIGHTS
    else:
        large = min(rows, outputs, width) >= SMALLEST_AXIS and rows * outputs * width >= FEWEST_PRODUCTS
    return (
        large
        and weight.device.type == "cpu"
        and inputs.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # which can't lower the operator for weights that change
        and has_onednn()
    )


def affine(
    inputs: Float[Tensor, "*n i"],
    weight: Float[Tensor, "o i"],
    bias: Float[Tensor, " o"] | None,
    by_weights: bool = False,
) -> Float[Tensor, "*n o"]:
    """Computes ``x w' + b`` for every row x.

    ``F.linear`` multiplies by MKL, which uses half the width of the vector units of some AMD processors; oneDNN,
    which PyTorch convolves with, knows them all.

    Args:
        inputs: The rows.
        weight: w.
        bias: b.
        by_weights: Whether only the weights choose the library; see :func:`choose_products_by_weights`.
    """
    if not suits_onednn(inputs, weight, by_weights):
        return F.linear(inputs, weight, bias)
    # Where rows lie apart, oneDNN falls back to its slow loop too.
    rows = inputs.reshape(-1, inputs.shape[-1]).contiguous()
    outputs: Tensor = _OneDNNAffine.apply(rows, weight.contiguous(), bias)  # type: ignore[no-untyped-call]
    return outputs.view(*inputs.shape[:-1], weight.shape[0])


class Affine(nn.Linear):
    """A fully connected layer, with Glorot-uniform weights and zero biases.

    Attributes:
        by_weights: See :func:`choose_products_by_weights`.
    """

    by_weights = False

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias=bias)
        nn.init.xavier_uniform_(self.weight)
        if bias:
            nn.init.zeros_(self.bias)

    def forward(self, input: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        """Multiplies every row; see :func:`affine`."""
        return affine(input, self.weight, self.bias, self.by_weights)


def choose_products_by_weights(model: nn.Module) -> None:
    """Lets every layer of a model use one library, however many rows it is given.

    The two libraries add up in different orders. With one of them a row's result doesn't depend on the rows beside
    it, as long as their number is a multiple of 4 and elementwise functions see whole vectors of 32 numbers (measured
    with MKL and oneDNN on an AMD processor). So a sequence goes the same way, bit for bit, in batches of any size.
    """
    for module in model.modules():
        if isinstance(module, Affine):
            module.by_weights = True

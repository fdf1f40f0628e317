"""Products with a frozen matrix on a CPU, by oneDNN.

torch multiplies float32 matrices by MKL, which uses AVX-512 on Intel's processors alone. oneDNN, which torch has too,
uses it on any processor that has it, in half the time on AMD's. torch itself calls it in compiled models, through the
operator that is used here. A frozen matrix has no gradient, so the backward pass is one more such product.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

SMALLEST = 256  # the fewest rows and columns of a matrix for which it is used: smaller ones gain little or nothing


def frozen_products(backbone: Any) -> AbstractContextManager[Any]:
    """Use oneDNN in the block for the large frozen matrices of a backbone in float32 on a CPU, and beside it."""
    embeddings = backbone.get_input_embeddings().weight
    return _FrozenProducts() if _suits(embeddings) else nullcontext()


class _FrozenProducts(TorchFunctionMode):
    """Replaces `F.linear` with a frozen matrix."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        if function is F.linear and not options:
            x, weight, *_ = arguments
            if x.dtype == torch.float32 and not weight.requires_grad and _suits(weight):
                return _FrozenProduct.apply(*arguments)
        return function(*arguments, **(options or {}))


class _FrozenProduct(torch.autograd.Function):
    """x W^T + b, with constants W and b."""

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "*batch C"], weight: Float[Tensor, "D C"], bias: Float[Tensor, " D"] | None = None
    ) -> Float[Tensor, "*batch D"]:
        ctx.save_for_backward(weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "*batch D"]) -> tuple[Float[Tensor, "*batch C"], None, None]:
        (weight,) = ctx.saved_tensors
        return _product(gradient, weight.T), None, None


def _suits(weight: Tensor) -> bool:
    return bool(
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and min(weight.shape) >= SMALLEST
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")
    return product

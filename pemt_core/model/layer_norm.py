"""A backbone's layer norms with scales that belong to the target."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pemt_core.backbone.families import family_of
from pemt_core.model.attachment import Change
from pemt_core.model.stacks import layer_norms


class TargetLayerNorm(nn.Module):
    """x / rms(x) * (offset + weight) in float32. It replaces a norm of the backbone, whose scale stays unchanged.

    `offset` is 0 in T5 and Llama, and 1 in Gemma, whose weights start from zero.
    """

    def __init__(
        self, base_layer: nn.Module, weight: Float[Tensor, " D"], *, epsilon: float, offset: float = 0.0
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.weight = nn.Parameter(weight)
        self.epsilon = epsilon
        self.offset = offset

    def forward(self, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        scale = self.offset + self.weight if self.offset else self.weight
        if x.is_cuda:  # one kernel
            return F.rms_norm(x.float(), scale.shape, scale, self.epsilon).to(x.dtype)
        read = x.float()
        normed: Tensor = _ScaledNorm.apply(read, read, scale, self.epsilon)
        return normed.to(x.dtype)


class _ScaledNorm(torch.autograd.Function):
    """x / rms(x) * scale, which keeps x for the backward pass but not x / rms(x), as torch's own operators do.

    Operations and their order are those of autograd on `rms_norm`, so gradients are equal to the bit. That is why x is
    given twice: its gradient has two parts, which are added to that of the residual stream one after the other.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "*batch D"], _: Float[Tensor, "*batch D"], scale: Float[Tensor, " D"], epsilon: float
    ) -> Float[Tensor, "*batch D"]:
        factor = (x.pow(2).mean(-1, keepdim=True) + epsilon).rsqrt()
        ctx.save_for_backward(x, scale, factor)
        return (x * factor).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Float[Tensor, "*batch D"]
    ) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch D"], Float[Tensor, " D"], None]:
        x, scale, factor = ctx.saved_tensors
        of_scale = (gradient * (x * factor)).sum(tuple(range(x.ndim - 1)))
        of_normed = gradient * scale
        of_factor = (of_normed * x).sum(-1, keepdim=True)
        of_mean = -0.5 * of_factor * factor.pow(3) / x.shape[-1]
        return of_normed.mul_(factor), (x * 2).mul_(of_mean), of_scale, None


def initial_scales(backbone: Any) -> dict[str, Tensor]:
    """The scale of every layer norm, the final ones included, by its name in the backbone's state dict; float32."""
    return {n: getattr(parent, name).weight.detach().clone().float() for n, parent, name in layer_norms(backbone)}


def trained_norms(backbone: Any, tensors: Mapping[str, Tensor]) -> Iterator[Change]:
    """Give every layer norm the scale in `tensors`."""
    norms = family_of(backbone).norms
    for name, parent, attribute in layer_norms(backbone):
        base_layer = getattr(parent, attribute)
        epsilon: float = getattr(base_layer, norms.epsilon)
        norm = TargetLayerNorm(base_layer, tensors[name], epsilon=epsilon, offset=float(norms.unit_offset))
        yield Change(parent, attribute, norm, {name: norm.weight})

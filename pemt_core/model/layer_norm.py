"""A backbone's layer norms with scales that belong to the target."""

from collections.abc import Iterator, Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
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
        normed = F.rms_norm(x.float(), self.weight.shape, eps=self.epsilon)
        scale = self.offset + self.weight if self.offset else self.weight
        return (scale * normed).to(x.dtype)


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

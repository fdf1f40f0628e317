"""T5's layer norm with a scale that belongs to the target."""

from collections.abc import Iterator, Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pemt_core.model.attachment import Change
from pemt_core.model.stacks import layer_norms


class TargetLayerNorm(nn.Module):
    """x / rms(x) * weight in float32. It replaces a T5LayerNorm, whose scale stays unchanged."""

    def __init__(self, base_layer: nn.Module, weight: Float[Tensor, " D"]) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.weight = nn.Parameter(weight)
        self.epsilon: float = base_layer.variance_epsilon  # type: ignore[assignment]

    def forward(self, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        normed = F.rms_norm(x.float(), self.weight.shape, eps=self.epsilon)
        return (self.weight * normed).to(x.dtype)


def initial_scales(backbone: Any) -> dict[str, Tensor]:
    """The scale of every layer norm, the two final ones included, by its name in the backbone's state dict."""
    return {n: getattr(parent, attribute).weight.detach().clone() for n, parent, attribute in layer_norms(backbone)}


def trained_norms(backbone: Any, tensors: Mapping[str, Tensor]) -> Iterator[Change]:
    """Give every layer norm the scale in `tensors`."""
    for name, parent, attribute in layer_norms(backbone):
        norm = TargetLayerNorm(getattr(parent, attribute), tensors[name])
        yield Change(parent, attribute, norm, {name: norm.weight})

"""T5's layer norm with a scale that belongs to the target."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


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

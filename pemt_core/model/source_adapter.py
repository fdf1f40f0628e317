"""The source adapter, which stage 1 trains in every layer, parallel to the feed-forward's `wo`."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class SourceAdaptedOutput(nn.Module):
    """wo(x) + s U V x, which replaces `wo` (method, stage 1). V is `down`, U is `up`, s is `scale`; no biases."""

    def __init__(
        self, base_layer: nn.Linear, down: Float[Tensor, "R F"], up: Float[Tensor, "D R"], *, scale: float
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(up)
        self.scale = scale

    @property
    def weight(self) -> Tensor:
        """T5 reads the dtype to compute in from `wo.weight`."""
        return self.base_layer.weight

    def forward(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B S D"]:
        adapted: Tensor = self.base_layer(x) + self.scale * F.linear(F.linear(x, self.down), self.up)
        return adapted

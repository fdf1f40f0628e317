"""The target adapter: a bottleneck with a skip connection, after the mixture in every layer."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class TargetAdapter(nn.Module):
    """y = h + W_up gelu_new(W_down h + b_down) + b_up (method, stage 2). W_down is D/16 x D in the paper."""

    def __init__(self, d_model: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(d_model, bottleneck)
        self.up = nn.Linear(bottleneck, d_model)

    def forward(self, h: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        adapted: Tensor = h + self.up(F.gelu(self.down(h), approximate="tanh"))
        return adapted


class AdaptedOutput(nn.Module):
    """The target adapter after a plain `wo`, for stage 2 without sources."""

    def __init__(self, base_layer: nn.Linear, adapter: TargetAdapter) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.adapter = adapter

    @property
    def weight(self) -> Tensor:
        return self.base_layer.weight

    def forward(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B S D"]:
        adapted: Tensor = self.adapter(self.base_layer(x))
        return adapted

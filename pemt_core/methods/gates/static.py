"""Learned weights that do not depend on the text: one logit per expert and layer."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pemt_core.model.signal import ForwardSignal
from pemt_core.model.stacks import FeedForward


class StaticGate(nn.Module):
    """g = softmax(w), the same for every sequence, shape (B, E); softmax in float32."""

    def __init__(self, weight: Float[Tensor, " E"]) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B E"]:
        return self.weight.float().softmax(dim=-1).expand(len(x), -1)


def initial_weight(place: FeedForward, num_experts: int) -> Float[Tensor, " E"]:
    """w = 0, so all experts weigh 1/E."""
    return torch.zeros(num_experts)


def build(place: FeedForward, weight: Tensor | None, num_experts: int, signal: ForwardSignal) -> nn.Module:
    assert weight is not None
    return StaticGate(weight)

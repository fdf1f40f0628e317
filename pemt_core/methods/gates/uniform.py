"""Equal weights: every expert counts 1/E in every layer, and nothing is trained."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pemt_core.model.signal import ForwardSignal
from pemt_core.model.stacks import FeedForward


class UniformGate(nn.Module):
    """g = 1/E, shape (B, E)."""

    def __init__(self, num_experts: int) -> None:
        super().__init__()
        self.num_experts = num_experts

    def forward(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B E"]:
        return torch.full((len(x), self.num_experts), 1 / self.num_experts, device=x.device)


def initial_weight(place: FeedForward, num_experts: int) -> None:
    """Return None: this gate has no weight."""


def build(place: FeedForward, weight: Tensor | None, num_experts: int, signal: ForwardSignal) -> nn.Module:
    return UniformGate(num_experts)

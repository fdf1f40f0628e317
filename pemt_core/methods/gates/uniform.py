"""Equal weights: every expert counts 1/E in every layer, and nothing is trained."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pemt_core.methods.gate_settings import GateSettings
from pemt_core.model.experts import FoldedExperts
from pemt_core.model.gate import Gate
from pemt_core.model.signal import ForwardSignal
from pemt_core.model.stacks import LinearPlace


class UniformGate(Gate):
    """g = 1/E, shape (B, E)."""

    def __init__(self, num_experts: int) -> None:
        super().__init__()
        self.num_experts = num_experts

    def weights(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B E"]:
        return torch.full((len(x), self.num_experts), 1 / self.num_experts, device=x.device)


def initial_tensors(
    places: Sequence[LinearPlace], num_experts: int, generator: torch.Generator, settings: GateSettings
) -> dict[str, Tensor]:
    return {}


def build(
    place: LinearPlace,
    parameters: Mapping[str, nn.Parameter],
    experts: FoldedExperts,
    signal: ForwardSignal,
    settings: GateSettings,
) -> UniformGate:
    return UniformGate(experts.num_experts)

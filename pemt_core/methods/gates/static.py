"""Learned weights that do not depend on the text: one logit per expert and layer."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pemt_core.methods.gate_settings import GateSettings
from pemt_core.model.experts import FoldedExperts
from pemt_core.model.gate import Gate
from pemt_core.model.signal import ForwardSignal
from pemt_core.model.stacks import LinearPlace


class StaticGate(Gate):
    """g = softmax(w), the same for every sequence, shape (B, E); softmax in float32."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight  # (E,)

    def weights(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B E"]:
        return self.weight.float().softmax(dim=-1).expand(len(x), -1)


def initial_tensors(
    places: Sequence[LinearPlace], num_experts: int, generator: torch.Generator, settings: GateSettings
) -> dict[str, Tensor]:
    """w = 0, so all experts weigh 1/E."""
    return {f"{place.key}.gate": torch.zeros(num_experts) for place in places}


def build(
    place: LinearPlace,
    parameters: Mapping[str, nn.Parameter],
    experts: FoldedExperts,
    signal: ForwardSignal,
    settings: GateSettings,
) -> StaticGate:
    return StaticGate(parameters[f"{place.key}.gate"])

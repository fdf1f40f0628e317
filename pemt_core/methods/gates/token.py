"""A gate per position, as in LoRA-Flow (arXiv 2402.11455): every position of every layer reads its own input of `wo`.

LoRA-Flow adds a bias per expert after the softmax (t5-base: 442,512 parameters instead of 442,368). It is left out, so
that the weights stay shares of a whole, as the task sparsity loss needs.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pemt_core.methods.gate_settings import GateSettings
from pemt_core.model.experts import FoldedExperts
from pemt_core.model.gate import LinearGate
from pemt_core.model.signal import ForwardSignal
from pemt_core.model.stacks import LinearPlace


class TokenGate(LinearGate):
    """g_t = softmax(x_t W), shape (B, S, E)."""

    def gate_input(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B S F"]:
        return x


def initial_tensors(
    places: Sequence[LinearPlace], num_experts: int, generator: torch.Generator, settings: GateSettings
) -> dict[str, Tensor]:
    """W = 0 (F, E), so all experts weigh 1/E."""
    return {f"{place.key}.gate": torch.zeros(place.layer.in_features, num_experts) for place in places}


def build(
    place: LinearPlace,
    parameters: Mapping[str, nn.Parameter],
    experts: FoldedExperts,
    signal: ForwardSignal,
    settings: GateSettings,
) -> TokenGate:
    return TokenGate(parameters[f"{place.key}.gate"], signal, normalised=settings.gate_input == "normalised")

"""ScaLearn (arXiv 2310.01217): the experts' outputs are scaled, channel by channel, by learned numbers, and added.

The published method also freezes the layer norms and has no target adapter. Its vector form has E D numbers per layer;
`omega: scalar` is its variant Uniform, with one number per expert and layer. The numbers are free, not shares, so the
task sparsity loss does not apply; reports show the mean of each expert's numbers.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pemt_core.methods.gate_settings import GateSettings
from pemt_core.model.experts import FoldedExperts
from pemt_core.model.gate import Gate, Mixed
from pemt_core.model.signal import ForwardSignal
from pemt_core.model.stacks import LinearPlace

STD, DROPOUT = 0.001, 0.3  # of omega: the published configuration


class ScaledOutputs(Gate):
    """wo(x) + sum_k omega_k * e_k, with omega_k in R^D or R. In training, numbers in omega are dropped out."""

    def __init__(self, omega: nn.Parameter) -> None:
        super().__init__()
        self.omega = omega  # (E, D) or (E, 1)

    def forward(self, x: Float[Tensor, "B S F"], experts: FoldedExperts) -> Mixed:
        omega = F.dropout(self.omega, DROPOUT, self.training).to(experts.up.dtype)
        channels = experts.channels(x)
        up = experts.up * self._per_rank(omega, experts)  # scaling e_k scales the rows of U_k
        shown = self.omega.float().mean(dim=-1).expand(len(x), -1)
        return Mixed(experts.base_layer(x) + F.linear(channels.flatten(-2), up), None, shown)

    @staticmethod
    def _per_rank(omega: Tensor, experts: FoldedExperts) -> Float[Tensor, "_ ER"]:
        return omega.T.repeat_interleave(len(experts.down) // experts.num_experts, dim=1)

    def merged(self, experts: FoldedExperts, weights: Float[Tensor, " E"]) -> Float[Tensor, "D F"]:
        """Exact: the numbers of each channel do not depend on the text."""
        return (experts.up * self._per_rank(self.omega, experts)) @ experts.down


def initial_tensors(
    places: Sequence[LinearPlace], num_experts: int, generator: torch.Generator, settings: GateSettings
) -> dict[str, Tensor]:
    """N(2/E, 0.001), as published: the mixture starts at twice the mean."""
    tensors = {}
    for place in places:
        size = place.layer.out_features if settings.omega == "vector" else 1
        start = torch.randn(num_experts, size, generator=generator)
        tensors[f"{place.key}.gate"] = 2 / num_experts + STD * start
    return tensors


def build(
    place: LinearPlace,
    parameters: Mapping[str, nn.Parameter],
    experts: FoldedExperts,
    signal: ForwardSignal,
    settings: GateSettings,
) -> ScaledOutputs:
    return ScaledOutputs(parameters[f"{place.key}.gate"])

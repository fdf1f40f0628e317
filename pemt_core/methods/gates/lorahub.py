"""LoRAHub (arXiv 2307.13269): one weight per expert for the whole model, which mixes the experts' factors.

The published search has no gradient (40 evaluations by Nevergrad, from w = 0, within +-1.5); here w is trained with
everything else. Its gradient at 0 is exactly zero if factors are mixed, so w starts at 1/E. The weights are free, not
shares, so the task sparsity loss does not apply.
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

PENALTY = 0.05  # of mean |w|, as published
NAME = "gate"  # of w: all layers share it


class MixedUpdates(Gate):
    """wo(x) + sum_k w_k s_k U_k V_k x."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight  # (E,)

    def forward(self, x: Float[Tensor, "B S F"], experts: FoldedExperts) -> Mixed:
        weights = self.weight.float().expand(len(x), -1)
        return Mixed(experts(x, weights)[0], None, weights)


class MixedFactors(MixedUpdates):
    """wo(x) + (sum_k w_k s_k U_k) (sum_k w_k V_k) x: a single expert counts w². Lower ranks are padded with zeros."""

    def forward(self, x: Float[Tensor, "B S F"], experts: FoldedExperts) -> Mixed:
        down, up = self._factors(experts)
        output = experts.base_layer(x) + F.linear(F.linear(x, down), up)
        return Mixed(output, None, self.weight.float().expand(len(x), -1))

    def merged(self, experts: FoldedExperts, weights: Float[Tensor, " E"]) -> Float[Tensor, "D F"]:
        down, up = self._factors(experts)
        return up @ down

    def _factors(self, experts: FoldedExperts) -> tuple[Float[Tensor, "R F"], Float[Tensor, "D R"]]:
        weight = self.weight.to(experts.down.dtype)
        down = torch.einsum("e,erf->rf", weight, experts.down.unflatten(0, (experts.num_experts, -1)))
        up = torch.einsum("e,der->dr", weight, experts.up.unflatten(1, (experts.num_experts, -1)))
        return down, up


def initial_tensors(
    places: Sequence[LinearPlace], num_experts: int, generator: torch.Generator, settings: GateSettings
) -> dict[str, Tensor]:
    return {NAME: torch.full((num_experts,), 1 / num_experts)}


def build(
    place: LinearPlace,
    parameters: Mapping[str, nn.Parameter],
    experts: FoldedExperts,
    signal: ForwardSignal,
    settings: GateSettings,
) -> MixedUpdates:
    return (MixedFactors if settings.mixes == "factors" else MixedUpdates)(parameters[NAME])


def penalty(parameters: Mapping[str, nn.Parameter]) -> Float[Tensor, ""]:
    """0.05 mean |w|."""
    return PENALTY * parameters[NAME].abs().mean()

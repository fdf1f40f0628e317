"""The mixture of source adapters with gate and target adapter, which replaces a feed-forward's `wo`."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pemt_core.model.experts import FoldedExperts
from pemt_core.model.signal import ForwardSignal
from pemt_core.model.target_adapter import TargetAdapter

SparsityPositions = Literal["all", "unpadded"]


class MixtureOutput(nn.Module):
    """y = adapter(wo(x) + sum_k g_k s U_k V_k x) (method, stage 2, items 2 to 4)."""

    def __init__(
        self,
        stack: str,
        layer: int,
        experts: FoldedExperts,
        gate: nn.Module,  # from x to expert weights (B, E)
        adapter: TargetAdapter,
        signal: ForwardSignal,
        *,
        sparsity_positions: SparsityPositions = "all",
    ) -> None:
        super().__init__()
        self.stack = stack  # encoder or decoder
        self.name = f"{stack}.{layer}"  # the key of this layer's expert weights in the signal
        self.experts = experts
        self.gate = gate
        self.adapter = adapter
        self.signal = signal
        self.sparsity_positions = sparsity_positions

    @property
    def weight(self) -> Tensor:
        return self.experts.base_layer.weight

    def forward(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B S D"]:
        weights: Tensor = self.gate(x)
        h, channels = self.experts(x, weights)
        y: Tensor = self.adapter(h)
        self.signal.expert_weights[self.name] = weights.detach()
        if self.signal.collects_sparsity:
            self.signal.sparsity.append(self.task_sparsity(y, channels, weights))
        return y

    def task_sparsity(
        self, y: Float[Tensor, "B S D"], channels: Float[Tensor, "B S E R"], weights: Float[Tensor, "B E"]
    ) -> Float[Tensor, ""]:
        """L_ts of this layer: sum_k mean_b(g_k) (1 - mean_{b,t} cos(y, e_k)). Nothing is detached."""
        cosines = self.experts.cosines(y, channels)
        if self.sparsity_positions == "unpadded":
            mean = cosines[self.signal.positions[self.stack]].mean(0)
        else:
            mean = cosines.mean((0, 1))
        return torch.sum(weights.mean(0) * (1 - mean))

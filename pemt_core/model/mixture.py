"""Mixtures of source adapters with their gates, which replace linear layers; at `wo` with a target adapter."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pemt_core.model.experts import FoldedExperts
from pemt_core.model.gate import Gate, Mixed
from pemt_core.model.signal import ForwardSignal

SparsityPositions = Literal["all", "unpadded"]
SparsityGradient = Literal["full", "cosines_detached", "weights_detached"]


class MixedLinear(nn.Module):
    """W z + sum_k g_k s_k U_k V_k z, at any linear layer.

    The layer has no part in the task sparsity loss, which compares experts with what a target adapter makes of their
    mixture. Weights per position are not recorded: keys and values of a cross-attention have the encoder's positions.
    """

    def __init__(self, stack: str, name: str, experts: FoldedExperts, gate: Gate, signal: ForwardSignal) -> None:
        super().__init__()
        self.stack = stack  # encoder or decoder
        self.name = name  # the key of this layer's expert weights in the signal
        self.experts = experts
        self.gate = gate
        self.signal = signal

    @property
    def weight(self) -> Tensor:
        """T5 reads the dtype to compute in from `wo.weight`."""
        return self.experts.base_layer.weight

    def forward(self, z: Float[Tensor, "B S C"]) -> Float[Tensor, "B S D"]:
        mixed: Mixed = self.gate(z, self.experts)
        if mixed.weights.ndim == 2:
            self.signal.record(self.stack, self.name, mixed.weights.detach())
        return mixed.output


class MixtureOutput(MixedLinear):
    """y = adapter(wo(x) + sum_k g_k s U_k V_k x) (method, stage 2, items 2 to 4)."""

    def __init__(
        self,
        stack: str,
        name: str,
        experts: FoldedExperts,
        gate: Gate,
        signal: ForwardSignal,
        *,
        adapter: nn.Module | None,  # the target's; None: y is the mixture's output
        sparsity_positions: SparsityPositions = "all",
        sparsity_gradient: SparsityGradient = "full",
    ) -> None:
        super().__init__(stack, name, experts, gate, signal)
        self.adapter = adapter
        self.sparsity_positions = sparsity_positions
        self.sparsity_gradient = sparsity_gradient

    def forward(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B S D"]:
        mixed: Mixed = self.gate(x, self.experts)
        y: Tensor = mixed.output if self.adapter is None else self.adapter(mixed.output)
        self.signal.record(self.stack, self.name, mixed.weights.detach())
        if self.signal.collects_sparsity and mixed.channels is not None:
            self.signal.sparsity.append(self.task_sparsity(y, mixed.channels, mixed.weights))
        return y

    def task_sparsity(
        self,
        y: Float[Tensor, "B S D"],
        channels: Float[Tensor, "B S E R"],
        weights: Float[Tensor, "B E"] | Float[Tensor, "B S E"],
    ) -> Float[Tensor, ""]:
        """L_ts of this layer: sum_k mean_b(g_k) (1 - mean_{b,t} cos(y, e_k)), as published without a detached part.

        Of weights per position, g is a row's mean over the positions of `sparsity_positions`. `sparsity_gradient`
        turns the cosines or the weights into constants.
        """
        cosines = self.experts.cosines(y, channels)
        unpadded = self.signal.positions[self.stack] if self.sparsity_positions == "unpadded" else None
        if unpadded is None:
            mean = cosines.mean((0, 1))
        else:  # indexing by the mask would make a GPU wait for the number of positions
            mean = cosines.masked_fill(~unpadded.unsqueeze(-1), 0.0).sum((0, 1)) / unpadded.sum()
        if weights.ndim == 3:
            shares = torch.ones_like(weights[..., :1]) if unpadded is None else unpadded.unsqueeze(-1)
            weights = (weights * shares).sum(1) / shares.sum(1)
        if self.sparsity_gradient == "cosines_detached":
            mean = mean.detach()
        elif self.sparsity_gradient == "weights_detached":
            weights = weights.detach()
        return torch.sum(weights.mean(0) * (1 - mean))

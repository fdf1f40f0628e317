"""The frozen source adapters of one layer, folded so that no tensor of the shape (E, B, S, D) exists.

    wo(x) + sum_k g_k s_k U_k V_k x  =  wo(x) + [s_1 U_1 .. s_E U_E] (g * ([V_1; ..; V_E] x))

This takes one product for the E R rank channels of all experts, a scaling and a second product. Stacking `wo` on top
of the V_k would save 2 to 4 % of the time but cost a copy of every `wo` (216 MiB for t5-base) and 3 MiB of activations
per layer (benchmarks/experts.py), so `wo` stays separate. The cosines of the task sparsity loss need only
y . e_k = (s_k U_k^T y) . (V_k x) and |e_k| = |T_k (V_k x)|, where s_k U_k = Q_k T_k is the QR decomposition: T_k, at
most R x R, is a constant, and T_k^T T_k is the Gram matrix in the method's formula. The square root in that formula
would lose half of the digits if an expert's output is small, and its argument could become negative.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

NORM_FLOOR = 1e-8  # as in torch's cosine_similarity: an untrained expert (U = 0) has cosine 0


class FoldedExperts(nn.Module):
    """E source adapters of one layer together with its `wo`. The scales are folded into `up`."""

    down: Tensor
    up: Tensor
    triangle: Tensor

    def __init__(
        self,
        base_layer: nn.Linear,
        downs: Sequence[Float[Tensor, "_ F"]],
        ups: Sequence[Float[Tensor, "D _"]],
        *,
        scales: Sequence[float],
    ) -> None:
        super().__init__()
        self.num_experts = len(downs)
        self.base_layer = base_layer
        rank = max(len(down) for down in downs)  # lower ranks are padded with zeros, which change nothing
        downs = [F.pad(down, (0, 0, 0, rank - len(down))) for down in downs]
        scaled = [F.pad(scale * up, (0, rank - up.shape[1])) for scale, up in zip(scales, ups, strict=True)]
        self.register_buffer("down", torch.cat(downs), persistent=False)
        self.register_buffer("up", torch.cat(scaled, dim=1), persistent=False)
        triangles = torch.linalg.qr(torch.stack(scaled).float(), mode="r").R
        self.register_buffer("triangle", triangles.to(self.up.dtype), persistent=False)

    def channels(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B S E R"]:
        """The rank channels V_k x of every expert."""
        return F.linear(x, self.down).unflatten(-1, (self.num_experts, -1))

    def forward(
        self, x: Float[Tensor, "B S F"], weights: Float[Tensor, "B E"] | Float[Tensor, "B S E"]
    ) -> tuple[Float[Tensor, "B S D"], Float[Tensor, "B S E R"]]:
        """The mixture's output h, and the rank channels. The weights are a sequence's, or those of every position."""
        channels = self.channels(x)
        per_position = weights if weights.ndim == 3 else weights[:, None]
        weighted = channels * per_position.to(channels.dtype)[..., None]
        return self.base_layer(x) + F.linear(weighted.flatten(-2), self.up), channels

    def cosines(self, y: Float[Tensor, "B S D"], channels: Float[Tensor, "B S E R"]) -> Float[Tensor, "B S E"]:
        """cos(y, e_k) at every position, with norms in float32."""
        dots = (F.linear(y, self.up.T).unflatten(-1, (self.num_experts, -1)) * channels).float().sum(-1)
        with torch.autocast(y.device.type, enabled=False):
            outputs = torch.einsum("bser,eqr->bseq", channels.float(), self.triangle.float())
        norms = outputs.norm(dim=-1).clamp_min(NORM_FLOOR)
        cosines = dots / (y.float().norm(dim=-1, keepdim=True).clamp_min(NORM_FLOOR) * norms)
        return cosines.clamp(-1.0, 1.0)  # bfloat16 rounds the dots, so an output near zero can exceed this

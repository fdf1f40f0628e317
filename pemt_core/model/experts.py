"""The frozen source adapters of one layer, folded: no tensor of the shape (E, B, S, D) is ever made.

    wo(x) + sum_k g_k s_k U_k V_k x  =  (first D rows of A x) + [s_1 U_1 .. s_E U_E] (g * (last E R rows of A x))

with A = [wo; V_1; ..; V_E]: one matrix product, a scaling of E R rank channels, one matrix product. The cosines of the
task sparsity loss need only y . e_k = (s_k U_k^T y) . (V_k x) and |e_k|^2 = (V_k x)^T G_k (V_k x), where the R x R Gram
matrices G_k = s_k^2 U_k^T U_k are constants.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

NORM_FLOOR = 1e-8  # of torch's cosine_similarity: an expert that was never trained (U = 0) has cosine 0


class FoldedExperts(nn.Module):
    """E source adapters of one layer together with the `wo` beside them. Scales are folded into `up`."""

    down: Tensor
    up: Tensor
    gram: Tensor

    def __init__(
        self,
        base_layer: nn.Linear,
        downs: Sequence[Float[Tensor, "R F"]],
        ups: Sequence[Float[Tensor, "D R"]],
        *,
        scales: Sequence[float],
    ) -> None:
        super().__init__()
        self.num_experts = len(downs)
        self.base_layer = base_layer
        scaled = [scale * up for scale, up in zip(scales, ups, strict=True)]
        self.register_buffer("down", torch.cat([base_layer.weight.detach(), *downs]), persistent=False)
        self.register_buffer("up", torch.cat(scaled, dim=1), persistent=False)
        self.register_buffer("gram", torch.stack([up.T @ up for up in scaled]), persistent=False)

    def forward(
        self, x: Float[Tensor, "B S F"], weights: Float[Tensor, "B E"]
    ) -> tuple[Float[Tensor, "B S D"], Float[Tensor, "B S E R"]]:
        """The mixture's output h, and the rank channels V_k x of every expert."""
        d_model = self.up.shape[0]
        folded = F.linear(x, self.down)
        channels = folded[..., d_model:].unflatten(-1, (self.num_experts, -1))
        weighted = channels * weights.to(channels.dtype)[:, None, :, None]
        return folded[..., :d_model] + F.linear(weighted.flatten(-2), self.up), channels

    def cosines(self, y: Float[Tensor, "B S D"], channels: Float[Tensor, "B S E R"]) -> Float[Tensor, "B S E"]:
        """cos(y, e_k) at every position, norms in float32."""
        dots = (F.linear(y, self.up.T).unflatten(-1, (self.num_experts, -1)) * channels).float().sum(-1)
        squares = (torch.einsum("bser,erq->bseq", channels, self.gram) * channels).float().sum(-1)
        norms = squares.clamp_min(NORM_FLOOR**2).sqrt()
        return dots / (y.float().norm(dim=-1, keepdim=True).clamp_min(NORM_FLOOR) * norms)

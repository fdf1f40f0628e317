"""AdapterFusion (arXiv 2005.00247): every position attends over the experts' outputs, with `wo(x)` as query.

Start, penalty and dropout are those of the library adapters (configuration "dynamic"). There, the query is a
sub-layer's output plus its residual; here, it is what the experts' outputs are added to. The published method trains
nothing else.
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

STD = 0.02  # of W_Q and W_K
OFF_DIAGONAL = 1e-6  # of W_V, which starts as the identity
PENALTY = 0.01  # of |I - W_V|^2 of every layer


class FusionGate(Gate):
    """a_k = softmax_k((W_Q wo(x) + b_Q) . (W_K e_k + b_K)), output wo(x) + sum_k a_k W_V e_k; a has shape (B, S, E).

    The experts stay folded, exactly: W_K e_k . q = e_k . W_K^T q, and W_V is applied once, to the sum. Dropout is on
    the scores, before the softmax.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, dropout: float) -> None:
        super().__init__()
        self.query, self.query_bias = parameters["query.weight"], parameters["query.bias"]
        self.key, self.key_bias = parameters["key.weight"], parameters["key.bias"]
        self.value = parameters.get("value.weight")  # (D, D), like the other matrices
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B S F"], experts: FoldedExperts) -> Mixed:
        base, channels = experts.base_layer(x), experts.channels(x)
        query = F.linear(base, self.query, self.query_bias)
        read = F.linear(query @ self.key, experts.up.T).unflatten(-1, (experts.num_experts, -1))
        scores = (read * channels).float().sum(-1) + (query @ self.key_bias).float().unsqueeze(-1)
        weights = self.dropout(scores).softmax(dim=-1)
        mixed = F.linear((channels * weights.to(channels.dtype).unsqueeze(-1)).flatten(-2), experts.up)
        output = base + (mixed if self.value is None else F.linear(mixed, self.value))
        return Mixed(output, channels, weights)

    def merged(self, experts: FoldedExperts, weights: Float[Tensor, " E"]) -> Float[Tensor, "D F"]:
        added = super().merged(experts, weights)
        return added if self.value is None else self.value @ added


def initial_tensors(
    places: Sequence[LinearPlace], num_experts: int, generator: torch.Generator, settings: GateSettings
) -> dict[str, Tensor]:
    """W_Q, W_K from N(0, 0.02), their biases 0, W_V the identity with 1e-6 beside the diagonal."""
    tensors = {}
    for place in places:
        size, key = place.layer.out_features, f"{place.key}.gate"
        for name in ("query", "key"):
            tensors[f"{key}.{name}.weight"] = STD * torch.randn(size, size, generator=generator)
            tensors[f"{key}.{name}.bias"] = torch.zeros(size)
        if settings.value_matrix:
            tensors[f"{key}.value.weight"] = torch.full((size, size), OFF_DIAGONAL).fill_diagonal_(1.0)
    return tensors


def build(
    place: LinearPlace,
    parameters: Mapping[str, nn.Parameter],
    experts: FoldedExperts,
    signal: ForwardSignal,
    settings: GateSettings,
) -> FusionGate:
    prefix = f"{place.key}.gate."
    of_layer = {n.removeprefix(prefix): tensor for n, tensor in parameters.items() if n.startswith(prefix)}
    return FusionGate(of_layer, dropout=place.dropout)


def penalty(parameters: Mapping[str, nn.Parameter]) -> Float[Tensor, ""]:
    """0.01 |I - W_V|^2, summed over the layers."""
    matrices = [parameter for name, parameter in parameters.items() if name.endswith(".value.weight")]
    distances = [(torch.eye(len(each), device=each.device) - each).square().sum() for each in matrices]
    return PENALTY * torch.stack(distances).sum() if distances else torch.zeros(())

"""Arrow (arXiv 2405.11157): every position takes the experts whose strongest direction its input is closest to.

Nothing is trained. An expert's prototype is the first right singular vector of U V, the unit input that it amplifies
most. PEFT finds it by power iteration; here it is exact. An expert without a pair at a layer scores 0 there. The inputs
of `wo` come after a relu, so scores are large, and the weights are often near one-hot.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pemt_core.methods.gate_settings import GateSettings
from pemt_core.model.experts import FoldedExperts
from pemt_core.model.gate import Gate
from pemt_core.model.signal import ForwardSignal
from pemt_core.model.stacks import LinearPlace


class ArrowGate(Gate):
    """Softmax of |p_k . x_t| / temperature over the `top_k` highest, 0 for all others; shape (B, S, E)."""

    prototypes: Tensor

    def __init__(self, prototypes: Float[Tensor, "E F"], *, top_k: int, temperature: float) -> None:
        super().__init__()
        self.register_buffer("prototypes", prototypes, persistent=False)
        self.top_k, self.temperature = min(top_k, len(prototypes)), temperature

    def weights(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B S E"]:
        scores = F.linear(x, self.prototypes.to(x.dtype)).float().abs() / self.temperature
        highest, chosen = scores.topk(self.top_k, dim=-1)
        return torch.zeros_like(scores).scatter(-1, chosen, highest.softmax(dim=-1))


def prototypes(experts: FoldedExperts) -> Float[Tensor, "E F"]:
    """The first right singular vector of each U V, up to its sign; zero where U V is.

    With V^T = Q R, it is Q times that of the small matrix U R^T (D x R), as Q has orthonormal columns.
    """
    downs = experts.down.unflatten(0, (experts.num_experts, -1)).float()
    ups = experts.up.unflatten(1, (experts.num_experts, -1)).movedim(1, 0).float()
    basis, triangle = torch.linalg.qr(downs.mT)
    _, values, right = torch.linalg.svd(ups @ triangle.mT, full_matrices=False)
    return torch.einsum("efr,er->ef", basis, right[:, 0]) * (values[:, :1] > 0)


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
) -> ArrowGate:
    return ArrowGate(prototypes(experts), top_k=settings.top_k, temperature=settings.temperature)

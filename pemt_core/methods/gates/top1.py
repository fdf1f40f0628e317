"""The published gate with a hard choice: only the heaviest expert counts, and the gradient is that of the softmax."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from pemt_core.methods.gate_settings import GateSettings
from pemt_core.methods.gates.input import build as build_published, initial_tensors
from pemt_core.model import gate
from pemt_core.model.experts import FoldedExperts
from pemt_core.model.signal import ForwardSignal
from pemt_core.model.stacks import LinearPlace

__all__ = ["build", "initial_tensors"]  # W_g = 0, of the published gate's shape


class Top1Gate(gate.Gate):
    """One-hot weights with the straight-through gradient. Exact ties share equally, so W_g = 0 is uniform."""

    def __init__(self, soft: gate.Gate) -> None:
        super().__init__()
        self.soft = soft

    def weights(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B E"]:
        soft = self.soft.weights(x)
        heaviest = (soft == soft.amax(dim=-1, keepdim=True)).float()
        return heaviest / heaviest.sum(dim=-1, keepdim=True) + (soft - soft.detach())


def build(
    place: LinearPlace,
    parameters: Mapping[str, nn.Parameter],
    experts: FoldedExperts,
    signal: ForwardSignal,
    settings: GateSettings,
) -> Top1Gate:
    return Top1Gate(build_published(place, parameters, experts, signal, settings))

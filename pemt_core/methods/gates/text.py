"""The published gate, but it reads the text: the mean over its positions instead of the prompt's, without padding."""

from collections.abc import Mapping

from torch import nn

from pemt_core.methods.gate_settings import GateSettings
from pemt_core.methods.gates.input import initial_tensors
from pemt_core.model import gate
from pemt_core.model.experts import FoldedExperts
from pemt_core.model.signal import ForwardSignal
from pemt_core.model.stacks import LinearPlace

__all__ = ["build", "initial_tensors"]  # W_g = 0, of the published gate's shape


def build(
    place: LinearPlace,
    parameters: Mapping[str, nn.Parameter],
    experts: FoldedExperts,
    signal: ForwardSignal,
    settings: GateSettings,
) -> gate.Gate:
    return gate.build(place, parameters, experts, signal, normalised=settings.gate_input == "normalised", part="text")

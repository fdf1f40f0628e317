"""The published gate: each layer reads its input at the prompt's positions, or a decoder the encoder's output."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pemt_core.methods.gate_settings import GateSettings
from pemt_core.model import gate
from pemt_core.model.experts import FoldedExperts
from pemt_core.model.signal import ForwardSignal
from pemt_core.model.stacks import LinearPlace


def initial_tensors(
    places: Sequence[LinearPlace], num_experts: int, generator: torch.Generator, settings: GateSettings
) -> dict[str, Tensor]:
    """W_g = 0: F x E, or D x E in a decoder layer behind an encoder."""
    return gate.initial_tensors(places, num_experts, generator)


def build(
    place: LinearPlace,
    parameters: Mapping[str, nn.Parameter],
    experts: FoldedExperts,
    signal: ForwardSignal,
    settings: GateSettings,
) -> gate.Gate:
    return gate.build(place, parameters, experts, signal, normalised=settings.gate_input == "normalised")

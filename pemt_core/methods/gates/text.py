"""The published gate, but it reads the text: the mean over its positions instead of the prompt's, without padding."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from pemt_core.methods.gate_settings import GateSettings
from pemt_core.methods.gates.input import initial_tensors
from pemt_core.model import gate
from pemt_core.model.experts import FoldedExperts
from pemt_core.model.signal import ForwardSignal
from pemt_core.model.stacks import FeedForward

__all__ = ["build", "initial_tensors"]  # W_g = 0, of the published gate's shape


class EncoderTextGate(gate.LinearGate):
    """Reads the input of its layer's `wo` at the text's positions: C = F."""

    def gate_input(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B C"]:
        return self.signal.text_mean(x)


class DecoderTextGate(gate.LinearGate):
    """Reads the encoder's final output at the text's positions: C = D."""

    def gate_input(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B C"]:
        return self.signal.encoder_mean("text", len(x))


def build(
    place: FeedForward,
    parameters: Mapping[str, nn.Parameter],
    experts: FoldedExperts,
    signal: ForwardSignal,
    settings: GateSettings,
) -> gate.LinearGate:
    kind = EncoderTextGate if place.stack == "encoder" else DecoderTextGate
    return kind(parameters[f"{place.key}.gate"], signal, normalised=settings.gate_input == "normalised")

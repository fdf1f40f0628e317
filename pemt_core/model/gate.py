"""The gate: how much each source counts for a sequence in one layer."""

from jaxtyping import Float
from torch import Tensor, nn

from pemt_core.model.signal import ForwardSignal


class Gate(nn.Module):
    """g = softmax(input W_g), shape (B, E), the same for every position of a sequence; softmax in float32.

    W_g starts at zero, so that all experts weigh 1/E. What the input is, the two subclasses say.
    """

    def __init__(self, weight: Float[Tensor, "C E"], signal: ForwardSignal) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.signal = signal

    def gate_input(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B C"]:
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B E"]:
        return (self.gate_input(x) @ self.weight).float().softmax(dim=-1)


class EncoderGate(Gate):
    """Reads the input of `wo` in its own layer, at the prompt's positions: C = F."""

    def gate_input(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B C"]:
        return self.signal.prompt_mean(x)


class DecoderGate(Gate):
    """Reads the encoder's final output at the prompt's positions: C = D."""

    def gate_input(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B C"]:
        return self.signal.encoder_state(len(x))

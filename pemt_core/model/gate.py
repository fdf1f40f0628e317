"""The gate, which weighs the sources for a sequence in one layer."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pemt_core.model.signal import ForwardSignal
from pemt_core.model.stacks import FeedForward


class Gate(nn.Module):
    """g = softmax(input W_g), shape (B, E), the same for every position of a sequence; softmax in float32.

    W_g starts at zero, so all experts weigh 1/E. The two subclasses define the input.
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
    """Reads the input of its layer's `wo` at the prompt's positions: C = F."""

    def gate_input(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B C"]:
        return self.signal.prompt_mean(x)


class DecoderGate(Gate):
    """Reads the encoder's final output at the prompt's positions: C = D."""

    def gate_input(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B C"]:
        return self.signal.encoder_state(len(x))


@runtime_checkable
class Gates(Protocol):
    """A module that makes the gates of a model, layer by layer: this one, or a file of `pemt_core.methods.gates`."""

    def initial_weight(self, place: FeedForward, num_experts: int) -> Tensor | None:
        """The trained weight of one layer's gate at step 0; None if nothing is trained."""

    def build(self, place: FeedForward, weight: Tensor | None, num_experts: int, signal: ForwardSignal) -> nn.Module:
        """Build the gate of one layer, from the input x of `wo` (B, S, F) to expert weights (B, E) in float32.

        If the gate is trained, the module's parameter `weight` is all that is trained.
        """


def initial_weight(place: FeedForward, num_experts: int) -> Float[Tensor, "C E"]:
    """W_g = 0: F x E in an encoder layer, D x E in a decoder layer."""
    d_model, d_ff = place.wo.weight.shape
    return torch.zeros(d_ff if place.stack == "encoder" else d_model, num_experts)


def build(
    place: FeedForward, weight: Float[Tensor, "C E"] | None, num_experts: int, signal: ForwardSignal
) -> nn.Module:
    """Build the published gate of one layer."""
    assert weight is not None
    return (EncoderGate if place.stack == "encoder" else DecoderGate)(weight, signal)

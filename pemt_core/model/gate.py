"""The gate of a layer, which weighs the sources and mixes their adapters. The published one weighs for a sequence."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pemt_core.model.experts import FoldedExperts
from pemt_core.model.signal import ForwardSignal, Part
from pemt_core.model.stacks import LinearPlace


class Mixed(NamedTuple):
    """The result of a mixture."""

    output: Tensor  # (B, S, D), what the target adapter gets
    channels: Tensor | None  # V_k x (B, S, E, R) for the task sparsity loss; None: the weights are no distribution
    weights: Tensor  # (B, E), or (B, S, E) if every position has its own; float32


class Gate(nn.Module):
    """Mixes the experts of one layer: a subclass defines the weights, or the whole mixture.

    A mixture whose weights are not positive with the sum 1 returns no channels: the task sparsity loss
    sum_k g_k (1 - cos_k) has no minimum over them.
    """

    def weights(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B E"] | Float[Tensor, "B S E"]:
        """Expert weights from the input x of `wo`, in float32."""
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "B S F"], experts: FoldedExperts) -> Mixed:
        """wo(x) + sum_k g_k s_k U_k V_k x."""
        weights = self.weights(x)
        output, channels = experts(x, weights)
        return Mixed(output, channels, weights)

    def merged(self, experts: FoldedExperts, weights: Float[Tensor, " E"]) -> Float[Tensor, "D F"]:
        """What the mixture adds to the weight of its layer if all positions have these weights."""
        return experts.merged(weights)


class LinearGate(Gate):
    """g = softmax(input W_g), with the softmax in float32. W_g starts at zero, so all experts weigh 1/E.

    `normalised` scales the input to unit length (L2 norm); it grows with depth otherwise.
    """

    def __init__(self, weight: nn.Parameter, signal: ForwardSignal, *, normalised: bool = False) -> None:
        super().__init__()
        self.weight = weight  # (C, E)
        self.signal = signal
        self.normalised = normalised

    def gate_input(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B C"] | Float[Tensor, "B S C"]:
        raise NotImplementedError

    def weights(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B E"] | Float[Tensor, "B S E"]:
        read = self.gate_input(x)
        if self.normalised:
            read = F.normalize(read, dim=-1)
        return (read @ self.weight).float().softmax(dim=-1)


class SequenceGate(LinearGate):
    """Weighs for a whole sequence, from the mean over the positions of its prompt or its text."""

    def __init__(
        self, weight: nn.Parameter, signal: ForwardSignal, *, normalised: bool = False, part: Part = "prompt"
    ) -> None:
        super().__init__(weight, signal, normalised=normalised)
        self.part = part


class InputGate(SequenceGate):
    """Reads the input of its linear layer: C = F at `wo`."""

    def gate_input(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B C"]:
        return self.signal.prefix_mean(self, self.part, x)


class EncodedGate(SequenceGate):
    """Reads the encoder's final output: C = D of the encoder."""

    def gate_input(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B C"]:
        return self.signal.encoder_mean(self.part, len(x))


@dataclass(frozen=True)
class Gates:
    """The gates of a model.

    initial_tensors: from all places, the number of experts and a generator, every tensor that the gates train at
    step 0. Those of one layer are named "<stack>.<layer>.gate", or "<stack>.<layer>.gate.<name>" if there are several;
    what all layers share is named "gate".
    build: from a place, all trained tensors as parameters, the layer's experts and the signal, the layer's gate.
    penalty: from the parameters, what is added to the loss.
    """

    initial_tensors: Callable[[Sequence[LinearPlace], int, torch.Generator], dict[str, Tensor]]
    build: Callable[[LinearPlace, Mapping[str, nn.Parameter], FoldedExperts, ForwardSignal], Gate]
    penalty: Callable[[Mapping[str, nn.Parameter]], Tensor] | None = None


def is_of_gate(name: str) -> bool:
    """Whether a trained tensor belongs to a gate."""
    return "gate" in name.split(".")


def initial_tensors(places: Sequence[LinearPlace], num_experts: int, generator: torch.Generator) -> dict[str, Tensor]:
    """W_g = 0: F x E, or D x E in a decoder layer behind an encoder."""
    return {f"{place.key}.gate": torch.zeros(place.gate_width, num_experts) for place in places}


def build(
    place: LinearPlace,
    parameters: Mapping[str, nn.Parameter],
    experts: FoldedExperts,
    signal: ForwardSignal,
    *,
    normalised: bool = False,
    part: Part = "prompt",
) -> Gate:
    """Build the published gate of one layer, or one that reads another part."""
    kind = InputGate if place.encoder_width is None else EncodedGate
    return kind(parameters[f"{place.key}.gate"], signal, normalised=normalised, part=part)


PUBLISHED = Gates(initial_tensors, build)

"""The modules of stage 2 for rows that belong to different models: grouped matrix products, and no loop over models."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pemt_core.model.experts import FoldedExperts
from pemt_core.model.gate import Gate
from pemt_core.model.grouped.matrix import PROMPT, TensorMatrix
from pemt_core.model.mixture import MixtureOutput, SparsityPositions
from pemt_core.model.prompt import CorrelationGuidedPrompt, Prompt
from pemt_core.model.signal import ForwardSignal
from pemt_core.model.stacks import LinearPlace


class GroupedPrompt(Prompt):
    """The prompt of each row's model, guided or plain."""

    guidance: Tensor

    def __init__(
        self, matrix: TensorMatrix, guide: CorrelationGuidedPrompt | None, guidance: Float[Tensor, " N"]
    ) -> None:
        """`guidance`: what each model multiplies the sources' guide with, 0 for a plain prompt."""
        super().__init__()
        self.matrix, self.guide = matrix, guide
        self.register_buffer("guidance", guidance, persistent=False)

    def embed(
        self, text: Float[Tensor, "B T D"], mask: Int[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B P D"], Float[Tensor, "B T D"]]:
        (shape,) = self.matrix.shapes(PROMPT)
        vectors = self.matrix.picked(PROMPT, shape)[:, -self.matrix.prompt_length :]
        if self.guide is not None:
            factors = self.matrix.of_blocks(self.guidance)
            vectors = vectors + factors[:, None, None] * self.guide.guidance(vectors)
        return vectors.to(text.dtype).repeat_interleave(len(text) // len(vectors), dim=0), text

    def mask(self, rows: Float[Tensor, "B P D"]) -> Bool[Tensor, "B P"]:
        mask: Tensor = self.matrix.of_blocks(self.matrix.prompt_mask)[:, -self.matrix.prompt_length :]
        return mask.repeat_interleave(len(rows) // len(mask), dim=0)


class Gating(NamedTuple):
    """What the gates of N models do."""

    mixes: Float[Tensor, " N"]  # 1: the model mixes the experts; 0: it is without sources
    normalised: Bool[Tensor, " N"]  # whether what the gate reads is scaled to unit length


class GroupedGate(Gate):
    """g = softmax(input W_g + w), with the softmax in float32.

    W_g is 0 in a model whose gate is static or uniform, w in one whose gate reads its input; models without sources
    have g = 0.
    """

    mixes: Tensor
    normalised: Tensor

    def __init__(
        self,
        place: LinearPlace,
        matrix: TensorMatrix,
        experts: FoldedExperts,
        signal: ForwardSignal,
        gating: Gating,
    ) -> None:
        super().__init__()
        self.name, self.matrix, self.signal = f"{place.key}.gate", matrix, signal
        self.num_experts = experts.num_experts
        self.reads_encoder = place.encoder_width is not None
        self.register_buffer("mixes", gating.mixes, persistent=False)
        self.register_buffer("normalised", gating.normalised, persistent=False)
        self.normalises = bool(gating.normalised.any())

    def weights(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B E"]:
        matrix = self.matrix
        logits = torch.zeros(matrix.num_blocks, len(x) // matrix.num_blocks, self.num_experts, device=x.device)
        for shape in matrix.shapes(self.name):
            weight = matrix.picked(self.name, shape)
            reads = len(shape) == 2
            logits = logits + (torch.bmm(self._read(x), weight) if reads else weight[:, None])
        weights = logits.float().softmax(dim=-1) * matrix.of_blocks(self.mixes)[:, None, None]
        return weights.flatten(0, 1)

    def _read(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "G R C"]:
        """The means over the prompts' positions, by block."""
        encoder, signal = self.reads_encoder, self.signal
        mean = signal.encoder_mean("prompt", len(x)) if encoder else signal.prefix_mean(self, "prompt", x)
        read = self.matrix.blocks(mean)
        if self.normalises:
            normalised = self.matrix.of_blocks(self.normalised)[:, None, None]
            read = torch.where(normalised, F.normalize(read, dim=-1), read)
        return read


class GroupedAdapter(nn.Module):
    """The target adapter of each row's model; a model without one has zeros, which add nothing."""

    def __init__(self, key: str, matrix: TensorMatrix) -> None:
        super().__init__()
        self.matrix = matrix
        self._pieces = [
            (name, _only_shape(matrix, name))
            for name in (f"{key}.down.weight", f"{key}.down.bias", f"{key}.up.weight", f"{key}.up.bias")
        ]

    def forward(self, h: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        down, down_bias, up, up_bias = (self.matrix.picked(*piece) for piece in self._pieces)
        inner = torch.baddbmm(down_bias[:, None], self.matrix.blocks(h), down.mT)
        added = torch.baddbmm(up_bias[:, None], F.gelu(inner, approximate="tanh"), up.mT)
        adapted: Tensor = h + added.view_as(h)
        return adapted


class GroupedLayerNorm(nn.Module):
    """x / rms(x) * (offset + weight) in float32, with the weight of each row's model: `TargetLayerNorm` for many."""

    def __init__(
        self, name: str, matrix: TensorMatrix, base_layer: nn.Module, *, epsilon: float, offset: float
    ) -> None:
        super().__init__()
        self.name, self.matrix, self.base_layer = name, matrix, base_layer
        self.shape = _only_shape(matrix, name)
        self.epsilon, self.offset = epsilon, offset

    def forward(self, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        normed = F.rms_norm(x.float(), self.shape, eps=self.epsilon)
        weight = self.matrix.picked(self.name, self.shape)[:, None]
        scaled = self.matrix.blocks(normed) * (self.offset + weight if self.offset else weight)
        return scaled.view_as(x).to(x.dtype)


class GroupedMixture(MixtureOutput):
    """`MixtureOutput` whose share of the task sparsity loss is one number per block."""

    def __init__(
        self,
        place: LinearPlace,
        experts: FoldedExperts,
        gate: GroupedGate,
        signal: ForwardSignal,
        *,
        adapter: GroupedAdapter | None,
        sparsity_positions: SparsityPositions,
    ) -> None:
        super().__init__(
            place.stack, place.key, experts, gate, signal, adapter=adapter, sparsity_positions=sparsity_positions
        )
        self.matrix = gate.matrix

    def task_sparsity(
        self, y: Float[Tensor, "B S D"], channels: Float[Tensor, "B S E R"], weights: Float[Tensor, "B E"]
    ) -> Float[Tensor, " G"]:
        """L_ts of this layer for each block, over the positions that its model would have alone."""
        blocks, counted = self.matrix.blocks, self.signal.positions[self.stack]
        shares, rows = counted.unsqueeze(-1).float(), counted.any(1, keepdim=True).float()
        cosines = blocks(self.experts.cosines(y, channels) * shares).sum(1) / blocks(shares).sum(1)
        mixed = blocks(weights * rows).sum(1) / blocks(rows).sum(1)
        return torch.sum(mixed * (1 - cosines), dim=-1)


def _only_shape(matrix: TensorMatrix, name: str) -> torch.Size:
    """The shape of a tensor in all models. Raises ValueError if they differ."""
    shapes = matrix.shapes(name)
    if len(shapes) != 1:
        raise ValueError(f"{name} has the shapes {[tuple(shape) for shape in shapes]}, expected one in all models")
    return shapes[0]

"""Stage 2 of several cells or targets in one pass, equal to that of each alone.

Models can be computed together if they mix the same experts, or none, by a gate that reads its layer's input, is static
or uniform. Each has its own prompt, gates, target adapter and layer norms; backbone and experts run once.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from pemt_core.backbone.families import family_of
from pemt_core.model.assemble import Expert, FoldedLayers, fold_experts
from pemt_core.model.attachment import Attachment
from pemt_core.model.copies import copied
from pemt_core.model.grouped.matrix import TensorMatrix
from pemt_core.model.grouped.member import Member, partition
from pemt_core.model.grouped.modules import (
    Gating,
    GroupedAdapter,
    GroupedGate,
    GroupedLayerNorm,
    GroupedMixture,
    GroupedPrompt,
)
from pemt_core.model.layer_norm import initial_scales
from pemt_core.model.mixture import MixedLinear, SparsityPositions
from pemt_core.model.prompt import CorrelationGuidedPrompt
from pemt_core.model.prompted import IGNORED_LABEL, PromptedModel, ReadRows
from pemt_core.model.prompting import prompted
from pemt_core.model.signal import ForwardSignal
from pemt_core.model.stacks import LinearPlace, layer_norms, linear_layers
from pemt_core.model.target_adapter import AdaptedOutput


@dataclass
class GroupedOutput:
    """The losses of G models, each over its own rows, as of `PromptedOutput`."""

    loss: Float[Tensor, " G"]
    lm_loss: Float[Tensor, " G"]
    sparsity_loss: Float[Tensor, " G"] | None


class GroupedModel:
    """N models of stage 2 attached to one backbone. Their tensors are rows of `matrix`, their order is the members'."""

    def __init__(
        self,
        model: PromptedModel,
        matrix: TensorMatrix,
        coefficients: Float[Tensor, " N"],
        *,
        sparsity_positions: SparsityPositions,
    ) -> None:
        """`model`: prompt and modules that read `matrix`. `coefficients`: of each model's sparsity loss; 0: without."""
        self.model, self.matrix = model, matrix
        self.coefficients, self.sparsity_positions = coefficients, sparsity_positions
        self._collects_sparsity = bool((coefficients > 0).any())

    def __enter__(self) -> "GroupedModel":
        """Use this attached group for a block, and detach it at its end, however the block ends."""
        return self

    def __exit__(self, *raised: object) -> None:
        self.model.detach()

    def losses(self, batches: Sequence[Mapping[str, Tensor]], models: Sequence[int] | None = None) -> GroupedOutput:
        """Compute the losses of G models, each over its own batch of `input_ids`, `attention_mask` and `labels`.

        `models`: whose batches they are; None: those of all models, in their order.
        """
        model, together = self.model, _Together.of(batches)
        with self.matrix.opened(models):
            coefficients = self.matrix.of_blocks(self.coefficients)
            prefix = model.prefix(together.input_ids, together.attention_mask)
            positions = model.positions(prefix, together.labels)
            if self.sparsity_positions == "all":
                positions = together.with_padding(positions)
            positions = {stack: each & together.is_row.unsqueeze(1) for stack, each in positions.items()}
            with model.opened(prefix, positions, collects_sparsity=self._collects_sparsity) as signal:
                logits = model.logits(prefix, together.labels)
                sparsity = torch.stack(signal.sparsity).mean(0) if signal.sparsity else None
        losses = F.cross_entropy(
            logits.float().flatten(0, 1), together.labels.flatten(), ignore_index=IGNORED_LABEL, reduction="none"
        ).view(len(batches), -1)
        counts = (together.labels != IGNORED_LABEL).view(len(batches), -1).sum(1)
        lm_loss = losses.sum(1) / counts
        loss = lm_loss if sparsity is None else lm_loss + coefficients * sparsity
        return GroupedOutput(loss, lm_loss, sparsity)

    @contextmanager
    def encoded(
        self, input_ids: Int[Tensor, "B T"], attention_mask: Int[Tensor, "B T"], models: Sequence[int] | None = None
    ) -> Iterator[ReadRows]:
        """Read rows as `PromptedModel.encoded` does: G equal blocks of rows, each for one of `models`.

        None: a block for every model, in their order.
        """
        with torch.no_grad(), self.matrix.opened(models), self.model.encoded(input_ids, attention_mask) as rows:
            yield rows


@dataclass(frozen=True)
class _Together:
    """Batches as blocks of one: each has the rows, positions and labels of the largest, and the rest is padding."""

    input_ids: Int[Tensor, "B T"]
    attention_mask: Int[Tensor, "B T"]
    labels: Int[Tensor, "B L"]
    is_row: Bool[Tensor, " B"]  # false: the block has fewer rows
    widths: list[Int[Tensor, " B"]]  # T and L of each row's own batch

    @classmethod
    def of(cls, batches: Sequence[Mapping[str, Tensor]]) -> "_Together":
        rows = max(len(batch["labels"]) for batch in batches)
        padded: list[Tensor] = []
        for name, value in (("input_ids", 0), ("attention_mask", 0), ("labels", IGNORED_LABEL)):
            width = max(batch[name].shape[1] for batch in batches)
            blocks = [
                F.pad(batch[name], (0, width - batch[name].shape[1], 0, rows - len(batch[name])), value=value)
                for batch in batches
            ]
            padded.append(torch.cat(blocks))
        device = padded[0].device
        counts = copied(torch.tensor([len(batch["labels"]) for batch in batches]), device)
        is_row = (torch.arange(rows, device=device) < counts.unsqueeze(1)).flatten()
        widths = [
            copied(torch.tensor([batch[name].shape[1] for batch in batches]), device).repeat_interleave(rows)
            for name in ("input_ids", "labels")
        ]
        return cls(padded[0], padded[1], padded[2], is_row, widths)

    def with_padding(self, positions: Mapping[str, Bool[Tensor, "B _"]]) -> dict[str, Bool[Tensor, "B _"]]:
        """`positions` of encoder and decoder, and those of the padding that each batch would have alone.

        Raises ValueError for a decoder-only model, in which padding before a text would not be the same.
        """
        if {*positions} != {"encoder", "decoder"}:
            raise ValueError("in a decoder-only model, the sparsity loss of a group is over unpadded positions alone")
        found = {}
        for (stack, mask), width, own in zip(
            positions.items(), (self.input_ids.shape[1], self.labels.shape[1]), self.widths, strict=True
        ):
            within = torch.arange(width, device=mask.device) < own.unsqueeze(1)
            found[stack] = torch.cat([mask[:, : mask.shape[1] - width], within], dim=1)
        return found


def build_grouped_model(backbone: Any, members: Sequence[Member], folded: FoldedLayers | None = None) -> GroupedModel:
    """Build the models of all members, and attach them to `backbone`; `partition` says which fit together.

    `folded` is the result of `fold_experts` for the experts that members mix. Raises ValueError if members do not fit.
    """
    if len(partition(members)) != 1:
        raise ValueError("these models cannot be computed together")
    device = backbone.get_input_embeddings().weight.device
    tensors = [{name: tensor.to(device) for name, tensor in each.tensors.items()} for each in members]
    matrix, signal = TensorMatrix(tensors, initial_scales(backbone)), ForwardSignal()
    mixing = [each for each in members if each.experts]
    experts = mixing[0].experts if mixing else ()
    positions = mixing[0].sparsity_positions if mixing else "all"
    gating = Gating(
        torch.tensor([float(bool(each.experts)) for each in members], device=device),
        torch.tensor([each.normalised for each in members], device=device),
    )
    coefficients = torch.tensor([each.sparsity_coefficient for each in members], device=device) * gating.mixes
    folded = fold_experts(backbone, experts) if folded is None else folded
    with Attachment.whole(backbone) as attachment:
        _replace_norms(backbone, matrix, attachment)
        for place in list(linear_layers(backbone)):
            _replace(place, matrix, attachment, folded if experts else {}, signal, gating, positions)
        prompt = GroupedPrompt(matrix, *_guide(members, experts, device))
        model = prompted(backbone, prompt, attachment, signal, {"values": matrix.values})
    return GroupedModel(model, matrix, coefficients, sparsity_positions=positions)


def _guide(
    members: Sequence[Member], experts: Sequence[Expert], device: torch.device
) -> tuple[CorrelationGuidedPrompt | None, Float[Tensor, " N"]]:
    factors = torch.tensor([each.guidance for each in members], device=device)
    guided = [each for each in members if each.guidance]
    if not guided:
        return None, factors
    sources = [expert.tensors["prompt"].to(device) for expert in experts]
    return CorrelationGuidedPrompt(sources[0], sources, dropout=guided[0].prompt_dropout), factors


def _replace_norms(backbone: Any, matrix: TensorMatrix, attachment: Attachment) -> None:
    norms = family_of(backbone).norms
    for name, parent, attribute in list(layer_norms(backbone)):
        if matrix.shapes(name):
            base_layer = getattr(parent, attribute)
            epsilon: float = getattr(base_layer, norms.epsilon)
            norm = GroupedLayerNorm(name, matrix, base_layer, epsilon=epsilon, offset=float(norms.unit_offset))
            attachment.replace(parent, attribute, norm)


def _replace(
    place: LinearPlace,
    matrix: TensorMatrix,
    attachment: Attachment,
    folded: FoldedLayers,
    signal: ForwardSignal,
    gating: Gating,
    sparsity_positions: SparsityPositions,
) -> None:
    """Replace one linear layer if some model changes it."""
    has_adapter = place.role == "wo" and bool(matrix.shapes(f"{place.key}.adapter.down.weight"))
    adapter = GroupedAdapter(f"{place.key}.adapter", matrix) if has_adapter else None
    if place.key in folded:
        experts = folded[place.key]
        gate = GroupedGate(place, matrix, experts, signal, gating)
        if place.role == "wo":
            output: MixedLinear = GroupedMixture(
                place, experts, gate, signal, adapter=adapter, sparsity_positions=sparsity_positions
            )
        else:
            output = MixedLinear(place.stack, place.key, experts, gate, signal)
        attachment.replace(place.parent, place.attribute, output)
    elif adapter is not None:
        attachment.replace(place.parent, place.attribute, AdaptedOutput(place.layer, adapter))

"""Build every model from a backbone and named tensors.

A model is always built from its complete set of tensors: new ones from `initial_*_tensors`, stored ones from an
artifact. An artifact therefore holds everything that was trained.

    source:  prompt, <stack>.<i>.down (R, F), <stack>.<i>.up (D, R); an imported one may have a pair at any other linear
             layer, <layer>.{down,up}, by the layer's name in the backbone
    target:  prompt, <stack>.<i>.gate (F or D, E; other gates: pemt_core.methods.gates), <stack>.<i>.adapter.{down,up}.
             {weight,bias}, <layer>.gate where an expert has a pair at another linear layer, and every layer norm's
             scale under its name in the backbone's state dict
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pemt_core.model.attachment import Attachment, copied
from pemt_core.model.experts import FoldedExperts
from pemt_core.model.gate import PUBLISHED, Gates, is_of_gate
from pemt_core.model.layer_norm import initial_scales, trained_norms
from pemt_core.model.mixture import MixedLinear, MixtureOutput, SparsityGradient, SparsityPositions
from pemt_core.model.prompt import CorrelationGuidedPrompt, Guide, TaskPrompt
from pemt_core.model.prompted import PromptedModel
from pemt_core.model.prompting import prompted
from pemt_core.model.signal import ForwardSignal
from pemt_core.model.source_adapter import source_adapted_outputs
from pemt_core.model.stacks import LinearPlace, adapted_layers, embedded, feed_forwards, linear_layers, width
from pemt_core.model.target_adapter import AdaptedOutput, adapter_of, initial_adapter

FoldedLayers = Mapping[str, FoldedExperts]
_Weight = TypeVar("_Weight", bound=Tensor)


@dataclass(frozen=True)
class Expert:
    """A source adapter in stage 2: the frozen tensors of one source task, and their scale s = alpha / rank."""

    task: str
    tensors: Mapping[str, Tensor]
    scale: float
    lone_prompt: Float[Tensor, "P D"] | None = None  # the source's prompt that was trained without an adapter


def initial_prompt(
    backbone: Any,
    description_ids: Int[Tensor, " P"],
    init: Literal["vocab", "normal"],
    generator: torch.Generator,
) -> Float[Tensor, "P D"]:
    """P vectors: the embeddings of the description's tokens (vocab), or N(0, 1), which the authors' code amounts to."""
    if init == "normal":
        return torch.randn(len(description_ids), width(backbone), generator=generator)
    return embedded(backbone, description_ids)


def source_shapes(
    backbone: Any, num_prompt_tokens: int, rank_of: Callable[[str], int], named: Collection[str] = ()
) -> dict[str, tuple[int, int]]:
    """The shape of every tensor of a source adapter whose layer has the rank `rank_of` its key, such as "encoder.0".

    It has a pair at every `wo`, and at the other linear layers whose pairs are among the tensors `named`.
    """
    shapes = {"prompt": (num_prompt_tokens, width(backbone))}
    for place in adapted_layers(backbone, named):
        (num_outputs, num_inputs), rank = place.layer.weight.shape, rank_of(place.key)
        shapes |= {f"{place.key}.down": (rank, num_inputs), f"{place.key}.up": (num_outputs, rank)}
    return shapes


def initial_source_tensors(
    backbone: Any,
    prompt: Float[Tensor, "P D"],
    *,
    rank: int,
    init: Literal["zero", "kaiming"],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Stage 1 at step 0: V is Kaiming-uniform (a = sqrt 5), U is zero (step 0 equals the backbone) or the same."""
    tensors = {"prompt": prompt}
    for place in feed_forwards(backbone):
        d_model, d_ff = place.layer.weight.shape
        down, up = torch.empty(rank, d_ff), torch.zeros(d_model, rank)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        if init == "kaiming":
            nn.init.kaiming_uniform_(up, a=math.sqrt(5), generator=generator)
        tensors |= {f"{place.key}.down": down, f"{place.key}.up": up}
    return tensors


def initial_target_tensors(
    backbone: Any,
    prompt: Float[Tensor, "P D"],
    experts: Sequence[Expert],
    *,
    reduction_factor: int | None,
    generator: torch.Generator,
    gates: Gates = PUBLISHED,
    norms: bool = True,
) -> dict[str, Tensor]:
    """Stage 2 at step 0: target adapters from N(0, 0.01) with zero biases, the backbone's layer norms, initial gates.

    Without `experts`, there are no gates; with `reduction_factor` None, no target adapters; without `norms`, the
    backbone's layer norms stay. Random gates are drawn last, so that the target adapters do not depend on them.
    """
    adapters = {
        place.key: {} if reduction_factor is None else _initial_adapter(place, reduction_factor, generator)
        for place in feed_forwards(backbone)
    }
    weights = gates.initial_tensors(_mixed(backbone, experts), len(experts), generator) if experts else {}
    tensors = {"prompt": prompt}
    for key, adapter in adapters.items():
        tensors |= _of_layer(weights, key) | adapter
    tensors |= weights
    return tensors | initial_scales(backbone) if norms else tensors


def _initial_adapter(place: LinearPlace, reduction_factor: int, generator: torch.Generator) -> dict[str, Tensor]:
    d_model = place.layer.out_features
    return initial_adapter(f"{place.key}.adapter", d_model, max(1, d_model // reduction_factor), generator)


def build_source_model(backbone: Any, tensors: Mapping[str, Tensor], *, scale: float) -> PromptedModel:
    """Build stage 1: source adapters parallel to every `wo`, and the task prompt; everything else is frozen.

    An imported source that is trained further may also have pairs at other linear layers.
    """
    tensors = copied(tensors, backbone)
    prompt = TaskPrompt(tensors["prompt"])
    with Attachment.whole(backbone) as attachment:
        adapters = attachment.make(source_adapted_outputs(backbone, tensors, scale=scale))
        return prompted(backbone, prompt, attachment, ForwardSignal(), {"prompt": prompt.vectors} | adapters)


def fold_experts(backbone: Any, experts: Sequence[Expert]) -> FoldedLayers:
    """Fold the experts of every linear layer where one has a pair, by its key; the result is empty without experts."""
    return {place.key: _fold(place, experts) for place in _mixed(backbone, experts)}


def build_target_model(
    backbone: Any,
    tensors: Mapping[str, Tensor],
    experts: Sequence[Expert],
    *,
    prompt_dropout: float,
    sparsity_coefficient: float,
    sparsity_positions: SparsityPositions = "all",
    sparsity_gradient: SparsityGradient = "full",
    guided_prompt: bool = True,
    guide: Guide = "sum",
    target_adapter: bool = True,
    norms: bool = True,
    gates: Gates = PUBLISHED,
    folded: FoldedLayers | None = None,
) -> PromptedModel:
    """Build stage 2: mixture, gate and target adapter at every `wo`, the target's layer norms, its guided prompt.

    Any other linear layer where some expert has a pair gets a mixture and a gate. Without experts, the prompt is plain,
    and there are neither gates nor a sparsity loss. Without `norms`, those of the backbone stay. `folded` is the result
    of `fold_experts` for the same experts; targets that share it keep the experts in memory only once.
    """
    if folded is None:
        folded = fold_experts(backbone, experts)
    signal, tensors = ForwardSignal(), copied(tensors, backbone)
    prompt = _target_prompt(tensors["prompt"], experts if guided_prompt else (), prompt_dropout, guide)
    weights = {name: nn.Parameter(tensor) for name, tensor in tensors.items() if is_of_gate(name)}
    mixture = partial(MixtureOutput, sparsity_positions=sparsity_positions, sparsity_gradient=sparsity_gradient)
    trained = {"prompt": prompt.vectors}
    with Attachment.whole(backbone) as attachment:
        trained |= attachment.make(trained_norms(backbone, tensors) if norms else ())
        for place in list(linear_layers(backbone)):
            has_adapter = target_adapter and place.role == "wo"
            adapter, own = adapter_of(tensors, f"{place.key}.adapter") if has_adapter else (None, {})
            trained |= own
            if place.key in folded:
                gate = gates.build(place, weights, folded[place.key], signal)
                trained |= _of_layer(weights, place.key)
                make = partial(mixture, adapter=adapter) if place.role == "wo" else MixedLinear
                output = make(place.stack, place.key, folded[place.key], gate, signal)
                attachment.replace(place.parent, place.attribute, output)
            elif adapter is not None:
                attachment.replace(place.parent, place.attribute, AdaptedOutput(place.layer, adapter))
        penalty = partial(gates.penalty, weights) if experts and gates.penalty else None
        coefficient = sparsity_coefficient if experts else 0.0
        return prompted(
            backbone, prompt, attachment, signal, trained | weights, sparsity_coefficient=coefficient, penalty=penalty
        )


def _target_prompt(
    vectors: Float[Tensor, "P D"], guides: Sequence[Expert], dropout: float, guide: Guide
) -> TaskPrompt | CorrelationGuidedPrompt:
    if not guides:
        return TaskPrompt(vectors)
    sources = [expert.tensors["prompt"].to(vectors.device) for expert in guides]
    return CorrelationGuidedPrompt(vectors, sources, dropout=dropout, guide=guide)


def _of_layer(weights: Mapping[str, _Weight], key: str) -> dict[str, _Weight]:
    """The tensors of one layer's gate."""
    return {name: weight for name, weight in weights.items() if name.startswith(f"{key}.")}


def _mixed(backbone: Any, experts: Sequence[Expert]) -> list[LinearPlace]:
    """The linear layers where the experts are mixed: every `wo`, and the others where some expert has a pair."""
    return adapted_layers(backbone, {name for expert in experts for name in expert.tensors}) if experts else []


def _fold(place: LinearPlace, experts: Sequence[Expert]) -> FoldedExperts:
    """All experts of a layer; one without a pair there has a pair of zeros, so that its weight adds nothing."""
    weight = place.layer.weight
    absent = torch.zeros(1, weight.shape[1]), torch.zeros(weight.shape[0], 1)
    names = f"{place.key}.down", f"{place.key}.up"
    downs, ups = (
        [expert.tensors.get(name, zeros).to(weight.device) for expert in experts]
        for name, zeros in zip(names, absent, strict=True)
    )
    return FoldedExperts(place.layer, downs, ups, scales=[expert.scale for expert in experts])

"""Bottleneck adapters in two places per layer (Houlsby et al. 2019, arXiv 1902.00751, as Compacter's code has them)."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pemt_core.model.attachment import Change
from pemt_core.model.stacks import LinearPlace, linear_layers
from pemt_core.model.target_adapter import AdaptedOutput, adapter_of, initial_adapter


def initial_adapters(backbone: Any, reduction_factor: int, generator: torch.Generator) -> dict[str, Tensor]:
    """<layer>.adapter.{down,up}.{weight,bias}: weights from N(0, 0.01), biases 0; D / `reduction_factor` wide."""
    tensors: dict[str, Tensor] = {}
    for place in _places(backbone):
        d_model = place.layer.out_features
        bottleneck = max(1, d_model // reduction_factor)
        tensors |= initial_adapter(f"{place.name}.adapter", d_model, bottleneck, generator)
    return tensors


def adapted_outputs(backbone: Any, tensors: Mapping[str, Tensor]) -> Iterator[Change]:
    """Put adapters after the last layer of every self-attention and feed-forward, before dropout and residual."""
    for place in _places(backbone):
        adapter, trained = adapter_of(tensors, f"{place.name}.adapter")
        yield Change(place.parent, place.attribute, AdaptedOutput(place.layer, adapter), trained)


def _places(backbone: Any) -> list[LinearPlace]:
    """The outputs of self-attentions and feed-forwards; none of cross-attentions."""
    return [each for each in linear_layers(backbone) if each.role in ("o", "wo") and not each.in_cross_attention]

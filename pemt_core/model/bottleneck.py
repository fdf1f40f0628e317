"""Bottleneck adapters in two places per layer (Houlsby et al. 2019, arXiv 1902.00751, as Compacter's code has them)."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pemt_core.model.assemble import ADAPTER_TENSORS, TARGET_ADAPTER_STD
from pemt_core.model.attachment import Change
from pemt_core.model.stacks import LinearPlace, linear_layers
from pemt_core.model.target_adapter import AdaptedOutput, TargetAdapter


def initial_adapters(backbone: Any, bottleneck: int, generator: torch.Generator) -> dict[str, Tensor]:
    """<layer>.adapter.{down,up}.{weight,bias}: weights from N(0, 0.01), biases 0."""
    tensors, d_model = {}, backbone.config.d_model
    for place in _places(backbone):
        for name, shape in (("down", (bottleneck, d_model)), ("up", (d_model, bottleneck))):
            key = f"{place.name}.adapter.{name}"
            tensors[f"{key}.weight"] = TARGET_ADAPTER_STD * torch.randn(shape, generator=generator)
            tensors[f"{key}.bias"] = torch.zeros(shape[0])
    return tensors


def adapted_outputs(backbone: Any, tensors: Mapping[str, Tensor]) -> Iterator[Change]:
    """Put adapters after the last layer of every self-attention and feed-forward, before dropout and residual."""
    for place in _places(backbone):
        key = f"{place.name}.adapter"
        bottleneck, d_model = tensors[f"{key}.down.weight"].shape
        adapter = TargetAdapter(d_model, bottleneck)
        adapter.load_state_dict({name: tensors[f"{key}.{name}"] for name in ADAPTER_TENSORS}, assign=True)
        trained = {f"{key}.{name}": adapter.get_parameter(name) for name in ADAPTER_TENSORS}
        yield Change(place.parent, place.attribute, AdaptedOutput(place.layer, adapter), trained)


def _places(backbone: Any) -> list[LinearPlace]:
    """The outputs of self-attentions and feed-forwards; none of cross-attentions."""
    return [place for place in linear_layers(backbone) if place.name.endswith(("SelfAttention.o", ".wo"))]

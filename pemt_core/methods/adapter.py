"""Bottleneck adapters with layer norms (Houlsby et al. 2019, in Compacter's configuration)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pemt_core.methods.without_sources import WithoutSources
from pemt_core.schema.numbers import Count

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pemt_core.model.attachment import Change


class BottleneckAdapter(WithoutSources):
    """Adapters after every self-attention and feed-forward, before dropout and residual; all layer norms train too."""

    kind: Literal["adapter"]
    reduction_factor: Count = 32  # bottleneck: d_model / reduction_factor

    def start(self, backbone: Any, generator: "torch.Generator") -> "dict[str, Tensor]":
        from pemt_core.model.bottleneck import initial_adapters
        from pemt_core.model.layer_norm import initial_scales

        return {**initial_adapters(backbone, self.reduction_factor, generator), **initial_scales(backbone)}

    def changes(self, backbone: Any, tensors: "Mapping[str, Tensor]") -> "Iterable[Change]":
        from pemt_core.model.bottleneck import adapted_outputs
        from pemt_core.model.layer_norm import trained_norms

        return [*adapted_outputs(backbone, tensors), *trained_norms(backbone, tensors)]

    @property
    def title(self) -> str:
        return "Adapter"

    def about(self, known: Sequence[str]) -> str:
        return f"bottlenecks of d_model / {self.reduction_factor} after self-attention and feed-forward; layer norms"

"""Layer norms alone."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pemt_core.methods.without_sources import WithoutSources

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pemt_core.model.attachment import Change


class Norms(WithoutSources):
    """The scales of all layer norms are trained, and nothing else."""

    kind: Literal["norms"]

    def start(self, backbone: Any, generator: "torch.Generator") -> "dict[str, Tensor]":
        from pemt_core.model.layer_norm import initial_scales

        return initial_scales(backbone)

    def changes(self, backbone: Any, tensors: "Mapping[str, Tensor]") -> "Iterable[Change]":
        from pemt_core.model.layer_norm import trained_norms

        return trained_norms(backbone, tensors)

    @property
    def title(self) -> str:
        return "Layer norms"

    def about(self, known: Sequence[str]) -> str:
        return "the scales of the layer norms alone"

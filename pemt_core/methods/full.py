"""Full fine-tuning."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pemt_core.methods.without_sources import WithoutSources

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pemt_core.model.attachment import Change


class Full(WithoutSources):
    """Every weight is trained: tied embeddings as one, relative-position tables included. A cell stores all of them."""

    kind: Literal["full"]

    def start(self, backbone: Any, generator: "torch.Generator") -> "dict[str, Tensor]":
        from pemt_core.model.all_weights import initial_weights

        return initial_weights(backbone)

    def changes(self, backbone: Any, tensors: "Mapping[str, Tensor]") -> "Iterable[Change]":
        from pemt_core.model.all_weights import trained_weights

        return trained_weights(backbone, tensors)

    @property
    def title(self) -> str:
        return "Full fine-tuning"

    def about(self, known: Sequence[str]) -> str:
        return ""

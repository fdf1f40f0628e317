"""IA3 (Liu et al. 2022)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pemt_core.methods.without_sources import WithoutSources

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pemt_core.model.attachment import Change


class Ia3(WithoutSources):
    """Factors, 1 at the start, of keys, values and the input of `wo`."""

    kind: Literal["ia3"]

    def start(self, backbone: Any, generator: "torch.Generator") -> "dict[str, Tensor]":
        from pemt_core.model.rescaled import initial_factors

        return initial_factors(backbone)

    def changes(self, backbone: Any, tensors: "Mapping[str, Tensor]") -> "Iterable[Change]":
        from pemt_core.model.rescaled import rescaled_layers

        return rescaled_layers(backbone, tensors)

    @property
    def title(self) -> str:
        return "IA3"

    def about(self, known: Sequence[str]) -> str:
        return "factors of keys, values and the feed-forward's inner activations"

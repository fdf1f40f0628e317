"""BitFit (Ben Zaken et al. 2022): biases alone."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pemt_core.methods.without_sources import WithoutSources

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pemt_core.model.attachment import Change


class BitFit(WithoutSources):
    """Biases, zero at the start, are added to every linear layer and layer norm in the blocks, and to the head."""

    kind: Literal["bitfit"]
    head: bool = True  # the head's bias can learn how often each answer occurs

    def start(self, backbone: Any, generator: "torch.Generator") -> "dict[str, Tensor]":
        from pemt_core.model.added_bias import initial_biases

        return initial_biases(backbone, with_head=self.head)

    def changes(self, backbone: Any, tensors: "Mapping[str, Tensor]") -> "Iterable[Change]":
        from pemt_core.model.added_bias import added_biases

        return added_biases(backbone, tensors, with_head=self.head)

    @property
    def title(self) -> str:
        return "BitFit"

    def about(self, known: Sequence[str]) -> str:
        return "added biases" if self.head else "added biases, without the head's"

"""Sequential transfer: a source's adapter and prompt are trained further on the target, without a mixture."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pemt_core.methods.method import Method
from pemt_core.methods.sources import OneSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pemt_core.model.assemble import Expert, FoldedLayers
    from pemt_core.model.prompted import PromptedModel


class Sequential(OneSource, Method):
    """Stage 1 once more, on the target, from where one source ended: U, V and prompt, with the source's scale.

    With `source: validation`, each source is a configuration of its own at every learning rate.
    """

    kind: Literal["sequential"]

    def initial_tensors(
        self, backbone: Any, description_ids: "Tensor", experts: "Sequence[Expert]", generator: "torch.Generator"
    ) -> "dict[str, Tensor]":
        """The source's tensors. With the source still to be chosen, they are the first one's."""
        return dict(experts[0].tensors)

    def build(
        self,
        backbone: Any,
        tensors: "Mapping[str, Tensor]",
        experts: "Sequence[Expert]",
        folded: "FoldedLayers | None" = None,
    ) -> "PromptedModel":
        from pemt_core.model.assemble import build_source_model

        self.check_is_chosen()
        return build_source_model(backbone, tensors, scale=experts[0].scale)

    @property
    def title(self) -> str:
        return "Sequential transfer"

    def about(self, known: Sequence[str]) -> str:
        return f"the adapter and the prompt of {self.about_source()}, trained further on the target"

"""PEMT with one source, which validation selects: what a mixture of several must be better than."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pemt_core.methods.pemt import Pemt
from pemt_core.methods.sources import OneSource

if TYPE_CHECKING:
    from torch import Tensor

    from pemt_core.model.assemble import Expert, FoldedLayers
    from pemt_core.model.prompted import PromptedModel


class Single(OneSource, Pemt):
    """Stage 2 with the adapter of one source at full weight, so there is no gate; all else as in PEMT.

    With `source: validation`, each source is a configuration of its own at every learning rate.
    """

    kind: Literal["single"]  # type: ignore[assignment]
    gate: Literal["uniform"] = "uniform"

    def build(
        self,
        backbone: Any,
        tensors: "Mapping[str, Tensor]",
        experts: "Sequence[Expert]",
        folded: "FoldedLayers | None" = None,
    ) -> "PromptedModel":
        self.check_is_chosen()
        return super().build(backbone, tensors, experts, folded)

    @property
    def title(self) -> str:
        return "Single source"

    def about(self, known: Sequence[str]) -> str:
        parts = [*self.about_parts(), *self.about_control()]
        return " ".join([f"PEMT with {self.about_source()} alone", *(f"and {part}" for part in parts)])

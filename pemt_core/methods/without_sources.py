"""What kinds that read neither sources nor a prompt have in common."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pemt_core.methods.method import Method

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pemt_core.model.assemble import Expert, FoldedLayers
    from pemt_core.model.attachment import Change
    from pemt_core.model.prompted import PromptedModel


class WithoutSources(Method):
    """A way to adapt a target by what a backbone's modules are replaced with. The text has no prompt: P = 0."""

    @abstractmethod
    def start(self, backbone: Any, generator: "torch.Generator") -> "dict[str, Tensor]":
        """`initial_tensors`; they may be the backbone's, which `build` copies."""

    @abstractmethod
    def changes(self, backbone: Any, tensors: "Mapping[str, Tensor]") -> "Iterable[Change]":
        """The replacements of the backbone's modules or parameters, whose parameters are `tensors`."""

    def draws_on(self, known: Sequence[str]) -> list[str]:
        return []

    def initial_tensors(
        self, backbone: Any, description_ids: "Tensor", experts: "Sequence[Expert]", generator: "torch.Generator"
    ) -> "dict[str, Tensor]":
        return self.start(backbone, generator)

    def build(
        self,
        backbone: Any,
        tensors: "Mapping[str, Tensor]",
        experts: "Sequence[Expert]",
        folded: "FoldedLayers | None" = None,
    ) -> "PromptedModel":
        from pemt_core.model.attachment import copied
        from pemt_core.model.promptless import build_promptless_model

        return build_promptless_model(backbone, self.changes(backbone, copied(tensors, backbone)))

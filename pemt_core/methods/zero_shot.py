"""The backbone as it is, asked in words: what any training must be better than."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from pemt_core.methods.untrained import Untrained

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pemt_core.model.assemble import Expert, FoldedLayers
    from pemt_core.model.prompted import PromptedModel


class ZeroShot(Untrained):
    """The target's description, or another text, in the place of a trained prompt; nothing is trained."""

    kind: Literal["zero_shot"]
    description: Annotated[str, Field(min_length=1, max_length=2000)] | None = None  # None: the target's

    def draws_on(self, known: Sequence[str]) -> list[str]:
        return []

    def prompt_text(self, description: str) -> str:
        return self.description or description

    def initial_tensors(
        self, backbone: Any, description_ids: "Tensor", experts: "Sequence[Expert]", generator: "torch.Generator"
    ) -> "dict[str, Tensor]":
        from pemt_core.model.stacks import embedded

        return {"prompt": embedded(backbone, description_ids)}

    def build(
        self,
        backbone: Any,
        tensors: "Mapping[str, Tensor]",
        experts: "Sequence[Expert]",
        folded: "FoldedLayers | None" = None,
    ) -> "PromptedModel":
        from pemt_core.model.prompt_tuning import build_prompt_model

        return build_prompt_model(backbone, tensors)

    @property
    def title(self) -> str:
        return "Zero-shot"

    def about(self, known: Sequence[str]) -> str:
        words = "the target's description" if self.description is None else "a description"
        return f"the backbone as it is, with {words} beside the text"

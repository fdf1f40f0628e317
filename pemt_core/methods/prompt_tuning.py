"""Prompt tuning (Lester, Al-Rfou and Constant 2021): trained vectors before the text, and nothing else."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pemt_core.methods.method import Method
from pemt_core.schema.numbers import Count, Short

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pemt_core.model.assemble import Expert, FoldedLayers
    from pemt_core.model.prompted import PromptedModel


class PromptTuning(Method):
    """A prompt of `length` vectors beside the text; no sources."""

    kind: Literal["prompt_tuning"]
    length: Count = 100
    init: Literal["vocab5000", "normal", "text"] = "vocab5000"
    text: Short | None = None  # for the init `text`; None: the target's description

    def draws_on(self, known: Sequence[str]) -> list[str]:
        return []

    def prompt_text(self, description: str) -> str:
        return self.text or description

    def initial_tensors(
        self, backbone: Any, description_ids: "Tensor", experts: "Sequence[Expert]", generator: "torch.Generator"
    ) -> "dict[str, Tensor]":
        from pemt_core.model.prompt_tuning import initial_prompt_tensors

        return initial_prompt_tensors(
            backbone, length=self.length, init=self.init, ids=description_ids, generator=generator
        )

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
        return "Prompt tuning"

    def about(self, known: Sequence[str]) -> str:
        return f"{self.length} trained vectors before the text, and nothing else"

"""DePT (Shi and Lipani 2024): a short prompt, and a low-rank change of the text's embeddings by position."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pemt_core.methods.prompt_tuning import PromptTuning
from pemt_core.schema.numbers import Count, Rate, Short

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pemt_core.model.assemble import Expert, FoldedLayers
    from pemt_core.model.prompted import PromptedModel

PUBLISHED_TEXT = "Classify this text is postive or not:"  # spelled as in the authors' configuration, for every task


class Dept(PromptTuning):
    """A prompt of `length` vectors and a pair A (source_length, rank), B (rank, D); no sources.

    Published rates are 0.3 or 0.4 for the prompt, and 5e-3, 1e-3, 5e-4 or 1e-4 for the pair, chosen per task.
    """

    kind: Literal["dept"]  # type: ignore[assignment]
    length: Count = 60
    rank: Count = 30
    init: Literal["vocab5000", "normal", "text"] = "text"
    text: Short | None = PUBLISHED_TEXT  # for the init `text`; None: the target's description
    pair_factor: Rate = 1e-3 / 0.3  # the pair's learning rate over the prompt's

    def learning_rate_factors(self, names: Sequence[str]) -> Mapping[str, float]:
        return {name: self.pair_factor for name in names if name.startswith("pair.")}

    def initial_tensors(
        self, backbone: Any, description_ids: "Tensor", experts: "Sequence[Expert]", generator: "torch.Generator"
    ) -> "dict[str, Tensor]":
        from pemt_core.model.decomposed_prompt import initial_pair_tensors
        from pemt_core.model.stacks import width

        prompt = super().initial_tensors(backbone, description_ids, experts, generator)
        pair = initial_pair_tensors(width(backbone), positions=self.source_length, rank=self.rank, generator=generator)
        return prompt | pair

    def build(
        self,
        backbone: Any,
        tensors: "Mapping[str, Tensor]",
        experts: "Sequence[Expert]",
        folded: "FoldedLayers | None" = None,
    ) -> "PromptedModel":
        from pemt_core.model.decomposed_prompt import build_decomposed_prompt_model

        return build_decomposed_prompt_model(backbone, tensors)

    @property
    def title(self) -> str:
        return "DePT"

    def about(self, known: Sequence[str]) -> str:
        return f"{self.length} trained vectors before the text, and a change of rank {self.rank} of its embeddings"

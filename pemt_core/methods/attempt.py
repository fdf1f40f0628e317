"""ATTEMPT (Asai et al. 2022): prompts of sources, mixed for each text by a trained attention."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pemt_core.methods.method import Method
from pemt_core.methods.sources import LonePromptChoice, lone_prompts, without_sources
from pemt_core.schema.numbers import Count, Rate

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pemt_core.model.assemble import Expert, FoldedLayers
    from pemt_core.model.prompted import PromptedModel


class Attempt(LonePromptChoice, Method):
    """A prompt that starts as the first source's, plus an attention over the frozen source prompts and itself.

    The authors' code counts padding in the maximum over a text (`pooling: all`) and freezes the layer norm, with
    230,400 trained parameters on t5-base; the paper's 232K include the norm (`norm: trained`).
    """

    kind: Literal["attempt"]
    bottleneck: Count = 100
    pooling: Literal["unpadded", "all"] = "unpadded"
    norm: Literal["frozen", "trained"] = "frozen"
    attention_factor: Rate = 1.0  # the attention's learning rate over the prompt's; in the authors' code they are equal

    def learning_rate_factors(self, names: Sequence[str]) -> Mapping[str, float]:
        return {name: self.attention_factor for name in names if name.startswith("attention.")}

    def initial_tensors(
        self, backbone: Any, description_ids: "Tensor", experts: "Sequence[Expert]", generator: "torch.Generator"
    ) -> "dict[str, Tensor]":
        from pemt_core.model.attended_prompt import initial_attention_tensors
        from pemt_core.model.stacks import width

        attention = initial_attention_tensors(
            width(backbone),
            bottleneck=self.bottleneck,
            trains_norm=self.norm == "trained",
            generator=generator,
        )
        return {"prompt": lone_prompts(experts)[0], **attention}

    def build(
        self,
        backbone: Any,
        tensors: "Mapping[str, Tensor]",
        experts: "Sequence[Expert]",
        folded: "FoldedLayers | None" = None,
    ) -> "PromptedModel":
        from pemt_core.model.attended_prompt import build_attended_prompt_model

        return build_attended_prompt_model(backbone, tensors, lone_prompts(experts), pooling=self.pooling)

    @property
    def title(self) -> str:
        return "ATTEMPT"

    def about(self, known: Sequence[str]) -> str:
        absent = without_sources(known, self.draws_on(known))
        return f"an attention from each text to the prompts of the sources{f', {absent}' if absent else ''}"

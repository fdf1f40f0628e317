"""SPoT (Vu et al. 2022): prompt tuning that starts from the prompt of one source."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pemt_core.errors import SettingsError, nearest
from pemt_core.methods.method import Method
from pemt_core.methods.sources import BY_VALIDATION, ChosenSource, LonePromptChoice, lone_prompts
from pemt_core.schema.numbers import Short

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pemt_core.model.assemble import Expert, FoldedLayers
    from pemt_core.model.prompted import PromptedModel

RULES = ("similarity", BY_VALIDATION)


class Spot(ChosenSource, LonePromptChoice, Method):
    """Prompt tuning from a source's prompt: of a named source, or of one that a rule chooses.

    similarity: the source whose prompt has the greatest cosine with the target's, both averaged over their vectors; the
    target's are the embeddings of its description (SPoT trains a target prompt for this). validation: every source
    is trained, and the best on validation is kept. No rule reads the test rows.
    """

    kind: Literal["spot"]
    source: Short = "similarity"  # a source's name, or one of RULES

    def draws_on(self, known: Sequence[str]) -> list[str]:
        chosen = super().draws_on(known)
        if self.source in RULES:
            return chosen
        if self.source not in chosen:
            raise SettingsError(
                f"source is '{self.source}', expected a source that the method uses, or one of {', '.join(RULES)}; "
                f"{nearest(self.source, [*chosen, *RULES])}"
            )
        return [self.source]

    def initial_tensors(
        self, backbone: Any, description_ids: "Tensor", experts: "Sequence[Expert]", generator: "torch.Generator"
    ) -> "dict[str, Tensor]":
        """With the rule validation, the start is the first source's: `options` are what is trained."""
        prompts = lone_prompts(experts)
        chosen = _most_similar(backbone, description_ids, prompts) if self.source == "similarity" else 0
        return {"prompt": prompts[chosen]}

    def build(
        self,
        backbone: Any,
        tensors: "Mapping[str, Tensor]",
        experts: "Sequence[Expert]",
        folded: "FoldedLayers | None" = None,
    ) -> "PromptedModel":
        from pemt_core.model.prompt_tuning import build_prompt_model

        self.check_is_chosen()
        return build_prompt_model(backbone, tensors)

    @property
    def title(self) -> str:
        return "SPoT"

    def about(self, known: Sequence[str]) -> str:
        start = {"similarity": "the most similar source", "validation": "the source that is best on validation"}
        return f"prompt tuning from the prompt of {start.get(self.source, self.source)}"


def _most_similar(backbone: Any, description_ids: "Tensor", prompts: "Sequence[Tensor]") -> int:
    """The index of the prompt closest to the description's embeddings; the first of equals."""
    import torch

    embeddings = backbone.get_input_embeddings().weight.detach()
    if embeddings.is_meta:  # shapes alone are asked for, and all prompts have the same
        return 0
    target = embeddings[description_ids.to(embeddings.device)].float().mean(0).cpu()
    means = torch.stack([prompt.float().mean(0).cpu() for prompt in prompts])
    return int(torch.cosine_similarity(means, target.unsqueeze(0), dim=-1).argmax())

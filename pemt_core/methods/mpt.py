"""MPT (Wang et al. 2023) without its distillation: a prompt shared by the sources, rescaled for the target."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pemt_core.methods.method import Method
from pemt_core.methods.sources import LonePromptChoice, lone_prompts, without_sources
from pemt_core.schema.numbers import Rate

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pemt_core.model.assemble import Expert, FoldedLayers
    from pemt_core.model.prompted import PromptedModel


class Mpt(LonePromptChoice, Method):
    """The prompt P* o (u v^T), all trained: P* starts as the mean of the source prompts, u = v = 1.

    Published MPT distils P* from all sources jointly, which is not done here: in reports it is "MPT without
    distillation". Published rates are 0.3 for P* and 0.4 for u and v.
    """

    kind: Literal["mpt"]
    scales_factor: Rate = 0.4 / 0.3  # the learning rate of u and v over that of P*

    def learning_rate_factors(self, names: Sequence[str]) -> Mapping[str, float]:
        return {name: self.scales_factor for name in names if name in ("prompt.u", "prompt.v")}

    def initial_tensors(
        self, backbone: Any, description_ids: "Tensor", experts: "Sequence[Expert]", generator: "torch.Generator"
    ) -> "dict[str, Tensor]":
        import torch

        from pemt_core.model.multitask_prompt import initial_multitask_prompt_tensors

        return initial_multitask_prompt_tensors(torch.stack(lone_prompts(experts)).mean(0))

    def build(
        self,
        backbone: Any,
        tensors: "Mapping[str, Tensor]",
        experts: "Sequence[Expert]",
        folded: "FoldedLayers | None" = None,
    ) -> "PromptedModel":
        from pemt_core.model.multitask_prompt import build_multitask_prompt_model

        return build_multitask_prompt_model(backbone, tensors)

    @property
    def title(self) -> str:
        return "MPT without distillation"

    def about(self, known: Sequence[str]) -> str:
        absent = without_sources(known, self.draws_on(known))
        start = f"the mean of the source prompts{f', {absent}' if absent else ''}"
        return f"a prompt from {start}, scaled by a trained matrix of rank 1; P* is not distilled"

"""PEMT (Lin et al. 2024), also with other gates, with fewer sources, or with none."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from pemt_core.errors import SettingsError, nearest
from pemt_core.methods.gates import gate_modules, gates
from pemt_core.methods.method import Method
from pemt_core.schema.numbers import Amount, Count, Fraction, Short

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pemt_core.model.assemble import Expert, FoldedLayers
    from pemt_core.model.prompted import PromptedT5


class Pemt(Method):
    """Stage 2: guided prompt, gated mixture of source adapters, target adapter, layer norms, task sparsity loss.

    Without sources, only the target prompt, target adapters and layer norms are trained.
    """

    kind: Literal["pemt"]
    reduction_factor: Count
    prompt_init: Literal["vocab", "normal"]
    prompt_dropout: Fraction
    sparsity_coefficient: Amount
    sparsity_positions: Literal["all", "unpadded"]
    sources: list[Short] | None = None  # None: all
    without: list[Short] = Field(default_factory=list)  # sources to leave out of these
    gate: str = "input"  # a file of `pemt_core.methods.gates`

    @field_validator("gate")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in gate_modules():
            raise ValueError(f"there is no such gate; {nearest(value, gate_modules())}")
        return value

    def draws_on(self, known: Sequence[str]) -> list[str]:
        for key, named in (("sources", self.sources or ()), ("without", self.without)):
            for source in named:
                if source not in known:
                    raise SettingsError(f"{key} names '{source}', which is not a source; {nearest(source, known)}")
        chosen = known if self.sources is None else self.sources
        left = [source for source in known if source in chosen and source not in self.without]
        if self.without and not left:
            raise SettingsError(f"without leaves out every source: {known}; to use none, set `sources: []`")
        return left

    def initial_tensors(
        self, backbone: Any, description_ids: "Tensor", experts: "Sequence[Expert]", generator: "torch.Generator"
    ) -> "dict[str, Tensor]":
        from pemt_core.model.assemble import initial_prompt, initial_target_tensors

        return initial_target_tensors(
            backbone,
            initial_prompt(backbone, description_ids, self.prompt_init, generator),
            num_experts=len(experts),
            reduction_factor=self.reduction_factor,
            generator=generator,
            gates=gates(self.gate),
        )

    def build(
        self,
        backbone: Any,
        tensors: "Mapping[str, Tensor]",
        experts: "Sequence[Expert]",
        folded: "FoldedLayers | None" = None,
    ) -> "PromptedT5":
        from pemt_core.model.assemble import build_target_model

        return build_target_model(
            backbone,
            tensors,
            experts,
            prompt_dropout=self.prompt_dropout,
            sparsity_coefficient=self.sparsity_coefficient,
            sparsity_positions=self.sparsity_positions,
            gates=gates(self.gate),
            folded=folded,
        )

    @property
    def code(self) -> tuple[str, ...]:
        return (*super().code, gate_modules()[self.gate])

    @property
    def title(self) -> str:
        return "PEMT"

    def about(self, known: Sequence[str]) -> str:
        mixed = self.draws_on(known)
        if not mixed:
            return "stage 2 without sources: target prompt, target adapters and layer norms alone"
        absent = [source for source in known if source not in mixed]
        parts = [f"without the source{'s' if len(absent) > 1 else ''} {', '.join(absent)}"] if absent else []
        parts += [f"with the gate '{self.gate}'"] if self.gate != "input" else []
        return f"PEMT {' and '.join(parts)}" if parts else ""

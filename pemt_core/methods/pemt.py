"""PEMT (Lin et al. 2024), also with other gates, other sources or none, without some of its parts, or as a control."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from pemt_core.errors import SettingsError
from pemt_core.methods.gate_settings import GateSettings
from pemt_core.methods.gates import gate_modules
from pemt_core.methods.method import Method
from pemt_core.methods.sources import SourceChoice, without_sources
from pemt_core.schema.numbers import Amount, Count, Fraction, Seed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pemt_core.model.assemble import Expert, FoldedLayers
    from pemt_core.model.grouped.member import Member
    from pemt_core.model.prompted import PromptedModel

PUBLISHED_SPARSITY = 0.1
GROUPED_GATES = ("input", "static", "uniform")  # those of `pemt_core.model.grouped`


class Pemt(GateSettings, SourceChoice, Method):
    """Stage 2: guided prompt, gated mixture of source adapters, target adapter, layer norms, task sparsity loss.

    Without sources, only the target prompt, target adapters and layer norms are trained. The settings after the first
    five are for ablations and controls; their defaults are the published method. `description` starts the prompt.
    """

    kind: Literal["pemt"]
    reduction_factor: Count
    prompt_init: Literal["vocab", "normal"]
    prompt_dropout: Fraction
    sparsity_coefficient: Amount
    sparsity_positions: Literal["all", "unpadded"]
    sparsity_gradient: Literal["full", "cosines_detached", "weights_detached"] = "full"
    description: Annotated[str, Field(min_length=1, max_length=2000)] | None = None  # None: the target's
    guided_prompt: bool = True  # false: the target's prompt is read without the sources'
    guide: Literal["sum", "mean"] = "sum"  # over the sources, of what they add to a guided prompt
    target_adapter: bool = True
    norms: Literal["trained", "frozen"] = "trained"
    source_adapters: Literal["own", "permuted", "random"] = "own"  # permuted: each source has the next one's
    source_prompts: Literal["own", "shuffled"] = "own"
    source_seed: Seed = 0  # of random adapters and shuffled prompts

    def draws_on(self, known: Sequence[str]) -> list[str]:
        drawn = super().draws_on(known)
        if self.source_adapters == "permuted" and len(drawn) == 1:
            raise SettingsError(f"source_adapters is 'permuted', which needs two sources; there is only {drawn[0]}")
        return drawn

    def prompt_text(self, description: str) -> str:
        return self.description or description

    def learning_rate_factors(self, names: Sequence[str]) -> Mapping[str, float]:
        from pemt_core.model.gate import is_of_gate

        return {name: self.gate_rate for name in names if is_of_gate(name)} if self.gate_rate != 1 else {}

    def initial_tensors(
        self, backbone: Any, description_ids: "Tensor", experts: "Sequence[Expert]", generator: "torch.Generator"
    ) -> "dict[str, Tensor]":
        from pemt_core.model.assemble import initial_prompt, initial_target_tensors

        return initial_target_tensors(
            backbone,
            initial_prompt(backbone, description_ids, self.prompt_init, generator),
            experts,
            reduction_factor=self.reduction_factor if self.target_adapter else None,
            generator=generator,
            gates=self.gates(),
            norms=self.norms == "trained",
        )

    def build(
        self,
        backbone: Any,
        tensors: "Mapping[str, Tensor]",
        experts: "Sequence[Expert]",
        folded: "FoldedLayers | None" = None,
    ) -> "PromptedModel":
        from pemt_core.model.assemble import build_target_model

        return build_target_model(
            backbone,
            tensors,
            self._controlled(experts),
            prompt_dropout=self.prompt_dropout,
            sparsity_coefficient=self.sparsity_coefficient,
            sparsity_positions=self.sparsity_positions,
            sparsity_gradient=self.sparsity_gradient,
            guided_prompt=self.guided_prompt,
            guide=self.guide,
            target_adapter=self.target_adapter,
            norms=self.norms == "trained",
            gates=self.gates(),
            folded=folded if self.source_adapters == "own" else None,
        )

    def member(self, tensors: "Mapping[str, Tensor]", experts: "Sequence[Expert]") -> "Member | None":
        from pemt_core.model.grouped.member import Member

        own = self.source_adapters == "own" and self.source_prompts == "own"
        if experts and not (own and self.sparsity_gradient == "full" and self.gate in GROUPED_GATES):
            return None
        guidance = 1 / len(experts) if experts and self.guide == "mean" else 1.0
        return Member(
            tensors,
            experts,
            guidance=guidance if experts and self.guided_prompt else 0.0,
            sparsity_coefficient=self.sparsity_coefficient if experts else 0.0,
            sparsity_positions=self.sparsity_positions,
            prompt_dropout=self.prompt_dropout,
            normalised=self.gate_input == "normalised",
        )

    def _controlled(self, experts: "Sequence[Expert]") -> "Sequence[Expert]":
        """The experts, changed as a control asks."""
        from pemt_core.model.source_controls import exchanged_adapters, random_adapters, shuffled_prompts

        if self.source_adapters != "own":
            exchanges = self.source_adapters == "permuted"
            experts = exchanged_adapters(experts) if exchanges else random_adapters(experts, self.source_seed)
        return experts if self.source_prompts == "own" else shuffled_prompts(experts, self.source_seed)

    @property
    def code(self) -> tuple[str, ...]:
        return (*super().code, gate_modules()[self.gate])

    @property
    def title(self) -> str:
        return "PEMT"

    def about(self, known: Sequence[str]) -> str:
        mixed = self.draws_on(known)
        if not mixed:
            return " and ".join([self._about_no_sources(), *self._about_prompt()])
        parts = [absent] if (absent := without_sources(known, mixed)) else []
        parts += [*self.about_gates(), *self.about_parts(), *self.about_control()]
        return f"PEMT {' and '.join(parts)}" if parts else ""

    def about_parts(self) -> list[str]:
        """Phrases about everything that is not as published, besides gates and sources."""
        parts = [*self._about_sparsity(), *self._about_prompt()]
        parts += self._about_guide()
        parts += [] if self.target_adapter else ["without target adapters"]
        return parts if self.norms == "trained" else [*parts, "with frozen layer norms"]

    def _about_no_sources(self) -> str:
        trained = ["target prompt"]
        trained += ["target adapters"] if self.target_adapter else []
        trained += ["layer norms"] if self.norms == "trained" else []
        listed = " and ".join([", ".join(trained[:-1]), trained[-1]]) if len(trained) > 1 else trained[0]
        return f"stage 2 without sources: {listed} alone"

    def _about_sparsity(self) -> list[str]:
        coefficient, gradient = self.sparsity_coefficient, self.sparsity_gradient
        if not coefficient:
            return ["without the sparsity loss"]
        parts = [] if coefficient == PUBLISHED_SPARSITY else [f"with the sparsity weight {coefficient:g}"]
        stopped = {"cosines_detached": "no gradient into the cosines", "weights_detached": "none into the weights"}
        return parts if gradient == "full" else [*parts, f"with a sparsity loss that has {stopped[gradient]}"]

    def _about_prompt(self) -> list[str]:
        if self.prompt_init == "normal":
            return ["with a random prompt at the start"]
        return [] if self.description is None else ["with a prompt that starts from another text"]

    def _about_guide(self) -> list[str]:
        if not self.guided_prompt:
            return ["without a guided prompt"]
        return [] if self.guide == "sum" else ["with the mean of the sources' prompts as guide"]

    def about_control(self) -> list[str]:
        """Phrases about what is not the sources' own."""
        adapters = {"own": [], "permuted": ["with adapters exchanged between the sources"],
                    "random": ["with untrained source adapters of the same norm"]}  # fmt: skip
        prompts = [] if self.source_prompts == "own" else ["with shuffled source prompts"]
        return [*adapters[self.source_adapters], *prompts]

"""A source adapter that is trained on the target alone: what transfer from sources is compared with."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pemt_core.methods.without_sources import WithoutSources
from pemt_core.schema.numbers import Rank, Rate

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pemt_core.model.attachment import Change


class LoraWo(WithoutSources):
    """wo(x) + (alpha / rank) U V x in every layer, which starts as stage 1 does, without a prompt."""

    kind: Literal["lora_wo"]
    rank: Rank = 64
    alpha: Rate = 64.0
    init: Literal["zero", "kaiming"] = "zero"  # of U; kaiming: step 0 differs from the backbone

    def start(self, backbone: Any, generator: "torch.Generator") -> "dict[str, Tensor]":
        from pemt_core.model.assemble import initial_source_tensors

        prompt = backbone.get_input_embeddings().weight[:0]
        tensors = initial_source_tensors(backbone, prompt, rank=self.rank, init=self.init, generator=generator)
        return {name: tensor for name, tensor in tensors.items() if name != "prompt"}

    def changes(self, backbone: Any, tensors: "Mapping[str, Tensor]") -> "Iterable[Change]":
        from pemt_core.model.source_adapter import source_adapted_outputs

        return source_adapted_outputs(backbone, tensors, scale=self.alpha / self.rank)

    @property
    def title(self) -> str:
        return "LoRA on wo"

    def about(self, known: Sequence[str]) -> str:
        return f"a source adapter of rank {self.rank}, trained on the target alone"

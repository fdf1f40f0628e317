"""LoRA (Hu et al. 2022), also with BitFit's biases, as Ladder Side-Tuning's tables have it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from pemt_core.methods.without_sources import WithoutSources
from pemt_core.schema.numbers import Fraction, Rank, Rate

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pemt_core.model.attachment import Change
    from pemt_core.model.stacks import LinearPlace

Place = Literal["q", "k", "v", "o", "wi", "wo"]


class Lora(WithoutSources):
    """W z + (alpha / rank) B A dropout(z) at the chosen layers of all attentions and feed-forwards; B starts at 0."""

    kind: Literal["lora"]
    rank: Rank = 32
    alpha: Rate = 32.0
    dropout: Fraction = 0.1
    places: Annotated[list[Place], Field(min_length=1, default_factory=lambda: ["q", "v"])]  # wi: wi_0 too, and wi_1
    biases: bool = False  # true: with all biases of the kind `bitfit`

    def start(self, backbone: Any, generator: "torch.Generator") -> "dict[str, Tensor]":
        from pemt_core.model.added_bias import initial_biases
        from pemt_core.model.low_rank import initial_updates

        biases = initial_biases(backbone, with_head=True) if self.biases else {}
        return {**initial_updates(self._layers(backbone), self.rank, generator), **biases}

    def changes(self, backbone: Any, tensors: "Mapping[str, Tensor]") -> "Iterable[Change]":
        from pemt_core.model.added_bias import added_biases
        from pemt_core.model.low_rank import low_rank_updates

        scale, layers = self.alpha / self.rank, self._layers(backbone)
        updates = list(low_rank_updates(layers, tensors, scale=scale, dropout=self.dropout))
        return added_biases(backbone, tensors, with_head=True, updates=updates) if self.biases else updates

    def _layers(self, backbone: Any) -> "list[LinearPlace]":
        from pemt_core.model.stacks import linear_layers

        return [place for place in linear_layers(backbone) if place.role in self.places]

    @property
    def title(self) -> str:
        return "LoRA + biases" if self.biases else "LoRA"

    def about(self, known: Sequence[str]) -> str:
        biases = ", with added biases" if self.biases else ""
        return f"rank {self.rank} at {', '.join(self.places)}{biases}"

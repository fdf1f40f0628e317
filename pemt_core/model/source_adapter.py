"""The source adapter, which stage 1 trains in every layer, parallel to the feed-forward's `wo`."""

from collections.abc import Iterator, Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pemt_core.model.attachment import Change
from pemt_core.model.stacks import adapted_layers


class SourceAdaptedOutput(nn.Module):
    """wo(x) + s U V x, which replaces `wo` (method, stage 1). V is `down`, U is `up`, s is `scale`; no biases.

    In an imported adapter that is trained further, it may stand at another linear layer.
    """

    def __init__(
        self, base_layer: nn.Linear, down: Float[Tensor, "R F"], up: Float[Tensor, "D R"], *, scale: float
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(up)
        self.scale = scale

    @property
    def weight(self) -> Tensor:
        """T5 reads the dtype to compute in from `wo.weight`."""
        return self.base_layer.weight

    def forward(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B S D"]:
        adapted: Tensor = self.base_layer(x) + self.scale * F.linear(F.linear(x, self.down), self.up)
        return adapted


def source_adapted_outputs(backbone: Any, tensors: Mapping[str, Tensor], *, scale: float) -> Iterator[Change]:
    """Put the source adapter in `tensors` beside every `wo`, and beside other linear layers where it has a pair."""
    for place in adapted_layers(backbone, tensors):
        down, up = f"{place.key}.down", f"{place.key}.up"
        adapted = SourceAdaptedOutput(place.layer, tensors[down], tensors[up], scale=scale)
        yield Change(place.parent, place.attribute, adapted, {down: adapted.down, up: adapted.up})

"""LoRA (Hu et al. 2022, arXiv 2106.09685): a low-rank update beside frozen linear layers."""

import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pemt_core.model.attachment import Change
from pemt_core.model.stacks import LinearPlace


class LowRankOutput(nn.Module):
    """W z + s B A dropout(z). A is `down`, B is `up`, s = alpha / R is `scale`; dropout acts in training alone."""

    def __init__(
        self,
        base_layer: nn.Linear,
        down: Float[Tensor, "R in"],
        up: Float[Tensor, "out R"],
        *,
        scale: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(up)
        self.scale = scale
        self.dropout = nn.Dropout(dropout)

    @property
    def weight(self) -> Tensor:
        """T5 reads the dtype to compute in from `wo.weight`."""
        return self.base_layer.weight

    def forward(self, z: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        updated: Tensor = self.base_layer(z) + self.scale * F.linear(F.linear(self.dropout(z), self.down), self.up)
        return updated


def initial_updates(places: Iterable[LinearPlace], rank: int, generator: torch.Generator) -> dict[str, Tensor]:
    """<layer>.down, A, Kaiming-uniform (a = sqrt 5), and <layer>.up, B = 0, so that step 0 equals the backbone."""
    tensors: dict[str, Tensor] = {}
    for place in places:
        width, num_inputs = place.layer.weight.shape
        down = torch.empty(rank, num_inputs)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        tensors |= {f"{place.name}.down": down, f"{place.name}.up": torch.zeros(width, rank)}
    return tensors


def low_rank_updates(
    places: Iterable[LinearPlace], tensors: Mapping[str, Tensor], *, scale: float, dropout: float
) -> Iterator[Change]:
    """Put the update in `tensors` beside every place's layer."""
    for place in places:
        down, up = f"{place.name}.down", f"{place.name}.up"
        output = LowRankOutput(place.layer, tensors[down], tensors[up], scale=scale, dropout=dropout)
        yield Change(place.parent, place.attribute, output, {down: output.down, up: output.up})

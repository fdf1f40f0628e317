"""IA3 (Liu et al. 2022, arXiv 2205.05638): learned factors of keys, values and the feed-forward's inner activations."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pemt_core.model.attachment import Change
from pemt_core.model.stacks import LinearPlace, linear_layers


class RescaledOutput(nn.Module):
    """l * (W z), for keys and values."""

    def __init__(self, base_layer: nn.Linear, factors: Float[Tensor, " out"]) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.factors = nn.Parameter(factors)

    def forward(self, z: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        output: Tensor = self.base_layer(z)
        return (self.factors * output).to(output.dtype)


class RescaledInput(nn.Module):
    """wo(l * x), x after activation and dropout; in a gated feed-forward, x is the product of both halves."""

    def __init__(self, base_layer: nn.Linear, factors: Float[Tensor, " F"]) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.factors = nn.Parameter(factors)

    @property
    def weight(self) -> Tensor:
        """T5 reads the dtype to compute in from `wo.weight`."""
        return self.base_layer.weight

    def forward(self, x: Float[Tensor, "*batch F"]) -> Float[Tensor, "*batch D"]:
        output: Tensor = self.base_layer((self.factors * x).to(x.dtype))
        return output


def initial_factors(backbone: Any) -> dict[str, Tensor]:
    """<layer>.factors, all 1, for k and v of every attention and `wo` of every feed-forward."""
    return {_name(place): torch.ones(_width(place)) for place in _places(backbone)}


def rescaled_layers(backbone: Any, tensors: Mapping[str, Tensor]) -> Iterator[Change]:
    """Multiply by the factors in `tensors`."""
    for place in _places(backbone):
        module = RescaledInput if place.role == "wo" else RescaledOutput
        rescaled = module(place.layer, tensors[_name(place)])
        yield Change(place.parent, place.attribute, rescaled, {_name(place): rescaled.factors})


def _places(backbone: Any) -> list[LinearPlace]:
    return [place for place in linear_layers(backbone) if place.role in ("k", "v", "wo")]


def _name(place: LinearPlace) -> str:
    return f"{place.name}.factors"


def _width(place: LinearPlace) -> int:
    return place.layer.in_features if place.role == "wo" else place.layer.out_features

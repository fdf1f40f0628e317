"""BitFit (Ben Zaken et al. 2022, arXiv 2106.10199) on a T5, which has no biases: they are added, zero at the start."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pemt_core.backbone.families import family_of
from pemt_core.model.attachment import Change
from pemt_core.model.stacks import head, layer_norms, linear_layers


class BiasedOutput(nn.Module):
    """f(x) + b, where f is a linear layer, one with a low-rank update, or a layer norm."""

    def __init__(self, base_layer: nn.Module, bias: Float[Tensor, " out"]) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bias = nn.Parameter(bias)

    @property
    def weight(self) -> Tensor:
        """T5 reads the dtype to compute in from `wo.weight`."""
        return self.base_layer.get_parameter("weight")

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        output: Tensor = self.base_layer(x)
        return (output + self.bias).to(output.dtype)  # under autocast, the type of other queries, keys and values


def initial_biases(backbone: Any, *, with_head: bool) -> dict[str, Tensor]:
    """<module>.bias, zero, for every linear layer and layer norm in the blocks, and for the head if `with_head`.

    The final layer norm of each stack gets none, as in the code of ATTEMPT and Compacter.
    """
    return {f"{name}.bias": torch.zeros(width) for name, _, _, width in _places(backbone, with_head=with_head)}


def added_biases(
    backbone: Any, tensors: Mapping[str, Tensor], *, with_head: bool, updates: Sequence[Change] = ()
) -> Iterator[Change]:
    """Add the biases in `tensors`; where one of `updates` replaces a layer, its bias follows the update."""
    updated = {(id(update.parent), update.attribute): update for update in updates}
    for name, parent, attribute, _ in _places(backbone, with_head=with_head):
        plain = Change(parent, attribute, getattr(parent, attribute), {})
        update = updated.get((id(parent), attribute), plain)
        assert isinstance(update.new, nn.Module)
        output = BiasedOutput(update.new, tensors[f"{name}.bias"])
        yield Change(parent, attribute, output, {**update.trained, f"{name}.bias": output.bias})


def _places(backbone: Any, *, with_head: bool) -> Iterator[tuple[str, Any, str, int]]:
    """The name, parent, attribute and output width of every module that gets a bias."""
    for place in (*linear_layers(backbone), *((head(backbone),) if with_head else ())):
        yield place.name, place.parent, place.attribute, place.layer.out_features
    for weight, parent, attribute in layer_norms(backbone):
        if attribute != family_of(backbone).norms.final:
            yield weight.removesuffix(".weight"), parent, attribute, len(getattr(parent, attribute).weight)

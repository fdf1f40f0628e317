"""The places in a T5 where the method attaches modules. T5, T5 v1.1, FLAN and mT5 name them alike."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn


class FeedForward(NamedTuple):
    """The second half of one layer's feed-forward: `parent.wo` is the linear layer whose input is x."""

    stack: str  # encoder or decoder
    layer: int
    parent: Any

    @property
    def wo(self) -> nn.Linear:
        wo = self.parent.wo
        if not isinstance(wo, nn.Linear):
            raise RuntimeError(f"{self.stack} layer {self.layer} has a {type(wo).__name__} attached: detach it first")
        return wo


def feed_forwards(backbone: Any) -> Iterator[FeedForward]:
    """Every feed-forward, the encoder's layers first; the number of layers may differ between the stacks."""
    for stack in ("encoder", "decoder"):
        for layer, block in enumerate(getattr(backbone, stack).block):
            yield FeedForward(stack, layer, block.layer[-1].DenseReluDense)


def layer_norms(backbone: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Every layer norm: the name of its scale in the state dict, its parent, and its attribute in the parent."""
    for name, _ in list(backbone.named_modules()):
        if name.endswith("layer_norm"):
            parent, _, attribute = name.rpartition(".")
            yield f"{name}.weight", backbone.get_submodule(parent), attribute

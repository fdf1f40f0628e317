"""The places in a T5 where methods attach modules. T5, T5 v1.1, FLAN and mT5 name them alike."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

ATTENTION, INPUTS = ("q", "k", "v", "o"), ("wi", "wi_0", "wi_1")
SUBLAYERS = {"SelfAttention": ATTENTION, "EncDecAttention": ATTENTION, "DenseReluDense": (*INPUTS, "wo")}


class FeedForward(NamedTuple):
    """The second half of one layer's feed-forward: `parent.wo` is the linear layer whose input is x."""

    stack: str  # encoder or decoder
    layer: int
    parent: Any

    @property
    def key(self) -> str:
        """The prefix of the layer's tensors in artifacts, and the name of its expert weights: "encoder.0"."""
        return f"{self.stack}.{self.layer}"

    @property
    def wo(self) -> nn.Linear:
        wo = self.parent.wo
        if not isinstance(wo, nn.Linear):
            raise RuntimeError(f"{self.stack} layer {self.layer} has a {type(wo).__name__} attached: detach it first")
        return wo


class LinearPlace(NamedTuple):
    """A linear layer: its name in the backbone, such as "encoder.block.0.layer.0.SelfAttention.q", and its place."""

    name: str
    parent: Any
    attribute: str  # q, k, v, o; wi, or wi_0 and wi_1 where the feed-forward is gated; wo; lm_head

    @property
    def layer(self) -> nn.Linear:
        layer = getattr(self.parent, self.attribute)
        if not isinstance(layer, nn.Linear):
            raise RuntimeError(f"{self.name} has a {type(layer).__name__} attached: detach it first")
        return layer


def feed_forwards(backbone: Any) -> Iterator[FeedForward]:
    """Every feed-forward, the encoder's layers first; the number of layers may differ between the stacks."""
    for stack in ("encoder", "decoder"):
        for layer, block in enumerate(getattr(backbone, stack).block):
            yield FeedForward(stack, layer, block.layer[-1].DenseReluDense)


def linear_layers(backbone: Any) -> Iterator[LinearPlace]:
    """Every linear layer in the blocks: q, k, v, o of all attentions, the input layers and `wo` of feed-forwards."""
    for stack in ("encoder", "decoder"):
        for index, block in enumerate(getattr(backbone, stack).block):
            for place, sublayer in enumerate(block.layer):
                (inner,) = (part for part in SUBLAYERS if hasattr(sublayer, part))
                parent = getattr(sublayer, inner)
                for attribute in SUBLAYERS[inner]:
                    if hasattr(parent, attribute):
                        name = f"{stack}.block.{index}.layer.{place}.{inner}.{attribute}"
                        yield LinearPlace(name, parent, attribute)


def head(backbone: Any) -> LinearPlace:
    """The layer that maps the decoder's output to logits. Its weight is the embeddings' in a T5 that ties them."""
    return LinearPlace("lm_head", backbone, "lm_head")


def layer_norms(backbone: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Every layer norm: the name of its scale in the state dict, its parent, and its attribute in the parent."""
    for name, _ in list(backbone.named_modules()):
        if name.endswith("layer_norm"):
            parent, _, attribute = name.rpartition(".")
            yield f"{name}.weight", backbone.get_submodule(parent), attribute

"""The places in a backbone where methods attach modules, found by its family's record."""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from pemt_core.backbone.families import family_of
from pemt_core.backbone.family import Role


class LinearPlace(NamedTuple):
    """A linear layer: its name in the backbone, such as "encoder.block.0.layer.0.SelfAttention.q", and its place."""

    name: str
    parent: Any
    attribute: str
    role: Role | None = None  # None: the head
    stack: str = "decoder"
    key: str = ""  # the prefix of its tensors in artifacts, and the name of its expert weights
    encoder_width: int | None = None  # of the encoder's output, if a gate here reads it instead of the layer's input
    in_cross_attention: bool = False

    @property
    def layer(self) -> nn.Linear:
        layer = getattr(self.parent, self.attribute)
        if not isinstance(layer, nn.Linear):
            raise RuntimeError(f"{self.name} has a {type(layer).__name__} attached: detach it first")
        return layer

    @property
    def gate_width(self) -> int:
        """C, the width of what the published gate reads."""
        return self.layer.in_features if self.encoder_width is None else self.encoder_width

    @property
    def dropout(self) -> float:
        """The probability with which the layer's input is dropped out in training."""
        module = getattr(self.parent, "dropout", None)
        return float(module.p) if isinstance(module, nn.Dropout) else 0.0


def width(backbone: Any) -> int:
    """D, the width of the embeddings and of the residual stream."""
    return int(backbone.get_input_embeddings().weight.shape[1])


def embedded(backbone: Any, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch D"]:
    """The embeddings of tokens, as the first layer gets them: in some families, the embedding module scales them."""
    embedding = backbone.get_input_embeddings()
    vectors: Tensor = embedding(ids.to(embedding.weight.device)).detach().float()
    return vectors


def linear_layers(backbone: Any) -> Iterator[LinearPlace]:
    """Every linear layer in the blocks: q, k, v, o of all attentions, the input layers and `wo` of feed-forwards.

    The encoder's layers come first; the number of layers may differ between the stacks. The key of a `wo` is that of
    its layer, "encoder.0"; the key of any other is its name.
    """
    family = family_of(backbone)
    for stack in family.stacks:
        encoder_width = width(backbone) if family.has_encoder and stack.name == "decoder" else None
        for index, layer in enumerate(backbone.get_submodule(stack.layers)):
            for sublayer in stack.sublayers:
                parent = layer.get_submodule(sublayer.path)
                for attribute, role in sublayer.linear.items():
                    if hasattr(parent, attribute):
                        name = f"{stack.layers}.{index}.{sublayer.path}.{attribute}"
                        key = f"{stack.name}.{index}" if role == "wo" else name
                        crosses = sublayer.is_cross_attention
                        yield LinearPlace(name, parent, attribute, role, stack.name, key, encoder_width, crosses)


def feed_forwards(backbone: Any) -> Iterator[LinearPlace]:
    """The second half of every feed-forward, the linear layer whose input is x.

    It is called `wo` as in T5 and in the paper; other families call it `down_proj`.
    """
    return (place for place in linear_layers(backbone) if place.role == "wo")


def adapted_layers(backbone: Any, tensors: Collection[str]) -> list[LinearPlace]:
    """The linear layers of experts that have these tensors: every `wo`, then the others with a pair, in their order."""
    others = [place for place in linear_layers(backbone) if place.role != "wo" and f"{place.key}.down" in tensors]
    return [*feed_forwards(backbone), *others]


def head(backbone: Any) -> LinearPlace:
    """The layer that maps the decoder's output to logits. Its weight is the embeddings' where they are tied."""
    head = backbone.get_output_embeddings()
    (name,) = (name for name, module in backbone.named_modules() if module is head)
    parent, _, attribute = name.rpartition(".")
    return LinearPlace(name, backbone.get_submodule(parent), attribute)


def layer_norms(backbone: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Every layer norm of the residual stream: the name of its scale in the state dict, its parent, its attribute."""
    norms = family_of(backbone).norms
    for name, _ in list(backbone.named_modules()):
        if name.startswith(norms.within) and name.endswith(norms.names):
            parent, _, attribute = name.rpartition(".")
            yield f"{name}.weight", backbone.get_submodule(parent), attribute

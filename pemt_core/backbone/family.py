"""What the rest of the code must know about a family of models: a record, without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Role = Literal["q", "k", "v", "o", "wi", "wo"]
Layout = Literal["front", "behind", "both"]

# Where the prompt is, relative to the text: [prompt ; text], [text ; prompt], [prompt ; text ; prompt]
LAYOUTS: tuple[Layout, ...] = ("front", "behind", "both")


@dataclass(frozen=True)
class Sublayer:
    """An attention or a feed-forward in every layer of a stack."""

    path: str  # from the layer
    linear: Mapping[str, Role]  # attribute to role, in the order of the computation; a model may lack some
    is_cross_attention: bool = False


@dataclass(frozen=True)
class Stack:
    """A stack of layers. Its name is part of the names of tensors in artifacts, as in "encoder.0.gate"."""

    name: Literal["encoder", "decoder"]
    layers: str  # path of the list of layers from the model
    sublayers: tuple[Sublayer, ...]  # the feed-forward last

    @property
    def wo(self) -> str:
        """The attribute of a feed-forward's second half, beside which experts stand."""
        (attribute,) = (name for name, role in self.sublayers[-1].linear.items() if role == "wo")
        return attribute


@dataclass(frozen=True)
class Norms:
    """The layer norms of the residual stream, which belong to a target in stage 2."""

    names: tuple[str, ...]  # ends of their paths
    final: str  # the attribute of the one after a stack's last layer
    epsilon: str  # the attribute with the constant under the root
    unit_offset: bool = False  # the scale is 1 + weight
    within: tuple[str, ...] = ("",)  # beginnings of their paths


@dataclass(frozen=True)
class Family:
    """A family: models with the same places and the same way to read a prompt and a text."""

    name: str
    models: Mapping[str, str]  # model type in config.json to its class in transformers
    stacks: tuple[Stack, ...]  # the encoder first; a decoder-only model has one
    norms: Norms
    layouts: tuple[Layout, ...]  # the default first
    starts_with_bos: bool  # a text begins with the token BOS, before the prompt
    sizes: Mapping[str, int]  # keys of a config (part) with the largest value that a checkpoint can have
    fingerprint: tuple[str, ...]  # keys of a config (part) that affect outputs in evaluation
    dropout: str = "dropout_rate"  # the key of a config with the probability in training
    config_parts: tuple[str, ...] = ("",)  # paths of the configs that have these keys
    # whether the decoder attends by distances between positions, and takes a mask with a value for each pair of them
    has_relative_decoder: bool = False
    broadcasts_masks: bool = False  # attentions differ in no mask, so that one of the keys alone serves all
    unused: tuple[str, ...] = ()  # beginnings of the paths of what reads no text, as of images; it is never trained
    scaled_heads: tuple[str, ...] = ()  # model types whose decoder's states transformers scales before any output layer
    run_on: tuple[str, ...] = ()  # what the project ran on models of this family

    @property
    def has_encoder(self) -> bool:
        return len(self.stacks) == 2

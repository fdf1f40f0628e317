"""Merge what a target adds to its backbone into the backbone's weights, as far as weights can hold it.

A gate reads the text, and a weight cannot: each gate becomes its mean over the rows of a split, which is exact only for
a gate that weighs all rows alike. Layer norms and prompt are exact; target adapters are not linear, and stay beside.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pemt_core.errors import ArtifactError
from pemt_core.model.assemble import build_target_model
from pemt_core.model.mixture import MixedLinear
from pemt_core.model.prompted import PromptedModel
from pemt_core.model.stacks import feed_forwards, layer_norms, linear_layers


@dataclass(frozen=True)
class Merged:
    """What a target adds to its backbone."""

    prompt: Float[Tensor, "P D"]  # as it enters the model: guided by the sources' prompts
    updates: Mapping[str, Tensor]  # what is added to a linear layer's weight, by the layer's key
    norms: Mapping[str, Tensor]  # the scale of each layer norm by its name in the state dict; empty if frozen
    adapters: Mapping[str, Tensor]  # <key>.adapter.{down,up}.{weight,bias}; empty if it has none

    @classmethod
    @torch.no_grad()
    def of(cls, model: PromptedModel, weights: Mapping[str, NDArray[np.float64]], origin: str) -> "Merged":
        """Merge the attached `model` of a target, whose gates have these mean `weights` by layer.

        Raises ArtifactError, naming `origin`, if a layer's mean weights are unknown.
        """
        mixtures = {each.name: each for each in model.backbone.modules() if isinstance(each, MixedLinear)}
        for name in mixtures:
            if name not in weights:
                raise ArtifactError(
                    f"{origin}: its gate weighs every position of {name}, whose mean weights are not recorded; only "
                    "gates that weigh whole texts can be merged at other layers than feed-forwards"
                )
        updates = {name: each.gate.merged(each.experts, _on(each, weights[name])) for name, each in mixtures.items()}
        trained = model.tensors()
        norms = {name for name, _, _ in layer_norms(model.backbone)}
        return cls(
            prompt=model.prompt().detach().clone(),
            updates=updates,
            norms={name: tensor for name, tensor in trained.items() if name in norms},
            adapters={name: tensor for name, tensor in trained.items() if ".adapter." in name},
        )

    @torch.no_grad()
    def write_into(self, backbone: Any) -> None:
        """Change the weights of a backbone with nothing attached, in place; they keep their type."""
        for place in linear_layers(backbone):
            if place.key in self.updates:
                weight = place.layer.weight
                weight.copy_(weight.float() + self.updates[place.key].float())
        for name, parent, attribute in layer_norms(backbone):
            if name in self.norms:
                getattr(parent, attribute).weight.copy_(self.norms[name])

    def attach_to(self, backbone: Any) -> PromptedModel:
        """Build the model that an export describes, on a backbone that was changed by `write_into`."""
        tensors = {"prompt": self.prompt, **self.adapters}
        options: dict[str, Any] = {"prompt_dropout": 0.0, "sparsity_coefficient": 0.0, "norms": False}
        return build_target_model(backbone, tensors, [], target_adapter=bool(self.adapters), **options)

    def adapters_by_module(self, backbone: Any) -> dict[str, Tensor]:
        """The target adapters' tensors, by the module whose output they change: <module>.{down,up}.{weight,bias}."""
        names = {place.key: place.name for place in feed_forwards(backbone)}
        split = {name: name.partition(".adapter.") for name in self.adapters}
        return {f"{names[key]}.{part}": self.adapters[name] for name, (key, _, part) in split.items()}


def _on(mixture: MixedLinear, weights: NDArray[np.float64]) -> Float[Tensor, " E"]:
    return torch.from_numpy(weights).to(mixture.weight.device, torch.float32)

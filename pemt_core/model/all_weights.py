"""Full fine-tuning: a trained copy of every parameter of the backbone."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from pemt_core.backbone.families import family_of
from pemt_core.model.attachment import Change


def initial_weights(backbone: Any) -> dict[str, Tensor]:
    """Every parameter that is used for text, by its first name in the backbone, in float32; shared ones once."""
    return {name: parameter.detach().float() for name, parameter in _of_text(backbone)}


def trained_weights(backbone: Any, tensors: Mapping[str, Tensor]) -> Iterator[Change]:
    """Put each of `tensors` wherever the backbone uses the parameter of that name.

    A parameter that several modules share, as T5's embeddings and its head do, stays one parameter.
    """
    new = {id(parameter): nn.Parameter(tensors[name]) for name, parameter in _of_text(backbone)}
    names = {id(parameter): name for name, parameter in _of_text(backbone)}
    for module in backbone.modules():
        for attribute, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if (key := id(parameter)) in names:
                yield Change(module, attribute, new[key], {names[key]: new[key]})


def _of_text(backbone: Any) -> list[tuple[str, nn.Parameter]]:
    unused = family_of(backbone).unused
    return [(name, each) for name, each in backbone.named_parameters() if not name.startswith(unused)]

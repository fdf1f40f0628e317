"""A checkpoint from the hub or from a folder."""

from typing import Any, Literal

import torch

from pemt_core.backbone.architecture import read_config
from pemt_core.backbone.families import architecture_class
from pemt_core.backbone.location import locate, one_line
from pemt_core.backbone.store import loading_options
from pemt_core.errors import ArtifactError


def fetch_checkpoint(name: str, revision: str, dtype: Literal["float32", "bfloat16"] = "float32") -> tuple[Any, str]:
    """The model with weights of `dtype`, and the commit that `revision` resolves to (empty for a folder).

    Raises ArtifactError if it is not found, is of no supported family, or has no safetensors file.
    """
    location = locate(name, revision)
    model_class = architecture_class(read_config(name, **location.options).model_type, name)
    try:
        model, report = model_class.from_pretrained(
            name,
            use_safetensors=True,
            output_loading_info=True,
            **loading_options(getattr(torch, dtype)),
            **location.options,
        )
    except Exception as error:  # safetensors, transformers and torch raise various types for a damaged file
        raise ArtifactError(
            f"backbone '{name}' (revision '{revision or 'newest'}'): no checkpoint with safetensors found: "
            f"{one_line(error)}. If a repository has only pickled weights, a converted copy is often a revision such "
            "as refs/pr/1"
        ) from error
    if report["missing_keys"]:  # transformers would initialise them at random
        raise ArtifactError(f"backbone '{name}': its safetensors lack {', '.join(sorted(report['missing_keys']))}")
    return model, location.commit

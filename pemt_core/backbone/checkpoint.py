"""A T5 checkpoint from the hub or from a folder."""

from typing import Any

import torch

from pemt_core.backbone.architecture import read_config
from pemt_core.backbone.location import locate, one_line
from pemt_core.backbone.store import architecture_class
from pemt_core.errors import ArtifactError


def fetch_checkpoint(name: str, revision: str) -> tuple[Any, str]:
    """The model in float32, and the commit that `revision` resolves to (empty for a folder).

    Raises ArtifactError if it is not found, is not a T5, or has no safetensors file; a pickle is never read.
    """
    location = locate(name, revision)
    model_class = architecture_class(read_config(name, **location.options).model_type, name)
    try:
        model, report = model_class.from_pretrained(
            name, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **location.options
        )
    except Exception as error:  # safetensors, transformers and torch raise various types for a damaged file
        raise ArtifactError(
            f"backbone '{name}' (revision '{revision or 'newest'}'): no T5 checkpoint with safetensors found: "
            f"{one_line(error)}. If a repository has only pickled weights, a converted copy is often a revision such "
            "as refs/pr/1"
        ) from error
    if report["missing_keys"]:  # transformers would initialise them at random
        raise ArtifactError(f"backbone '{name}': its safetensors lack {', '.join(sorted(report['missing_keys']))}")
    return model, location.commit

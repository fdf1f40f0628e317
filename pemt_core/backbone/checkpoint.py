"""A T5 checkpoint from the hub or from a folder."""

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from pemt_core.backbone.store import architecture_class
from pemt_core.errors import ArtifactError

logger = logging.getLogger(__name__)


def fetch_checkpoint(name: str, revision: str) -> tuple[Any, str]:
    """The model in float32, and the commit that `revision` resolves to (empty for a folder).

    Raises ArtifactError if it is not found, is not a T5, or has no safetensors file; a pickle is never read.
    """
    from transformers import AutoConfig

    commit = "" if Path(name).is_dir() else _resolve(name, revision)
    try:
        config = AutoConfig.from_pretrained(name, revision=commit or None)
        model_class = architecture_class(config.model_type, name)
        model, report = model_class.from_pretrained(
            name, revision=commit or None, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(
            f"backbone '{name}' (revision '{revision or 'newest'}'): no T5 checkpoint with safetensors found: {error}. "
            "If a repository has only pickled weights, a converted copy is often a revision such as refs/pr/1"
        ) from error
    if report["missing_keys"]:  # transformers would initialise them at random
        raise ArtifactError(f"backbone '{name}': its safetensors lack {', '.join(sorted(report['missing_keys']))}")
    return model, commit


def _resolve(name: str, revision: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        commit = str(HfApi().model_info(name, revision=revision or None).sha)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ArtifactError(
            f"backbone '{name}': neither a folder nor found on the hub ({type(error).__name__}: {error}); "
            "without access to the hub, name a folder or set backbone.kind to scratch"
        ) from error
    logger.info("backbone %s: revision %s is commit %s", name, revision or "newest", commit)
    return commit

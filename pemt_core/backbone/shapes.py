"""Backbones of shapes alone, on the meta device: no weights, no downloads."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from pemt_core.backbone.architecture import read_config
from pemt_core.backbone.description import recorded_fingerprint
from pemt_core.backbone.families import architecture_class
from pemt_core.backbone.location import one_line
from pemt_core.backbone.published import find_checkpoint
from pemt_core.backbone.store import Backbone
from pemt_core.backbone.tokenizer import load_tokenizer
from pemt_core.errors import ArtifactError


def outline(directory: Path) -> Backbone:
    """The backbone in a folder without its weights. Raises PemtError if the folder is not a backbone's."""
    fingerprint = recorded_fingerprint(directory)
    return Backbone(backbone_of_shapes(str(directory)), load_tokenizer(str(directory)), fingerprint)


def backbone_of_shapes(name: str) -> Any:
    """A model on the meta device: from a folder with a config.json, or a published checkpoint's name.

    Raises SettingsError, naming the nearest, if `name` is neither, and ArtifactError if the folder is damaged.
    """
    from transformers import AutoConfig

    if Path(name).is_dir():
        model = _model_of(read_config(name, local_files_only=True), name)
        has_own_head = _head_name(model) in _stored_names(Path(name))
    else:
        checkpoint = find_checkpoint(name)
        model = _model_of(AutoConfig.for_model(checkpoint.model_type, **checkpoint.shapes), name)
        has_own_head = checkpoint.has_own_head
    if has_own_head:
        head = model.get_output_embeddings()
        head.weight = nn.Parameter(torch.empty_like(head.weight))
    return model


def _model_of(config: Any, name: str) -> Any:
    model_class = architecture_class(config.model_type, name)
    try:
        with torch.device("meta"):
            return model_class(config)
    except Exception as error:  # transformers checks only some values of a configuration
        raise ArtifactError(
            f"{name}: its config.json describes no {config.model_type} ({type(error).__name__}: {error})"
        ) from error


def _head_name(model: Any) -> str:
    head = model.get_output_embeddings()
    return next(f"{name}.weight" for name, module in model.named_modules() if module is head)


def _stored_names(directory: Path) -> set[str]:
    """The tensors in a folder. A head that is one with the embeddings is not stored."""
    names: set[str] = set()
    for path in directory.glob("*.safetensors"):
        try:
            with safe_open(path, framework="pt") as file:
                names.update(file.keys())
        except Exception as error:  # safetensors raises various types for a damaged file
            raise ArtifactError(f"{path}: not readable as tensors ({one_line(error)})") from error
    return names

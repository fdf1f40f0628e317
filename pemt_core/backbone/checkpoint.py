"""A checkpoint from the hub, from a folder, or from an installed package."""

from typing import Any, Literal

import torch

from pemt_core.artifacts.files import sha256_of_file
from pemt_core.backbone.adopt import adopt
from pemt_core.backbone.architecture import read_config, unscale_own_head
from pemt_core.backbone.families import architecture_class
from pemt_core.backbone.location import locate, one_line
from pemt_core.backbone.package import PackagedFile, packaged_file
from pemt_core.backbone.processor import warn_if_slow
from pemt_core.backbone.store import loading_options
from pemt_core.errors import ArtifactError
from pemt_core.settings import BackboneSettings

Dtype = Literal["float32", "bfloat16"]


def fetch_backbone(settings: BackboneSettings, tokenizer: Any) -> tuple[Any, dict[str, str]]:
    """The model that `settings` name, with its special tokens and layout, and where it is from.

    Its origin is the commit of the hub, or the version of the package and the SHA-256 of its file. Raises
    ArtifactError as `fetch_checkpoint` and `convert`, and SettingsError as `adopt`. Logs a warning if the type of the
    weights is slow on this machine.
    """
    if settings.dtype == "bfloat16":
        warn_if_slow("backbone.dtype")
    if settings.kind == "package":
        file = packaged_file(settings.name)
        model, origin = convert(file, settings.dtype), {"version": file.version, "sha256": sha256_of_file(file.path)}
    else:
        model, commit = fetch_checkpoint(settings.name, settings.revision, settings.dtype)
        origin = {"revision": commit}
    adopt(model, tokenizer, settings.layout)
    return model, {"name": settings.name, **origin}


def fetch_checkpoint(name: str, revision: str, dtype: Dtype = "float32") -> tuple[Any, str]:
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
    _check_whole(f"backbone '{name}': its safetensors", report)
    unscale_own_head(model)
    return model, location.commit


def convert(file: PackagedFile, dtype: Dtype = "float32") -> Any:
    """The model in a GGUF file, its quantized weights as numbers of `dtype`.

    Raises ArtifactError if the file is damaged, or its model is of no supported family.
    """
    config = read_config(file.folder, **file.options)
    model_class = architecture_class(config.model_type, str(file.path))
    try:
        read, report = model_class.from_pretrained(
            file.folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **file.options
        )
        model = model_class(config)  # transformers refuses to save the one that it read
        model.load_state_dict(read.state_dict())
    except Exception as error:  # gguf, transformers and torch raise various types for a damaged file
        raise ArtifactError(f"{file.path}: not readable as a model ({one_line(error)})") from error
    _check_whole(str(file.path), report)
    model.to(getattr(torch, dtype))
    if attention := loading_options(model.dtype).get("attn_implementation"):
        model.set_attn_implementation(attention)
    return model


def _check_whole(what: str, report: dict[str, Any]) -> None:
    """Raise ArtifactError if tensors are missing, which transformers initialises at random."""
    if report["missing_keys"]:
        raise ArtifactError(f"{what} lack {', '.join(sorted(report['missing_keys']))}")

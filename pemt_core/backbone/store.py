"""A backbone on disk, in transformers' layout plus backbone.json with its fingerprint."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pemt_core.artifacts.files import atomic_directory, write_record
from pemt_core.backbone.architecture import config_parts, read_config, unscale_own_head
from pemt_core.backbone.description import DESCRIPTION, recorded_fingerprint
from pemt_core.backbone.families import architecture_class, family_of
from pemt_core.backbone.tokenizer import load_tokenizer, tokenizer_content
from pemt_core.errors import ArtifactError


@dataclass(frozen=True)
class Backbone:
    """A frozen model with its tokenizer. Every adapter that is trained on it records its `fingerprint`."""

    model: Any
    tokenizer: Any
    fingerprint: str

    @property
    def dropout(self) -> float:
        """The probability of dropout in training. It is not part of the fingerprint, as answers do not depend on it."""
        return float(getattr(self.model.config, family_of(self.model).dropout))


def fingerprint_of(model: nn.Module, tokenizer: Any) -> str:
    """SHA-256 over architecture, every weight and the tokenizer: equal exactly if outputs are."""
    config: Any = model.config
    family, digest = family_of(model), hashlib.sha256()
    for part in config_parts(config).values():
        digest.update(repr([(key, _in_order(getattr(part, key, None))) for key in family.fingerprint]).encode())
    if config.model_type in family.scaled_heads and not getattr(config, "scale_decoder_outputs", True):
        digest.update(b"unscaled head")
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    digest.update(tokenizer_content(tokenizer).encode())
    return digest.hexdigest()


def _in_order(value: Any) -> Any:
    """Mappings by their keys: config.json sorts them."""
    return sorted((key, _in_order(each)) for key, each in value.items()) if isinstance(value, dict) else value


def loading_options(dtype: torch.dtype | None) -> dict[str, Any]:
    """Arguments of from_pretrained for weights of this type; None: float32.

    On a CPU, torch's fused attention takes 2.5 times as long in bfloat16 as in float32; plain attention does not.
    """
    plain = dtype == torch.bfloat16 and not torch.cuda.is_available()
    return {"dtype": dtype or torch.float32} | ({"attn_implementation": "eager"} if plain else {})


def save_backbone(directory: Path, model: Any, tokenizer: Any) -> str:
    """Write the folder whole or not at all; returns the fingerprint."""
    with atomic_directory(directory) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        # This process's padding and truncation are not part of the tokenizer: read it back as users will
        fingerprint = fingerprint_of(model, load_tokenizer(str(temporary)))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        write_record(temporary / DESCRIPTION, {"fingerprint": fingerprint, "parameters": parameters})
    return fingerprint


def load_backbone(directory: Path) -> Backbone:
    """Read a folder that `save_backbone` wrote. Raises ArtifactError if it is missing or altered."""
    directory = Path(directory)
    recorded = recorded_fingerprint(directory)
    try:
        config = read_config(str(directory), local_files_only=True)
        model_class = architecture_class(config.model_type, str(directory))
        model = model_class.from_pretrained(directory, use_safetensors=True, **loading_options(config.dtype))
        unscale_own_head(model)
        tokenizer = load_tokenizer(str(directory))
        found = fingerprint_of(model, tokenizer)
    except Exception as error:  # safetensors, transformers and torch raise various types for a damaged file
        raise ArtifactError(
            f"{directory}: not readable as a backbone ({error}); run the backbone step again"
        ) from error
    if found != recorded:
        raise ArtifactError(
            f"{directory}: fingerprint {found[:12]}, but its backbone.json says {recorded[:12]}: files were altered; "
            "run the backbone step again"
        )
    return Backbone(model.eval(), tokenizer, found)

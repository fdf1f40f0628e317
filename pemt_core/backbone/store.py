"""A backbone on disk, in transformers' layout plus backbone.json with its fingerprint."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pemt_core.artifacts.files import atomic_directory, read_record, write_record
from pemt_core.backbone.architecture import read_config
from pemt_core.backbone.tokenizer import load_tokenizer
from pemt_core.errors import ArtifactError, nearest

DESCRIPTION = "backbone.json"

# The keys of a configuration that affect outputs in evaluation, by name, as new transformers versions add keys
ARCHITECTURE = (
    "model_type",
    "vocab_size",
    "d_model",
    "d_kv",
    "d_ff",
    "num_layers",
    "num_decoder_layers",
    "num_heads",
    "feed_forward_proj",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "layer_norm_epsilon",
    "tie_word_embeddings",
    "pad_token_id",
    "eos_token_id",
    "decoder_start_token_id",
)


@dataclass(frozen=True)
class Backbone:
    """A T5 in float32 with its tokenizer. Every adapter that is trained on it records its `fingerprint`."""

    model: Any
    tokenizer: Any
    fingerprint: str


def architecture_class(model_type: str, origin: str) -> Any:
    """The transformers class of a checkpoint's `model_type`. Raises ArtifactError if it is not a T5."""
    import transformers

    classes = {"t5": "T5ForConditionalGeneration", "mt5": "MT5ForConditionalGeneration"}
    if model_type not in classes:
        raise ArtifactError(
            f"{origin}: its configuration says model type '{model_type}', expected one of {sorted(classes)}; "
            f"{nearest(model_type, classes)}"
        )
    return getattr(transformers, classes[model_type])


def fingerprint_of(model: nn.Module, tokenizer: Any) -> str:
    """SHA-256 over architecture, every weight and the tokenizer: equal exactly if outputs are."""
    config: Any = model.config
    digest = hashlib.sha256()
    digest.update(repr([(key, getattr(config, key, None)) for key in ARCHITECTURE]).encode())
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    plain = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_padding()  # the last call's padding and truncation, which `tokenizers` keeps in its state
    plain.no_truncation()
    digest.update(plain.to_str().encode())
    return digest.hexdigest()


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


def recorded_fingerprint(directory: Path) -> str:
    """The fingerprint that `save_backbone` wrote to a folder. Raises ArtifactError if it is missing."""
    path = Path(directory) / DESCRIPTION
    try:
        return str(read_record(path, "run the backbone step again")["fingerprint"])
    except KeyError as error:
        raise ArtifactError(f"{path}: not a backbone's description (lacks {error})") from error


def load_backbone(directory: Path) -> Backbone:
    """Read a folder that `save_backbone` wrote. Raises ArtifactError if it is missing or altered."""
    directory = Path(directory)
    recorded = recorded_fingerprint(directory)
    try:
        config = read_config(str(directory), local_files_only=True)
        model_class = architecture_class(config.model_type, str(directory))
        model = model_class.from_pretrained(directory, dtype=torch.float32, use_safetensors=True)
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

"""Read a LoRA that PEFT trained on the feed-forwards' `wo`, as a source expert."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pemt_core.artifacts.adapter import check_backbone
from pemt_core.artifacts.experts import ImportedExpert
from pemt_core.artifacts.files import sha256_of_file
from pemt_core.backbone.store import Backbone
from pemt_core.errors import ArtifactError, nearest
from pemt_core.lora.config import read_config
from pemt_core.lora.layout import (
    BACKBONE,
    CONFIG,
    PICKLED,
    PROMPT,
    PROMPT_TENSOR,
    TENSORS,
    module_name,
    module_of,
    pair_names,
)
from pemt_core.model.assemble import Expert, initial_prompt
from pemt_core.model.stacks import feed_forwards

Pair = tuple[Tensor, Tensor]  # A (R, F) and B (D, R)


def load_lora(directory: Path, name: str, description: str | None, backbone: Backbone) -> ImportedExpert:
    """Read the LoRA in a folder as the expert `name`, in float32; layers without a LoRA are zero.

    Its prompt is the embeddings of the description's tokens or, without a description, the folder's prompt. If all
    layers have the same scale, A and B are kept as they are; else each layer's scale is multiplied into B, and s is 1.

    Raises ArtifactError if the folder, a file, a key or a tensor does not fit a source adapter on `backbone`.
    """
    directory = Path(directory)
    _check_files(directory)
    config, path = read_config(directory / CONFIG), directory / TENSORS
    places = {module_name(place.stack, place.layer): place for place in feed_forwards(backbone.model)}
    pairs = _pairs(path, _read(path, backbone.fingerprint), places)
    scales = {config.scale(module) for module in pairs}
    scale = scales.pop() if len(scales) == 1 else 1.0
    tensors = {PROMPT_TENSOR: _prompt(directory, description, backbone)}
    for module, place in places.items():
        d_model, d_ff = place.wo.weight.shape
        down, up = pairs.get(module, (torch.zeros(1, d_ff), torch.zeros(d_model, 1)))
        if module in pairs:
            rank = config.rank(module)
            _check_shapes(path, module, (down, up), ((rank, d_ff), (d_model, rank)))
        factor = config.scale(module) / scale
        key = f"{place.stack}.{place.layer}"
        tensors |= {f"{key}.down": down, f"{key}.up": up if factor == 1 else factor * up}
    return ImportedExpert(Expert(name, tensors, scale), backbone.fingerprint, sha256_of_file(path))


def _check_files(directory: Path) -> None:
    if not directory.is_dir():
        raise ArtifactError(f"{directory}: no such folder; expected one with {CONFIG} and {TENSORS}, as PEFT saves it")
    if not (directory / TENSORS).is_file() and (directory / PICKLED).is_file():
        raise ArtifactError(
            f"{directory}: has only {PICKLED}, a pickle, which can run code when it is read; expected {TENSORS}: "
            "if you trust it, load it with PEFT and save it by save_pretrained()"
        )
    for file in (CONFIG, TENSORS):
        if not (directory / file).is_file():
            raise ArtifactError(f"{directory / file}: no such file; expected a LoRA's folder as PEFT saves it")


def _read(path: Path, fingerprint: str) -> dict[str, Tensor]:
    """All tensors of a file, in float32. Raises ArtifactError if it is damaged or names another backbone."""
    try:
        with safe_open(path, framework="pt") as file:
            recorded = (file.metadata() or {}).get(BACKBONE, fingerprint)
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118  # no mapping
    except SafetensorError as error:
        raise ArtifactError(f"{path}: not readable as safetensors ({error}); it is truncated or altered") from error
    check_backbone(path, recorded, fingerprint)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ArtifactError(f"{path}: tensor '{name}' has values that are not finite; expected only finite numbers")
    return tensors


def _pairs(path: Path, tensors: Mapping[str, Tensor], modules: Iterable[str]) -> dict[str, Pair]:
    """A and B by module. Raises ArtifactError if a tensor is neither, is on no module of `modules`, or is unpaired."""
    modules, found = list(modules), []
    for name in tensors:
        module = module_of(name)
        if module is None:
            form = " or ".join(pair_names("<module>"))
            raise ArtifactError(f"{path}: tensor '{name}': not part of a plain LoRA; expected names like {form}")
        if module not in modules:
            raise ArtifactError(
                f"{path}: tensor '{name}': a LoRA on '{module}'; expected only the backbone's feed-forward `wo`: "
                f"{nearest(module, modules)}"
            )
        found.append(module)
    if not found:
        raise ArtifactError(f"{path}: no tensors; expected the LoRA of at least one feed-forward's `wo`")
    for name in (name for module in found for name in pair_names(module)):
        if name not in tensors:
            raise ArtifactError(f"{path}: lacks '{name}', the other half of its pair")
    return {module: (tensors[down], tensors[up]) for module in found for down, up in [pair_names(module)]}


def _check_shapes(path: Path, module: str, pair: Pair, expected: tuple[tuple[int, int], tuple[int, int]]) -> None:
    for name, tensor, shape in zip(pair_names(module), pair, expected, strict=True):
        if tensor.shape != shape:
            raise ArtifactError(
                f"{path}: tensor '{name}' has the shape {tuple(tensor.shape)}: expected {shape} by {CONFIG} and the "
                "backbone; was it trained on another one?"
            )


def _prompt(directory: Path, description: str | None, backbone: Backbone) -> Tensor:
    """The prompt (P, D)."""
    path = directory / PROMPT
    if description is None and not path.is_file():
        raise ArtifactError(f"{path}: no such file; a LoRA without a prompt needs a description of its task")
    tensors = _read(path, backbone.fingerprint) if path.is_file() else {}  # an exported prompt names its backbone
    if description is not None:
        ids = torch.tensor(backbone.tokenizer(description)["input_ids"])
        return initial_prompt(backbone.model, ids, "vocab", torch.Generator())
    prompt, d_model = tensors.get(PROMPT_TENSOR, torch.empty(0)), backbone.model.config.d_model
    if prompt.ndim != 2 or not len(prompt) or prompt.shape[1] != d_model:
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        raise ArtifactError(f"{path}: holds {shapes}: expected '{PROMPT_TENSOR}' of the shape (P, {d_model})")
    return prompt

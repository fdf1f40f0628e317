"""Read a LoRA that PEFT trained on any of the backbone's linear layers, as a source expert."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pemt_core.artifacts.adapter import check_backbone
from pemt_core.artifacts.experts import ImportedExpert
from pemt_core.artifacts.files import sha256_of_file
from pemt_core.backbone.store import Backbone
from pemt_core.backbone.text_ids import description_ids
from pemt_core.errors import ArtifactError, cut, nearest, shown
from pemt_core.lora.config import Shape, read_config
from pemt_core.lora.layout import (
    BACKBONE,
    CONFIG,
    PICKLED,
    PROMPT,
    PROMPT_TENSOR,
    TENSORS,
    module_of,
    pair_names,
)
from pemt_core.model.assemble import Expert, initial_prompt
from pemt_core.model.stacks import LinearPlace, adapted_layers, linear_layers, width

FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")  # safetensors' names of types
MOST_PROMPT_TOKENS = 10_000
LFS_POINTER = b"version https://git-lfs."


def load_lora(directory: Path, name: str, description: str | None, backbone: Backbone) -> ImportedExpert:
    """Read the LoRA in a folder as the expert `name`, in float32; a `wo` without a LoRA has a pair of zeros.

    Its prompt is the embeddings of the description's tokens or, without a description, the folder's prompt. If all
    layers have the same scale, A and B are kept as they are; else each layer's scale is multiplied into B, and s is 1.

    Raises ArtifactError if the folder, a file, a key or a tensor does not fit a source adapter on `backbone`.
    """
    directory = Path(directory)
    path = directory / TENSORS
    with _opened_lora(directory, backbone.model, backbone.fingerprint) as (file, shapes):
        pairs = {place: _pair(path, file, place, shape.rank) for place, shape in shapes.items()}
    scales = {shape.scale for shape in shapes.values()}
    scale = scales.pop() if len(scales) == 1 else 1.0
    tensors = {PROMPT_TENSOR: _prompt(directory, description, backbone)}
    for place in adapted_layers(backbone.model, [f"{place.key}.down" for place in shapes]):
        num_outputs, num_inputs = place.layer.weight.shape
        down, up = pairs.get(place, (torch.zeros(1, num_inputs), torch.zeros(num_outputs, 1)))
        if place in shapes and shapes[place].scale != scale:
            up = _finite(path, pair_names(place.name)[1], shapes[place].scale * up)
        tensors |= {f"{place.key}.down": down, f"{place.key}.up": up}
    return ImportedExpert(Expert(name, tensors, scale), backbone.fingerprint, sha256_of_file(path))


def lora_ranks(directory: Path, model: Any) -> dict[str, int]:
    """The rank of the LoRA at each linear layer that has one, by the layer's key. `model` may be on the meta device.

    Raises ArtifactError like `load_lora`, but tensors are not read.
    """
    with _opened_lora(Path(directory), model) as (_, shapes):
        return {place.key: shape.rank for place, shape in shapes.items()}


@contextmanager
def _opened_lora(
    directory: Path, model: Any, fingerprint: str | None = None
) -> Iterator[tuple[Any, dict[LinearPlace, Shape]]]:
    """Open the file of tensors, and yield it with rank and scale at each linear layer of `model` that has a LoRA."""
    _check_files(directory)
    config, path = read_config(directory / CONFIG), directory / TENSORS
    places = {place.name: place for place in linear_layers(model)}
    with _opened(path, fingerprint) as file:
        shapes = config.shapes_of(_modules(path, list(file.keys()), places), directory / CONFIG)
        yield file, {place: shapes[module] for module, place in places.items() if module in shapes}


def _pair(path: Path, file: Any, place: LinearPlace, rank: int) -> tuple[Tensor, Tensor]:
    """A and B of the LoRA at a linear layer."""
    (num_outputs, num_inputs), (a, b) = place.layer.weight.shape, pair_names(place.name)
    return _tensor(path, file, a, (rank, num_inputs)), _tensor(path, file, b, (num_outputs, rank))


def _check_files(directory: Path) -> None:
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "no such folder"
        raise ArtifactError(f"{directory}: {what}; expected one with {CONFIG} and {TENSORS}, as PEFT saves it")
    if not (directory / TENSORS).is_file() and (directory / PICKLED).is_file():
        raise ArtifactError(
            f"{directory}: has only {PICKLED}, a pickle, which can run code when it is read; expected {TENSORS}: "
            "if you trust it, load it with PEFT and save it by save_pretrained()"
        )
    inside = sorted(path.parent.name for path in directory.glob(f"*/{CONFIG}"))  # PEFT gives each named LoRA a folder
    hint = f"; name the folder of one: {nearest('', inside)}" if inside else ""
    for file in (CONFIG, TENSORS):
        if not (directory / file).is_file():
            raise ArtifactError(f"{directory / file}: no such file; expected a LoRA's folder as PEFT saves it{hint}")


@contextmanager
def _opened(path: Path, fingerprint: str | None) -> Iterator[Any]:
    """Open a safetensors file. Raises ArtifactError if it is damaged or names another backbone than `fingerprint`."""
    with path.open("rb"):  # names a file without permission; safetensors calls it missing
        pass
    try:
        with safe_open(path, framework="pt") as file:
            recorded = (file.metadata() or {}).get(BACKBONE)
            if recorded is not None and fingerprint is not None:
                check_backbone(path, recorded, fingerprint)
            yield file
    except SafetensorError as error:
        _check_pointer(path)
        raise ArtifactError(f"{path}: not readable as safetensors ({error}); it is truncated or altered") from error


def _check_pointer(path: Path) -> None:
    """Raise ArtifactError if a file is what git clones without Git LFS."""
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ArtifactError(f"{path}: is a Git LFS pointer, expected tensors; fetch the file itself: git lfs pull")


def _tensor(path: Path, file: Any, name: str, shape: tuple[int, ...]) -> Tensor:
    """One tensor in float32. Raises ArtifactError, before it is read, if its type or shape is another."""
    header = file.get_slice(name)
    if header.get_dtype() not in FLOATS:
        raise ArtifactError(
            f"{path}: tensor '{name}' has the type {header.get_dtype()}: expected floating-point numbers"
        )
    if tuple(header.get_shape()) != shape:
        raise ArtifactError(
            f"{path}: tensor '{name}' has the shape {tuple(header.get_shape())}: expected {shape} by {CONFIG} and the "
            "backbone; was it trained on another one?"
        )
    return _finite(path, name, file.get_tensor(name).float())


def _finite(path: Path, name: str, tensor: Tensor) -> Tensor:
    if not tensor.isfinite().all():
        raise ArtifactError(f"{path}: tensor '{name}' has values that are not finite; expected only finite numbers")
    return tensor


def _modules(path: Path, names: list[str], modules: Iterable[str]) -> list[str]:
    """The modules that tensors belong to.

    Raises ArtifactError if a tensor is neither A nor B, is on no module of `modules`, or is unpaired.
    """
    modules, found = list(modules), []
    for name in names:
        module = module_of(name)
        if module is None:
            form = " or ".join(pair_names("<module>"))
            raise ArtifactError(f"{path}: tensor '{cut(name)}': not part of a plain LoRA; expected names like {form}")
        if module not in modules:
            raise ArtifactError(
                f"{path}: tensor '{cut(name)}': a LoRA on '{cut(module)}'; expected linear layers of the backbone's "
                f"attentions and feed-forwards: {nearest(module, modules)}"
            )
        found.append(module)
    if not found:
        raise ArtifactError(f"{path}: no tensors; expected the LoRA of at least one linear layer")
    for name in (name for module in found for name in pair_names(module)):
        if name not in names:
            raise ArtifactError(f"{path}: lacks '{name}', the other half of its pair")
    return list(dict.fromkeys(found))


def _prompt(directory: Path, description: str | None, backbone: Backbone) -> Tensor:
    """The prompt (P, D)."""
    path, d_model = directory / PROMPT, width(backbone.model)
    if not path.is_file():
        if description is None:
            raise ArtifactError(f"{path}: no such file; a LoRA without a prompt needs a description of its task")
        return _described(description, backbone)
    with _opened(path, backbone.fingerprint) as file:  # an exported prompt names its backbone
        if description is not None:
            return _described(description, backbone)
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in sorted(file.keys())}
        rows = shapes.get(PROMPT_TENSOR, (0,))[0]
        if shapes.get(PROMPT_TENSOR) != (rows, d_model) or not 0 < rows <= MOST_PROMPT_TOKENS:
            expected = f"'{PROMPT_TENSOR}' of the shape (P, {d_model}), P at most {MOST_PROMPT_TOKENS:,}"
            raise ArtifactError(f"{path}: holds {shown(shapes)}: expected {expected}")
        return _tensor(path, file, PROMPT_TENSOR, shapes[PROMPT_TENSOR])


def _described(description: str, backbone: Backbone) -> Tensor:
    ids = torch.tensor(description_ids(backbone.tokenizer, description))
    return initial_prompt(backbone.model, ids, "vocab", torch.Generator())

"""Trained tensors in a safetensors file: read, and compared with what their description and their backbone expect."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pemt_core.artifacts.files import sha256_of_file
from pemt_core.errors import ArtifactError


def read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """All tensors of a safetensors file with a known hash.

    Raises ArtifactError if it is missing or altered, or holds anything but finite numbers in float32.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; the step that writes it has not run")
    try:
        found = sha256_of_file(path)
        if found != sha256:
            raise ArtifactError(
                f"{path}: {path.stat().st_size} bytes with SHA-256 {found[:12]}, but its description says "
                f"{sha256[:12]}; it is truncated or altered"
            )
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(f"{path}: not readable as safetensors ({error})") from error
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            raise ArtifactError(f"{path}: tensor '{name}' is {tensor.dtype}, expected torch.float32")
        if not tensor.isfinite().all():
            raise ArtifactError(f"{path}: tensor '{name}' has values that are not finite, expected numbers alone")
    return tensors


def check_shapes(
    path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], expected_by: str
) -> None:
    """Raise ArtifactError, naming the first, if a tensor of `path` is missing, unexpected or of another shape."""
    for name in (*expected, *tensors):
        if name not in tensors:
            raise ArtifactError(f"{path}: lacks the tensor '{name}', expected by {expected_by}")
        if name not in expected:
            raise ArtifactError(f"{path}: has a tensor '{name}', not expected by {expected_by}")
        if list(tensors[name].shape) != list(expected[name]):
            shapes = f"{list(tensors[name].shape)}, expected {list(expected[name])} by {expected_by}"
            raise ArtifactError(f"{path}: tensor '{name}' has the shape {shapes}")

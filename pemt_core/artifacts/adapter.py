"""A trained adapter on disk: adapter.safetensors, its description adapter.json, its curve in training.json."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic

from safetensors.torch import save_file
from torch import Tensor

from pemt_core.artifacts.description import (
    DESCRIPTION,
    TRAINING,
    Description,
    TensorsRecord,
    TrainingRecord,
    as_json,
    in_order,
    load_description_with_tensors,
    load_training_record,
    trained_cells,
)
from pemt_core.artifacts.files import atomic_directory, sha256_of_file, write_record
from pemt_core.artifacts.tensors import check_shapes, read_tensors
from pemt_core.errors import ArtifactError, SettingsError, nearest

TENSORS = "adapter.safetensors"


@dataclass(frozen=True)
class Adapter(Generic[Description]):
    """A stored adapter, read and checked."""

    description: Description
    tensors: dict[str, Tensor]
    content_hash: str  # of the tensors file


def save_adapter(directory: Path, description: Description, tensors: dict[str, Tensor], record: TrainingRecord) -> str:
    """Write the folder whole or not at all; returns the content hash of the tensors."""
    with atomic_directory(directory) as temporary:
        return write_adapter(temporary, description, tensors, record)


def write_adapter(folder: Path, description: Description, tensors: dict[str, Tensor], record: TrainingRecord) -> str:
    """Write the files of an adapter to an existing folder; returns the content hash of the tensors."""
    save_file(tensors, folder / TENSORS)
    sha256 = sha256_of_file(folder / TENSORS)
    shapes = {name: list(tensor.shape) for name, tensor in sorted(tensors.items())}
    write_record(folder / TRAINING, asdict(record))
    beside = TensorsRecord(sha256, shapes), sha256_of_file(folder / TRAINING)
    write_record(folder / DESCRIPTION, as_json(description, *beside))
    return sha256


def load_adapter(directory: Path, backbone: str, kind: type[Description]) -> Adapter[Description]:
    """Read a folder that `save_adapter` wrote, for the backbone with the fingerprint `backbone`.

    Raises ArtifactError if it is missing, truncated or altered, describes something other than `kind` or other tensors,
    or was trained on another backbone.
    """
    directory = Path(directory)
    description, recorded = load_description_with_tensors(directory, kind)
    check_backbone(directory, description.backbone, backbone)
    tensors = read_tensors(directory / TENSORS, recorded.sha256)
    check_shapes(directory / TENSORS, tensors, recorded.shapes, DESCRIPTION)
    return Adapter(description, tensors, recorded.sha256)


def best_on_validation(target_dir: Path, metric: str, methods: Sequence[str]) -> Path:
    """The folder of a target's cell with the highest `metric` (main, or a metric's name) on validation.

    A tie goes to the method that `methods` lists first, then to the first folder by name. Raises ArtifactError if there
    is no cell, and SettingsError, naming the nearest, if the task has no such metric.
    """
    cells = in_order(trained_cells(target_dir), methods)
    found = {directory: load_training_record(directory).validation for directory in cells}
    if not found:
        raise ArtifactError(
            f"{target_dir}: has no trained cell; list {target_dir.name} in tasks.targets, and "
            f"`dvc repro transfer@{target_dir.name}` trains its cells"
        )
    for directory, validation in found.items():
        if metric not in validation:
            raise SettingsError(
                f"{directory / TRAINING}: there is no validation metric '{metric}'; {nearest(metric, validation)}"
            )
    return max(found, key=lambda directory: found[directory][metric])


def check_backbone(path: Path, recorded: str, found: str) -> None:
    """Raise ArtifactError, naming both, if the backbone that `path` records is not the one found."""
    if recorded != found:
        raise ArtifactError(
            f"{path}: trained on the backbone {recorded[:12]}, but the current one is {found[:12]}; "
            "use that backbone, or train again on this one"
        )

"""Read a stored cell that fits its backbone and experts, and restore it as a model."""

from pathlib import Path
from typing import Any

import torch

from pemt_core.artifacts.adapter import TENSORS, Adapter, load_adapter
from pemt_core.artifacts.description import TargetDescription, load_training_record
from pemt_core.artifacts.experts import ExpertBank
from pemt_core.artifacts.tensors import check_shapes
from pemt_core.backbone.store import Backbone
from pemt_core.backbone.text_ids import description_ids
from pemt_core.errors import ArtifactError, PemtError
from pemt_core.methods import Method, stored_method
from pemt_core.model.assemble import FoldedLayers
from pemt_core.model.prompted import PromptedModel


def load_target(directory: Path, task: str, backbone: Backbone, bank: ExpertBank) -> Adapter[TargetDescription]:
    """Read a trained cell of the target `task`. `backbone` may be on the meta device.

    Raises ArtifactError like `load_adapter`, and if the cell is of another target or was trained with other experts, or
    if a tensor is not what its method trains; SettingsError if its kind of method is unknown.
    """
    adapter = load_adapter(directory, backbone.fingerprint, TargetDescription)
    description = adapter.description
    if description.task != task:
        raise ArtifactError(f"{directory}: is a cell of '{description.task}', expected one of '{task}'")
    method = method_of_cell(description)
    bank.check(directory, description, method.needs_lone_prompts)
    ids = torch.tensor(description_ids(backbone.tokenizer, method.prompt_text(description.prompt)))
    generator = torch.Generator().manual_seed(0)
    initial = method.initial_tensors(backbone.model, ids, bank.select(description.sources), generator)
    expected = {name: tensor.shape for name, tensor in initial.items()}
    check_shapes(directory / TENSORS, adapter.tensors, expected, "its backbone and method")
    return adapter


def holds_cell(directory: Path, cell: TargetDescription, backbone: Backbone, bank: ExpertBank) -> bool:
    """Whether a folder holds, whole and unaltered, the cell `cell`, trained from the same inputs."""
    try:
        load_training_record(directory)
        return load_target(directory, cell.task, backbone, bank).description.key == cell.key
    except (PemtError, OSError):
        return False


def check_cell(directory: Path, description: TargetDescription) -> None:
    """Raise ArtifactError if a folder <target>/<cell> holds another cell than its name says."""
    if directory.parts[-2:] != (description.task, description.cell.name):
        raise ArtifactError(
            f"{directory}: holds the cell {description.task}/{description.cell.name}; it was copied or renamed"
        )


def restore_target(
    backbone: Any, adapter: Adapter[TargetDescription], bank: ExpertBank, folded: FoldedLayers | None = None
) -> PromptedModel:
    """Build the model of a trained cell from `adapter` and the experts that it names, and attach it to `backbone`.

    `folded` is that of `pemt_core.model.assemble.build_target_model`. Raises ArtifactError if an expert is missing, and
    SettingsError if the cell's kind of method is unknown.
    """
    sources = adapter.description.sources
    return method_of_cell(adapter.description).build(backbone, adapter.tensors, bank.select(sources), folded)


def method_of_cell(description: TargetDescription) -> Method:
    """The method by which a cell was trained. Raises SettingsError if its kind is unknown."""
    return stored_method(description.settings, f"the method {description.method} of {description.task}")

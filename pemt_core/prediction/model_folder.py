"""A trained target with all that it needs in one folder, laid out like the pipeline's folders.

model.json                its description
backbone/                 as the backbone step wrote it; may be left out and given on loading
experts/                  as collect_experts wrote it
targets/<task>/           the trained cell
tasks/<task>/task.json    labels, description, generation length
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from pemt_core.artifacts.description import TargetDescription, load_description
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.files import atomic_directory, read_record, write_record
from pemt_core.artifacts.target import load_target
from pemt_core.backbone.shapes import outline
from pemt_core.backbone.store import load_backbone
from pemt_core.data.prepared import load_task_description, write_description
from pemt_core.errors import ArtifactError
from pemt_core.prediction.predictor import Predictor, load_predictor
from pemt_core.tasks import get_task
from pemt_core.tasks.pairs import RowConversion
from pemt_core.tasks.rows import columns_as_text

MODEL = "model.json"


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class ModelDescription:
    """model.json."""

    targets: list[str]
    backbone: str  # fingerprint
    backbone_dir: str | None  # where it is, if the folder does not hold it
    own_texts: dict[str, dict[str, str]]  # of the user's tasks: name in the text to column; others are in the registry
    batch_size: int

    def conversion(self, target: str) -> RowConversion:
        """How raw rows of a target become text."""
        if target in self.own_texts:
            return columns_as_text(self.own_texts[target], "", None, None)
        return get_task(target).conversion


def write_model_folder(
    folder: Path,
    backbone_dir: Path,
    experts_dir: Path,
    adapter_dirs: Mapping[str, Path],
    data_dir: Path,
    *,
    own_texts: Mapping[str, Mapping[str, str]],
    include_backbone: bool,
    batch_size: int,
) -> ModelDescription:
    """Write a folder of the trained cells in `adapter_dirs` for `load_model_folder`, whole or not at all.

    `own_texts` has the names in the text and their columns for each target that is not a task of the registry. Raises
    ArtifactError if a folder is missing or altered, or if the cells were trained on different backbones.
    """
    fingerprints = {str(d): load_description(d, TargetDescription)[0].backbone for d in adapter_dirs.values()}
    if len(set(fingerprints.values())) != 1:
        raise ArtifactError(f"a model has one backbone; {', '.join(fingerprints)} were trained on different ones")
    _check(backbone_dir, experts_dir, adapter_dirs, whole=include_backbone)
    reference = None if include_backbone else str(Path(backbone_dir).resolve())
    texts = {target: dict(fields) for target, fields in own_texts.items()}
    description = ModelDescription(list(adapter_dirs), next(iter(fingerprints.values())), reference, texts, batch_size)
    with atomic_directory(folder) as temporary:
        if include_backbone:
            shutil.copytree(backbone_dir, temporary / "backbone")
        shutil.copytree(experts_dir, temporary / "experts")
        for task, directory in adapter_dirs.items():
            shutil.copytree(directory, temporary / "targets" / task)
            task_dir = temporary / "tasks" / task
            task_dir.mkdir(parents=True)
            write_description(task_dir, load_task_description(Path(data_dir) / task, task))
        write_record(temporary / MODEL, asdict(description))
    return description


def read_model_description(folder: Path) -> ModelDescription:
    """Read model.json of a folder. Raises ArtifactError if it is missing or does not describe a model."""
    path = Path(folder) / MODEL
    values = read_record(path, "register the model again")
    try:
        return ModelDescription(**values)
    except (TypeError, ValidationError) as error:
        raise ArtifactError(f"{path}: not a model's description ({error})") from error


def load_model_folder(folder: Path, backbone_dir: Path | None = None) -> Predictor:
    """Load a predictor for all targets of a folder that `write_model_folder` wrote.

    `backbone_dir` replaces the backbone in the folder, or the one that model.json refers to. Raises ArtifactError if
    the backbone is gone, or a file is missing or altered.
    """
    folder = Path(folder)
    description = read_model_description(folder)
    return load_predictor(
        backbone_dir or Path(description.backbone_dir or folder / "backbone"),
        folder / "experts",
        {task: folder / "targets" / task for task in description.targets},
        {task: folder / "tasks" / task for task in description.targets},
        {task: description.conversion(task) for task in description.targets},
        batch_size=description.batch_size,
    )


def _check(backbone_dir: Path, experts_dir: Path, adapter_dirs: Mapping[str, Path], *, whole: bool) -> None:
    """Raise ArtifactError if a file is missing or altered, or does not fit; the backbone's weights only if `whole`."""
    for directory in (backbone_dir, experts_dir, *adapter_dirs.values()):
        if not Path(directory).is_dir():
            raise ArtifactError(f"{directory}: no such folder; the step that writes it has not run")
    backbone = load_backbone(backbone_dir) if whole else outline(backbone_dir)
    bank = load_experts(experts_dir, backbone)
    for task, directory in adapter_dirs.items():
        load_target(directory, task, backbone, bank)

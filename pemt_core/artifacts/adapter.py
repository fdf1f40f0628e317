"""What a training leaves behind: adapter.safetensors, adapter.json that describes it, training.json with its curve.

The description holds no commit, time or host: those would make equal results look different to later steps.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pemt_core.answering.rule import AnswerRule
from pemt_core.artifacts.files import atomic_directory, read_json, sha256_of_file, write_json
from pemt_core.errors import ArtifactError, SettingsError, nearest

TENSORS, DESCRIPTION, TRAINING = "adapter.safetensors", "adapter.json", "training.json"


@dataclass(frozen=True)
class AdapterDescription:
    """adapter.json: what an adapter is for, what it was trained on, and what it needs."""

    stage: Literal["source", "target"]
    task: str
    prompt: str  # the description sentence whose tokens started the prompt
    backbone: str  # fingerprint: the tensors mean nothing on another one
    data: str  # content hash of the prepared task
    seed: int
    settings: dict[str, Any]  # the step's settings, with this task's differences
    answer: AnswerRule  # by which validation answered when this was selected, and by which it is served
    scale: float | None = None  # source: s = alpha / rank
    method: str | None = None  # target
    k: str | int | None = None  # target: full, or few-shot rows per class
    learning_rate: float | None = None
    experts: str | None = None  # target: hash of the experts' file that holds those that it mixes
    sources: list[str] = field(default_factory=list)  # target: expert k is sources[k]; one may be left out


@dataclass(frozen=True)
class TrainingRecord:
    """training.json: how the training went."""

    validation: dict[str, float]  # metrics of the tensors that were kept
    best_step: int
    steps: int
    history: list[dict[str, float]]
    trained_parameters: int
    trials: dict[str, float] = field(default_factory=dict)  # validation score by learning rate


@dataclass(frozen=True)
class Adapter:
    """A stored adapter, read and checked."""

    description: AdapterDescription
    tensors: dict[str, Tensor]
    content_hash: str  # of the tensors file

    def check_experts(self, directory: Path, found: str) -> None:
        """ArtifactError, naming both, where a target's adapter mixes other experts than those with the hash `found`."""
        wanted = self.description.experts
        if wanted is not None and wanted != found:
            raise ArtifactError(
                f"{directory}: mixes the experts {wanted[:12]}, those at hand are {found[:12]}; "
                "train it again, or give the experts that it was trained with"
            )


def save_adapter(
    directory: Path, description: AdapterDescription, tensors: dict[str, Tensor], record: TrainingRecord
) -> str:
    """Write the folder whole or not at all; returns the content hash of the tensors."""
    with atomic_directory(directory) as temporary:
        save_file(tensors, temporary / TENSORS)
        shapes = {name: list(tensor.shape) for name, tensor in sorted(tensors.items())}
        content = {"sha256": sha256_of_file(temporary / TENSORS), "shapes": shapes}
        write_json(temporary / DESCRIPTION, {**asdict(description), "tensors": content})
        write_json(temporary / TRAINING, asdict(record))
    return str(content["sha256"])


def load_adapter(directory: Path, backbone: str) -> Adapter:
    """Read a folder that `save_adapter` wrote, for the backbone with the fingerprint `backbone`.

    ArtifactError where it is missing, truncated or altered, or was trained on another backbone.
    """
    directory = Path(directory)
    description, sha256 = load_description(directory)
    check_backbone(directory, description.backbone, backbone)
    return Adapter(description, read_tensors(directory / TENSORS, sha256), sha256)


def load_description(directory: Path) -> tuple[AdapterDescription, str]:
    """adapter.json of a folder, and the content hash of the tensors that it describes."""
    path = Path(directory) / DESCRIPTION
    values = read_json(path)
    try:
        content = values.pop("tensors")
        return AdapterDescription(**values), content["sha256"]
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: not an adapter's description ({error})") from error


def load_training_record(directory: Path) -> TrainingRecord:
    """Read training.json of an adapter's folder."""
    path = Path(directory) / TRAINING
    try:
        return TrainingRecord(**read_json(path))
    except TypeError as error:
        raise ArtifactError(f"{path}: not a training's record ({error})") from error


def best_on_validation(target_dir: Path, metric: str) -> Path:
    """The cell's folder in a target's that has the highest `metric` (main, or a name) on validation.

    Of equals PEMT, whose answers tell how much each source counted, then the first by name.

    ArtifactError where no cell is there, SettingsError, naming the nearest, where the task has no such metric.
    """
    cells = sorted((path.parent for path in target_dir.glob(f"*/{TRAINING}")), key=_pemt_first)
    found = {directory: load_training_record(directory).validation for directory in cells}
    if not found:
        raise ArtifactError(
            f"{target_dir}: no trained cell is there; once tasks.targets lists {target_dir.name}, "
            f"`dvc repro transfer@{target_dir.name}` trains them"
        )
    for directory, validation in found.items():
        if metric not in validation:
            raise SettingsError(
                f"{directory / TRAINING}: no metric '{metric}' of validation; {nearest(metric, validation)}"
            )
    return max(found, key=lambda directory: found[directory][metric])


def _pemt_first(directory: Path) -> tuple[bool, str]:
    return not directory.name.startswith("pemt-"), directory.name


def check_backbone(path: Path, recorded: str, found: str) -> None:
    """ArtifactError, naming both, where something was trained on another backbone than the one at hand."""
    if recorded != found:
        raise ArtifactError(
            f"{path}: trained on the backbone {recorded[:12]}, the one at hand is {found[:12]}; "
            "use that backbone, or train again on this one"
        )


def read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """All tensors of a safetensors file whose hash is known. ArtifactError where it is missing, cut off or altered."""
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; the step that writes it has not run")
    found = sha256_of_file(path)
    if found != sha256:
        raise ArtifactError(
            f"{path}: {path.stat().st_size} bytes with SHA-256 {found[:12]}, its description says {sha256[:12]}; "
            "it is truncated or altered"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ArtifactError(f"{path}: not readable as safetensors ({error})") from error

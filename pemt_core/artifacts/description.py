"""The description of a training: adapter.json of a source or of a target's cell, training.json with its curve.

A description holds no commit, time or host: those would make equal results look different to later steps.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pemt_core.answering.rule import AnswerRule
from pemt_core.artifacts.cell import Cell, FewShot
from pemt_core.artifacts.files import read_record, sha256_of_file
from pemt_core.artifacts.staging import recover
from pemt_core.errors import ArtifactError, nearest

DESCRIPTION, TRAINING = "adapter.json", "training.json"
LONE_PROMPT = "prompt"  # the folder, in a source's, of its prompt that was trained without an adapter
AGAIN = "run the step that trains it again"


@dataclass(frozen=True)
class SourceDescription:
    """adapter.json of a source: what its adapter is for, what it was trained on, and what it needs."""

    task: str
    prompt: str  # the description whose tokens initialised the prompt
    backbone: str  # fingerprint; the tensors are useless on another backbone
    data: str  # content hash of the prepared task
    seed: int
    settings: dict[str, Any]  # the step's settings, with this task's differences
    answer: AnswerRule  # the rule by which validation selected it
    scale: float  # s = alpha / rank


@dataclass(frozen=True)
class LonePromptDescription:
    """adapter.json of a source's prompt that was trained without an adapter."""

    task: str
    prompt: str  # the task's description, from which it may start
    backbone: str
    data: str
    seed: int
    settings: dict[str, Any]
    answer: AnswerRule


@dataclass(frozen=True)
class TargetDescription:
    """adapter.json of a target's cell."""

    task: str
    prompt: str
    backbone: str
    data: str
    method: str  # its name
    settings: dict[str, Any]  # of the chosen option, as `pemt_core.methods.stored_method` takes them
    answer: AnswerRule  # the rule by which validation selected it, and by which it is served
    k: FewShot
    seed: int
    sources: list[str]  # expert k is the expert of sources[k]
    experts: str  # `mixture_hash` of the experts of these sources
    key: str  # hash of all that the cell comes from, including the method with all its options, and its code

    @property
    def cell(self) -> Cell:
        return Cell(self.task, self.method, self.k, self.seed)


AnyDescription = SourceDescription | LonePromptDescription | TargetDescription
Description = TypeVar("Description", bound=AnyDescription)

_WHAT: dict[type, str] = {
    SourceDescription: "a source, as train_source",
    LonePromptDescription: "a source's prompt that is trained alone, as train_source",
    TargetDescription: "a target's cell, as transfer",
}
_AGAIN: dict[type, str] = {
    SourceDescription: "run the train_source step again",
    LonePromptDescription: "run the train_source step again",
    TargetDescription: "run the transfer step again, which trains the cell anew",
}


@dataclass(frozen=True)
class TrainingRecord:
    """training.json: how the training went."""

    learning_rate: float  # of those that were tried, the best on validation
    validation: dict[str, float]  # metrics of the kept tensors
    best_step: int
    steps: int
    history: list[dict[str, float]]
    trained_parameters: int
    trials: dict[str, float | None] = field(default_factory=dict)  # validation score by configuration; None: diverged


@dataclass(frozen=True)
class TensorsRecord:
    """What adapter.json says about the tensors beside it."""

    sha256: str  # of the file
    shapes: dict[str, list[int]]


def as_json(description: AnyDescription, tensors: TensorsRecord, training: str) -> Any:
    """adapter.json: the description, what it says about the tensors, and the SHA-256 of training.json."""
    return {**asdict(description), "tensors": asdict(tensors), "training": training}


def load_description(directory: Path, kind: type[Description]) -> tuple[Description, str]:
    """Read adapter.json of a folder; returns the description and the content hash of its tensors.

    Raises ArtifactError if it is missing, altered, or describes something other than `kind`.
    """
    description, tensors = load_description_with_tensors(directory, kind)
    return description, tensors.sha256


def load_description_with_tensors(directory: Path, kind: type[Description]) -> tuple[Description, TensorsRecord]:
    """Like `load_description`, with all that it says about the tensors."""
    path = Path(directory) / DESCRIPTION
    values = read_record(path, _AGAIN[kind])
    try:
        tensors = TensorsRecord(**values.pop("tensors"))
        del values["training"]  # `load_training_record` compares it
        return kind(**values), tensors
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path}: not the description of {_WHAT[kind]} writes it; it is for something else, or from another version"
        ) from error


def is_target(directory: Path) -> bool:
    """Whether an adapter's folder is a target's cell.

    Raises ArtifactError, with the nearest adapter, if it is no adapter's folder, or if its description is altered.
    """
    directory = Path(directory)
    recover(directory.parent, directory.name)
    if not (directory / DESCRIPTION).is_file():
        raise ArtifactError(f"{directory}: {_no_adapter(directory)}")
    return "method" in read_record(directory / DESCRIPTION, AGAIN)


def _no_adapter(directory: Path) -> str:
    """What is at a path instead of an adapter's folder, and the adapters in it or beside it."""
    if directory.is_dir():
        inside = [path.parent.name for path in directory.glob(f"[!.]*/{DESCRIPTION}")]
        return f"has no {DESCRIPTION}" + (f"; name an adapter in it; {nearest('', inside)}" if inside else "")
    what = f"is a file, expected a folder with {DESCRIPTION}" if directory.exists() else "no such folder"
    beside = [path.parent.name for path in directory.parent.glob(f"[!.]*/{DESCRIPTION}")]
    return what + (f"; {nearest(directory.name, beside)}" if beside else "")


def load_training_record(directory: Path) -> TrainingRecord:
    """Read training.json of an adapter's folder.

    Raises ArtifactError if it is missing, altered, something else, or not what adapter.json beside it describes.
    """
    path = Path(directory) / TRAINING
    values, description = read_record(path, AGAIN), read_record(path.with_name(DESCRIPTION), AGAIN)
    if description.get("training") != sha256_of_file(path):
        raise ArtifactError(f"{path}: not the training that {DESCRIPTION} beside it describes; {AGAIN}")
    try:
        return TrainingRecord(**values)
    except TypeError as error:
        raise ArtifactError(f"{path}: not the record of a training ({error})") from error


def lone_prompt_folder(source_dir: Path) -> Path:
    """Where the prompt that is trained alone lies in a source's folder."""
    return Path(source_dir) / LONE_PROMPT


def has_lone_prompt(source_dir: Path) -> bool:
    """Whether a source's folder has a prompt that was trained alone."""
    return (lone_prompt_folder(source_dir) / DESCRIPTION).is_file()


def trained_cells(target_dir: Path) -> list[Path]:
    """The folders of the complete cells in a target's folder, by name; empty if there is no such folder."""
    recover(Path(target_dir))
    return sorted(path.parent for path in Path(target_dir).glob(f"[!.]*/{TRAINING}"))


def in_order(cells: Sequence[Path], methods: Sequence[str]) -> list[Path]:
    """Folders of cells in the order of `methods`; cells of other methods come last."""
    places = {method: place for place, method in enumerate(methods)}
    named = [(load_description(directory, TargetDescription)[0].method, directory) for directory in cells]
    return [d for _, d in sorted(named, key=lambda each: (places.get(each[0], len(places)), each[1].name))]

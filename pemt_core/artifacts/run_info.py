"""The facts of a training's tracking run, whether it is live or written from files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.description import LonePromptDescription, SourceDescription
from pemt_core.artifacts.files import sha256_of_json

ARTIFACT_TAG = "pemt.artifact"  # the content hash of the trained tensors, which links a run to its files


@dataclass(frozen=True)
class RunInfo:
    """The facts that identify and describe one training."""

    cell: str  # "train_source/mnli", "train_source/mnli/prompt" or "transfer/cb/pemt/k=full/seed=4096"
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, Any]
    key: str = ""  # of a target's cell: the hash of what it comes from

    @property
    def run_key(self) -> str:
        """A re-run replaces the run with the same key. A source's is the hash of its data, backbone and settings."""
        return self.key or sha256_of_json([self.tags, self.params])


class CellFacts(Protocol):
    """The facts that a cell's description and its result share."""

    @property
    def cell(self) -> Cell: ...
    @property
    def data(self) -> str: ...
    @property
    def backbone(self) -> str: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def sources(self) -> Sequence[str]: ...
    @property
    def key(self) -> str: ...


def source_run(description: SourceDescription | LonePromptDescription) -> RunInfo:
    """The run of a stage-1 training, of an adapter or of a prompt alone."""
    task, alone = description.task, isinstance(description, LonePromptDescription)
    tags = _tags("train_source", task, description.data, description.backbone)
    params = {"seed": description.seed, "settings": description.settings}
    if alone:
        return RunInfo(f"train_source/{task}/prompt", f"{task} source prompt", tags, params)
    return RunInfo(f"train_source/{task}", f"{task} source", tags, params)


def target_run(facts: CellFacts) -> RunInfo:
    """The run of one cell of stage 2. Its learning rate is known only at its end."""
    cell = facts.cell
    tags = {**_tags("transfer", cell.task, facts.data, facts.backbone), "pemt.method": cell.method}
    params = {"seed": cell.seed, "k": cell.k, "sources": facts.sources, "settings": facts.settings}
    name = f"{cell.task} {cell.method} k={cell.k} seed={cell.seed}"
    return RunInfo(cell.run, name, tags, params, facts.key)


def _tags(step: str, task: str, data: str, backbone: str) -> dict[str, str]:
    return {"pemt.step": step, "pemt.task": task, "pemt.data": data, "pemt.backbone": backbone}

"""What identifies and describes a training to people: its tracking run, live or written from its files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pemt_core.artifacts.cell import Cell

if TYPE_CHECKING:  # it reads tensors, and tracking must not wait for torch
    from pemt_core.artifacts.adapter import AdapterDescription

ARTIFACT_TAG = "pemt.artifact"  # the content hash of what was trained: links a run to its files


@dataclass(frozen=True)
class RunInfo:
    """What identifies and describes one training."""

    cell: str  # "train_source/mnli" or "transfer/cb/pemt/k=full/seed=4096": one run each, a re-run replaces it
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, Any]


def source_run(description: "AdapterDescription") -> RunInfo:
    """The run of a stage-1 training."""
    return _run(description, f"train_source/{description.task}", f"{description.task} source", "train_source")


def target_run(description: "AdapterDescription") -> RunInfo:
    """The run of one cell of stage 2."""
    task, method, k, seed = description.task, description.method, description.k, description.seed
    cell = Cell(task, method, k, seed)  # type: ignore[arg-type]  # of a target adapter they are set
    return _run(description, cell.run, f"{task} {method} k={k} seed={seed}", "transfer")


def _run(description: "AdapterDescription", cell: str, name: str, step: str) -> RunInfo:
    tags = {
        "pemt.step": step,
        "pemt.task": description.task,
        "pemt.data": description.data,
        "pemt.backbone": description.backbone,
        "pemt.method": description.method or "",
    }
    params = {"seed": description.seed, "sources": description.sources, "settings": description.settings}
    if description.learning_rate is not None:  # where several are tried, the one that is kept is not known yet
        params["learning_rate"] = description.learning_rate
    if description.k is not None:
        params["k"] = description.k
    return RunInfo(cell, name, {tag: value for tag, value in tags.items() if value}, params)

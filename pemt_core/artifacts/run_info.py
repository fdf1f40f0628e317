"""What identifies and describes a training to people: its tracking run, live or written from its files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pemt_core.artifacts.description import SourceDescription, TargetDescription

ARTIFACT_TAG = "pemt.artifact"  # the content hash of what was trained: links a run to its files


@dataclass(frozen=True)
class RunInfo:
    """What identifies and describes one training."""

    cell: str  # "train_source/mnli" or "transfer/cb/pemt/k=full/seed=4096"
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, Any]
    key: str = ""  # of a target's cell: the hash of what it came from; a re-run replaces the run with the same key


def source_run(description: SourceDescription) -> RunInfo:
    """The run of a stage-1 training."""
    task = description.task
    params = {"seed": description.seed, "settings": description.settings}
    return RunInfo(f"train_source/{task}", f"{task} source", _tags(description, "train_source"), params)


def target_run(description: TargetDescription) -> RunInfo:
    """The run of one cell of stage 2; which of its learning rates is kept, its end tells."""
    cell, tags = description.cell, _tags(description, "transfer")
    params = {"seed": cell.seed, "k": cell.k, "sources": description.sources, "settings": description.settings}
    name = f"{cell.task} {cell.method} k={cell.k} seed={cell.seed}"
    return RunInfo(cell.run, name, {**tags, "pemt.method": cell.method}, params, description.key)


def _tags(description: SourceDescription | TargetDescription, step: str) -> dict[str, str]:
    return {
        "pemt.step": step,
        "pemt.task": description.task,
        "pemt.data": description.data,
        "pemt.backbone": description.backbone,
    }

"""A task as a declarative record: its dataset, how a row becomes text, its splits and its metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pemt_core.artifacts.files import read_json
from pemt_core.tasks.pairs import RowConversion
from pemt_core.tasks.split_rules import SplitRule

PINS_PATH = Path(__file__).parent / "revisions.json"

LABEL_TOKENS = 8  # the longest label word and the closing token, with room; a score is as short
ANSWER_TOKENS = 128


@dataclass(frozen=True)
class HubDataset:
    """Where a task's rows come from on the Hugging Face hub."""

    repo: str
    config: str
    subset: str | None = None  # only rows whose `subset` column holds this value

    @property
    def revision(self) -> str:
        """The commit that revisions.json pins for this repository; empty for the newest."""
        revision: str = read_json(PINS_PATH).get(self.repo, "")
        return revision

    def place(self, split: str, row: int) -> str:
        """Where a row is, for messages; `row` counts from 0."""
        return f"{self}, split '{split}', row {row}"

    def __str__(self) -> str:
        subset = f", subset {self.subset}" if self.subset else ""
        return f"{self.repo} ({self.config}{subset})"


@dataclass(frozen=True)
class FileDataset:
    """Where the rows of a task of the user's come from: a file for each official split, relative ones in `folder`."""

    files: Mapping[str, str]
    folder: Path

    def path(self, split: str) -> Path:
        return self.folder / self.files[split]

    def __str__(self) -> str:
        return ", ".join(self.files.values())


@dataclass(frozen=True)
class Task:
    """One of the tasks; adding another adds a record and touches no control flow."""

    name: str
    suite: str  # source, GLUE, SuperGLUE, MRQA or Others; Own, whether source or target, of the user's
    dataset: HubDataset | FileDataset
    conversion: RowConversion
    description: str  # one sentence of plain English; its tokens start the task prompt
    metrics: tuple[str, ...]  # the main one first
    splits: SplitRule
    generation_length: int  # tokens, the closing one included
    caps: Mapping[str, int] = field(default_factory=dict)  # most rows of a split, where the task bounds them

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The label words in class order, or None where the target is free text or a score."""
        return self.conversion.labels

    @property
    def columns(self) -> tuple[str, ...]:
        """The dataset's columns that this record reads."""
        unit = self.splits.unit.path[:1] if self.splits.unit else ()
        return tuple(dict.fromkeys((*self.conversion.columns, *unit)))

"""A task as a declarative record: its dataset, how a row becomes text, its splits and its metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pemt_core.artifacts.files import read_json
from pemt_core.tasks.pairs import RowConversion
from pemt_core.tasks.split_rules import SplitRule

PINS_PATH = Path(__file__).parent / "revisions.json"

LABEL_TOKENS = 8  # enough for the longest label word, or a score, and the closing token
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
        """Return the place of a row, for messages; `row` counts from 0."""
        return f"{self}, split '{split}', row {row}"

    def __str__(self) -> str:
        subset = f", subset {self.subset}" if self.subset else ""
        return f"{self.repo} ({self.config}{subset})"


@dataclass(frozen=True)
class FileDataset:
    """The files of a user's task, one per official split; relative paths start at `folder`."""

    files: Mapping[str, str]
    folder: Path

    def path(self, split: str) -> Path:
        return self.folder / self.files[split]

    def __str__(self) -> str:
        return ", ".join(self.files.values())


@dataclass(frozen=True)
class Task:
    """A task. Adding one adds a record and does not change control flow."""

    name: str
    suite: str  # source, GLUE, SuperGLUE, MRQA or Others; Own for a user's task, source or target
    dataset: HubDataset | FileDataset
    conversion: RowConversion
    description: str  # one sentence of plain English; its tokens start the task prompt
    metrics: tuple[str, ...]  # the main one first
    splits: SplitRule
    generation_length: int  # tokens, including the closing one
    chance: float | None = None  # points that a guess scores, if a constant answer scores less
    caps: Mapping[str, int] = field(default_factory=dict)  # the most rows of a split, if the task limits them

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The label words in class order, or None if the target is free text or a score."""
        return self.conversion.labels

    @property
    def columns(self) -> tuple[str, ...]:
        """The dataset's columns that this record reads."""
        unit = self.splits.unit.path[:1] if self.splits.unit else ()
        return tuple(dict.fromkeys((*self.conversion.columns, *unit)))

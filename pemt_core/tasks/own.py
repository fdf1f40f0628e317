"""Build a user's task from its entry in params.yaml."""

import re
from pathlib import Path

from pemt_core.errors import DataError, SettingsError
from pemt_core.metrics import Scored, score
from pemt_core.tasks.entry import OwnTask
from pemt_core.tasks.files import check_format
from pemt_core.tasks.record import ANSWER_TOKENS, LABEL_TOKENS, FileDataset, Task
from pemt_core.tasks.rows import columns_as_text
from pemt_core.tasks.split_rules import SplitRule, large, own, small

SUITE = "Own"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_RESERVED = ("all", "tokenizer")  # the mean over all targets in tables; the tokenizer's folder in data/


def own_task(name: str, entry: OwnTask, folder: Path) -> Task:
    """Return the record of a user's task; relative paths of its files start at `folder`. No file is read.

    Raises SettingsError if the name is invalid, a file has an unknown format, or a metric cannot score the task.
    """
    key = f"own_tasks.{name}"
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise SettingsError(
            f"{key}: invalid name; expected at most 40 lower-case letters, digits and _, beginning with a letter, "
            f"and not {' or '.join(_RESERVED)}"
        )
    for split, file in entry.files.by_split.items():
        try:
            check_format(Path(file))
        except DataError as error:
            raise SettingsError(f"{key}.files.{split} is {error}") from error
    labels = None if entry.labels is None else tuple(entry.labels)
    _check_metrics(key, entry.metrics, labels)
    return Task(
        name=name,
        suite=SUITE,
        dataset=FileDataset(entry.files.by_split, folder),
        conversion=columns_as_text(entry.text, entry.target, labels, entry.id),
        description=entry.description,
        metrics=tuple(entry.metrics),
        splits=_split_rule(entry),
        generation_length=_generation_length(labels),
    )


def _split_rule(entry: OwnTask) -> SplitRule:
    """Choose the split rule by the given files: a test file stays whole, a validation file alone is halved."""
    if entry.files.validation is None:
        return large(test="test")
    return small() if entry.files.test is None else own("validation", "test")


def _generation_length(labels: tuple[str, ...] | None) -> int:
    """Return enough tokens for any label and tokenizer: one per byte, one for the word's start, the closing one."""
    if labels is None:
        return ANSWER_TOKENS
    return max(LABEL_TOKENS, *(len(label.encode()) + 2 for label in labels))


def _check_metrics(key: str, names: list[str], labels: tuple[str, ...] | None) -> None:
    """Check that each metric can score answers that are all right."""
    answers = list(labels or ("1", "2"))  # of free text: every metric for it can read these
    right = Scored(answers, [[answer] for answer in answers], answers, None if labels is None else answers)
    for place, name in enumerate(names):
        try:
            score([name], right)
        except DataError as error:
            raise SettingsError(f"{key}.metrics.{place} is '{name}': {error}") from error

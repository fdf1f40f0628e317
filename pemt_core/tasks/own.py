"""Build a user's task from its entry in params.yaml."""

import re
from collections.abc import Callable
from pathlib import Path

from pemt_core.data.suites import OWN
from pemt_core.errors import DataError, SettingsError
from pemt_core.metrics import Scored, get_metric, score
from pemt_core.schema.flow import is_plain
from pemt_core.tasks.entry import OwnTask
from pemt_core.tasks.files import check_format
from pemt_core.tasks.record import ANSWER_TOKENS, LABEL_TOKENS, FileDataset, Task
from pemt_core.tasks.rows import columns_as_text
from pemt_core.tasks.split_rules import SplitRule, large, own, small

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_MISSING_IN_TABLES = ("nan",)  # to pandas, which reads results/table.csv; YAML excludes null
# the mean over all targets in tables, the tokenizer's folder in data/, the source made of the other sources
_RESERVED = ("all", "tokenizer", "joint")


def own_task(name: str, entry: OwnTask, folder: Path) -> Task:
    """Return the record of a user's task; relative paths of its files start at `folder`. No file is read.

    Raises SettingsError if the name is invalid, a file has an unknown format, or a metric cannot score the task.
    """
    key = f"own_tasks.{name}"
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise SettingsError(
            f"{key}: invalid name; expected at most 40 lower-case letters, digits and _, beginning with a letter, "
            f"and not {', '.join(_RESERVED[:-1])} or {_RESERVED[-1]}"
        )
    if not is_plain(name):
        raise SettingsError(f"{key}: the name cannot serve, because YAML reads {name} as another value; choose another")
    if name in _MISSING_IN_TABLES:
        raise SettingsError(f"{key}: the name cannot serve, because pandas reads {name} as missing; choose another")
    for split, file in entry.files.by_split.items():
        try:
            check_format(Path(file))
        except DataError as error:
            raise SettingsError(f"{key}.files.{split} is {error}") from error
    words = entry.words
    _check_metrics(key, entry.metrics, words)
    labels = None if entry.labels is None or words is None else dict(zip(entry.labels, words, strict=True))
    problem = _not_scored_by(entry.metrics)
    return Task(
        name=name,
        suite=OWN,
        dataset=FileDataset(entry.files.by_split, folder),
        conversion=columns_as_text(entry.text, entry.target, labels, entry.id, problem),
        description=entry.description,
        metrics=tuple(entry.metrics),
        splits=_split_rule(entry),
        generation_length=_generation_length(words),
        chance=entry.chance,
    )


def _split_rule(entry: OwnTask) -> SplitRule:
    """Choose the split rule by the given files: a test file stays whole, a validation file alone is halved."""
    if entry.files.validation is None:
        return large(test="test")
    return small() if entry.files.test is None else own("validation", "test")


def _generation_length(words: list[str] | None) -> int:
    """Return enough tokens for any label and tokenizer: one per byte, one for the word's start, the closing one."""
    if words is None:
        return ANSWER_TOKENS
    return max(LABEL_TOKENS, *(len(word.encode()) + 2 for word in words))


def _not_scored_by(names: list[str]) -> Callable[[str], str | None]:
    """Return a function that says what the metrics `names` expect instead of an answer."""
    metrics = [get_metric(name) for name in names]

    def problem(answer: str) -> str | None:
        return next((f"{m.expects}, which {m.name} scores" for m in metrics if not m.can_score(answer)), None)

    return problem


def _check_metrics(key: str, names: list[str], words: list[str] | None) -> None:
    """Check that each metric can score answers that are all right."""
    answers = words or ["1", "2"]  # of free text: every metric for it can read these
    right = Scored(answers, [[answer] for answer in answers], answers, words)
    for place, name in enumerate(names):
        try:
            score([name], right)
        except DataError as error:
            raise SettingsError(f"{key}.metrics.{place} is '{name}': {error}") from error

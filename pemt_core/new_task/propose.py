"""Propose the entry of a task from its training file."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pemt_core.errors import DataError
from pemt_core.new_task.answers import Answers, holds_quotes
from pemt_core.schema.visible import trimmed
from pemt_core.tasks.files import ColumnError, column_names, read_rows
from pemt_core.tasks.values import is_unicode

_OF_AN_INDEX = re.compile(r"|Unnamed: \d+(\.\d+)*|__index_level_\d+__")  # as pandas names an index's columns
_NAMED = 8  # columns in a description
_LOOKED_AT = 1_000  # rows, for quotes in texts


@dataclass(frozen=True)
class Proposal:
    """An entry of `own_tasks`, and a sentence about each choice in it that the user did not make."""

    entry: dict[str, Any]
    notes: list[str]
    inferred_labels: bool  # from the training file


def propose_entry(
    files: Mapping[str, str],
    target: str,
    folder: Path,
    *,
    text: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    label_words: Mapping[str, str] | None = None,
    description: str | None = None,
    metrics: Sequence[str] | None = None,
    key: str | None = None,
) -> Proposal:
    """Propose an entry for files by split; relative paths start at `folder`, and the training file fills gaps.

    Args:
        target: the column of the answer.
        text: {name in the text: column}; None: every other column under its name, but for those of an index.
        labels: all answers; empty: free text; None: the different answers if they are at most 50 and occur
            twice on average, otherwise free text.
        label_words: what the model writes for a label; absent labels: themselves.
        key: the column that identifies a row.

    Raises:
        DataError: the training file cannot be read, lacks a column, or has no text or a single answer.
    """
    columns, notes = column_names(folder / files["train"]), list[str]()
    infers_text = text is None
    if text is None:
        text, notes = _inferred_text(files["train"], columns, target, key)
    with _leaving_out(text if infers_text else {}):
        answers, quoted = _survey(folder / files["train"], target, list(text.values()))
    notes += [f"the values of column '{column}' keep their quotes" for column in quoted]
    inferred = labels is None
    labels = _inferred_labels(files["train"], answers) if labels is None else labels
    notes += answers.notes_on_labels(labels) if labels else []
    if not labels and inferred:
        notes += answers.notes_on_free_text(scored=bool(metrics))
    entry = {
        "files": dict(files),
        "text": dict(text),
        "target": target,
        "labels": list(labels) or None,
        **({"label_words": dict(label_words)} if label_words else {}),
        "description": (
            _description(list(text), target, has_labels=bool(labels)) if description is None else description
        ),
        "metrics": list(metrics or (("accuracy", "macro_f1") if labels else ("qa_f1", "qa_em"))),
        **({"id": key} if key else {}),
    }
    return Proposal(entry, notes, inferred)


def _inferred_text(file: str, columns: Sequence[str], target: str, key: str | None) -> tuple[dict[str, str], list[str]]:
    """Return the columns that are text by their names, with notes. Raises DataError if there are none."""
    others = [column for column in columns if column not in (target, key)]
    text = _named(file, [column for column in others if not _is_of_an_index(column)])
    if not text:
        roles = f"'{target}' has the answer" + (f", '{key}' the name of a row" if key else "")
        raise DataError(f"{file}: no column is left for the text: {roles}")
    return text, _notes_on_left_out(columns, target, key)


@contextmanager
def _leaving_out(text: Mapping[str, str]) -> Iterator[None]:
    """Say of an error in a column of `text` how to leave the column out, unless no other is left."""
    try:
        yield
    except ColumnError as error:
        columns = list(text.values())
        others = [column for column in columns if column != error.column]
        if error.column not in columns or not others:
            raise
        raise DataError(f"{error}; or leave the column out: --text {shlex.join(others)}") from error


def _inferred_labels(file: str, answers: Answers) -> list[str]:
    """Return the labels, empty for free text. Raises DataError if all answers are the same."""
    labels = answers.labels
    if len(labels) == 1:
        raise DataError(
            f"{file}: every answer in column '{answers.target}' is '{labels[0]}', but a task needs two; give rows of "
            "others, or pass --free-text"
        )
    return labels


def _notes_on_left_out(columns: Sequence[str], target: str, key: str | None) -> list[str]:
    notes, nameless = [], []
    for number, column in enumerate(columns, start=1):
        if column in (target, key) or not _is_of_an_index(column):
            continue
        if trimmed(column) or number == 1:
            notes.append(f"column {number} ('{column}') is left out, as the index of a pandas table")
        else:
            nameless.append(str(number))
    if nameless:
        subject = f"column {nameless[0]} has" if len(nameless) == 1 else f"columns {', '.join(nameless)} have"
        notes.append(f"{subject} no name and {'is' if len(nameless) == 1 else 'are'} left out")
    return notes


def _is_of_an_index(column: str) -> bool:
    return _OF_AN_INDEX.fullmatch(trimmed(column)) is not None


def _description(names: Sequence[str], target: str, *, has_labels: bool) -> str:
    given = f"the {' and the '.join(names)}" if len(names) <= _NAMED else "the fields of a row"
    return f"Given {given}, {f'decide which {target} it is' if has_labels else f'write the {target}'}."


def _named(file: str, columns: Sequence[str]) -> dict[str, str]:
    """Name each column in the text, without what cannot be seen around it.

    Raises DataError if two get the same name, or if a name is no Unicode text.
    """
    text: dict[str, str] = {}
    for column in columns:
        name = trimmed(column)
        if not is_unicode(name):
            raise DataError(f"{file}: the name of column {name!r} is no Unicode text; pass the columns to read: --text")
        if name in text:
            pair = f"the columns '{text[name]}' and '{column}' have the same name"
            problem = f"the column '{column}' occurs {columns.count(column)} times" if text[name] == column else pair
            raise DataError(f"{file}: {problem}; rename them in the file, or pass other columns to read: --text")
        text[name] = column
    return text


def _survey(path: Path, target: str, texts: Sequence[str]) -> tuple[Answers, list[str]]:
    """Read the answers, and find the columns of text whose values all begin and end with a quote."""
    answers, quoted = Answers(target), list(texts)
    with closing(read_rows(path, (target, *texts))) as rows:
        for place, (_, row) in enumerate(rows):
            answers.add(row[target])
            if place < _LOOKED_AT:
                quoted = [column for column in quoted if holds_quotes(row[column] or "")]
    return answers, quoted

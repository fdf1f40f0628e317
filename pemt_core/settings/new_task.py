"""Add a user's task to params.yaml: its entry, and its name in the list of sources or targets."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML, YAMLError

from pemt_core.artifacts.files import atomic_file
from pemt_core.errors import DataError, SettingsError, shown
from pemt_core.schema.validation import merged, validate
from pemt_core.schema.yaml_values import parse_yaml
from pemt_core.settings.load import parse_settings, read_params
from pemt_core.settings.yaml_text import with_item, with_key, with_list
from pemt_core.tasks import TASKS, known_tasks, own_task
from pemt_core.tasks.entry import OwnTask
from pemt_core.tasks.files import column_names, place_of, read_rows
from pemt_core.tasks.values import RowError

logger = logging.getLogger(__name__)

FEWEST_ROWS = 20  # for training; a tenth of them, at least two, is held out
MOST_LABELS = 50  # more different answers than this are free text

_KEYS_OF_ROLE = {"target": ("targets", "per_target"), "source": ("sources", "per_source")}


def propose_entry(
    files: Mapping[str, str],
    target: str,
    folder: Path,
    *,
    text: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    description: str | None = None,
    metrics: Sequence[str] | None = None,
    key: str | None = None,
) -> dict[str, Any]:
    """Propose an entry of `own_tasks` for files by split; relative paths start at `folder`, and files fill gaps.

    Args:
        target: the column of the answer.
        text: {name in the text: column}; None: every other column under its name.
        labels: label words; empty: free text; None: the different answers if they are at most MOST_LABELS and occur
            twice on average, otherwise free text.
        key: the column that identifies a row.

    Raises:
        DataError: a file cannot be read, or lacks a column.
    """
    columns = column_names(folder / files["train"])
    if text is None:
        text = {column: column for column in columns if column not in (target, key)}
    if labels is None:
        labels = _label_words([folder / file for file in files.values()], target)
    asked = f"decide which {target} it is" if labels else f"write the {target}"
    return {
        "files": dict(files),
        "text": dict(text),
        "target": target,
        "labels": list(labels) or None,
        "description": description or f"Given the {' and the '.join(text)}, {asked}.",
        "metrics": list(metrics or (("accuracy", "macro_f1") if labels else ("qa_f1", "qa_em"))),
        **({"id": key} if key else {}),
    }


def _label_words(paths: Sequence[Path], target: str) -> list[str]:
    words = Counter((row[target] or "").strip() for path in paths for _, row in read_rows(path, (target,)))
    if len(words) > min(MOST_LABELS, words.total() / 2):
        return []
    once = sorted(word for word, count in words.items() if word and count == 1)
    if once:
        logger.warning(
            "the label '%s' occurs only once: if it is a mistake, correct the file, or pass the labels", once[0]
        )
    return sorted(set(words) - {""})


def add_own_task(
    params: Path,
    name: str,
    entry: Mapping[str, Any],
    role: Literal["target", "source"] = "target",
    *,
    only: bool = False,
    differences: Mapping[str, Any] | None = None,
) -> None:
    """Add a user's task to params.yaml atomically; all other text of the file stays as it is.

    Args:
        only: the task replaces all others of its role; otherwise it is appended.
        differences: the task's differences from the group `transfer` (for a source: `train_source`).

    Raises:
        SettingsError: the name is taken, or params.yaml would be invalid with the task.
        DataError: a file of the task cannot be read, or a row does not match the entry.
    """
    values = read_params(params)
    parse_settings(values, str(params))
    listed, per_task = _KEYS_OF_ROLE[role]
    if name in {*TASKS, *values["own_tasks"], *values["imported_sources"]}:
        raise SettingsError(f"{params}: task '{name}' already exists; choose another name")
    _check_rows(name, entry, params.parent)
    added: dict[str, Any] = {
        "own_tasks": {name: dict(entry)},
        "tasks": {listed: [name] if only else [*values["tasks"][listed], name]},
        **({per_task: {name: dict(differences)}} if differences else {}),
    }
    expected = merged(values, added)
    known_tasks(parse_settings(expected, str(params)).own_tasks, params.parent)
    try:
        text = _with_task(params.read_text(encoding="utf-8"), name, added, listed, only)
        is_as_expected = {**YAML(typ="safe", pure=True).load(text), "recipes": expected["recipes"]} == expected
    except (KeyError, YAMLError):
        is_as_expected = False
    if not is_as_expected:
        raise SettingsError(f"{params}: this layout cannot be edited automatically; add these keys yourself: {added}")
    with atomic_file(params) as temporary:
        temporary.write_text(text, encoding="utf-8")


def parse_differences(text: str) -> dict[str, Any]:
    """Parse `differences` of `add_own_task` from YAML. Raises SettingsError if they are not a mapping."""
    values = parse_yaml(text, "--differences")
    if not isinstance(values, dict):
        raise SettingsError(f"--differences is {shown(text)}: expected keys of transfer, as in '{{k: [full]}}'")
    return values


def _check_rows(name: str, entry: Mapping[str, Any], folder: Path) -> None:
    """Convert every row of each file, as preparation does."""
    checked = validate(OwnTask, entry, f"own_tasks.{name}")
    task = own_task(name, checked, folder)
    for split, file in checked.files.by_split.items():
        path, num_rows = folder / file, 0
        with closing(read_rows(path, task.columns)) as rows:
            for number, row in rows:
                try:
                    task.conversion.pair(row)
                except RowError as error:
                    raise DataError(f"{place_of(path, number)}: {error}") from error
                num_rows += 1
        if split == "train" and num_rows < FEWEST_ROWS:
            raise DataError(f"{path}: {num_rows} rows; splitting needs at least {FEWEST_ROWS}")


def _with_task(text: str, name: str, added: Mapping[str, Any], listed: str, only: bool) -> str:
    """Insert the added keys into the text of params.yaml. Raises KeyError if a key has no place."""
    for group in added.keys() - {"tasks"}:
        text = with_key(text, group, name, added[group][name])
    tasks = ("tasks", listed)
    return with_list(text, tasks, [name]) if only else with_item(text, tasks, name)

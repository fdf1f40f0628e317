"""A task from the user's files, added to params.yaml: its entry, and its name in the list of sources or targets."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML, YAMLError

from pemt_core.artifacts.files import atomic_file
from pemt_core.errors import DataError, SettingsError
from pemt_core.schema.validation import merged, validate
from pemt_core.settings.load import parse_settings, read_params
from pemt_core.settings.yaml_text import with_item, with_key, with_list
from pemt_core.tasks import TASKS, known_tasks, own_task
from pemt_core.tasks.entry import OwnTask
from pemt_core.tasks.files import column_names, place_of, read_rows
from pemt_core.tasks.values import RowError

logger = logging.getLogger(__name__)

FEWEST_ROWS = 20  # of training: a tenth of them is held out, of which there must be two
MOST_LABELS = 50  # different answers; with more of them they are free text

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
    """An entry of `own_tasks` for files by split, relative ones in `folder`; what is not given is read off them.

    Args:
        target: the column of the answer.
        text: {name in the text: column}; None: every other column under its own name.
        labels: label words; empty: free text; None: the different answers where there are at most MOST_LABELS and
            they occur twice on average, else free text.
        key: the column that names a row.

    Raises:
        DataError: a file cannot be read, or has no such column.
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
            "the label '%s' stands there once: if it is a mistake, correct the file, or name the labels", once[0]
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
    """Write an own task into params.yaml, whole or not at all; all other text of the file stays as it is.

    Args:
        only: it becomes the only task of its role; else the last of them.
        differences: what differs for it from the group `transfer` (of a source: `train_source`).

    Raises:
        SettingsError: the name is taken, or the file would not be valid with the task.
        DataError: a file of the task cannot be read, or a row is not what the entry says.
    """
    values = read_params(params)
    parse_settings(values, str(params))
    listed, per_task = _KEYS_OF_ROLE[role]
    if name in {*TASKS, *values["own_tasks"], *values["imported_sources"]}:
        raise SettingsError(f"{params}: there is a task '{name}' already; choose another name")
    _check_rows(name, entry, params.parent)
    added: dict[str, Any] = {
        "own_tasks": {name: dict(entry)},
        "tasks": {listed: [name] if only else [*values["tasks"][listed], name]},
        **({per_task: {name: dict(differences)}} if differences else {}),
    }
    wanted = merged(values, added)
    known_tasks(parse_settings(wanted, str(params)).own_tasks, params.parent)
    try:
        text = _with_task(params.read_text(encoding="utf-8"), name, added, listed, only)
        is_as_wanted = {**YAML(typ="safe", pure=True).load(text), "recipes": wanted["recipes"]} == wanted
    except (KeyError, YAMLError):
        is_as_wanted = False
    if not is_as_wanted:
        raise SettingsError(f"{params}: no program can edit a file of this layout; write these keys into it: {added}")
    with atomic_file(params) as temporary:
        temporary.write_text(text, encoding="utf-8")


def parse_differences(text: str) -> dict[str, Any]:
    """`differences` of `add_own_task` from YAML. SettingsError where it is no mapping."""
    try:
        values = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise SettingsError(f"--differences is {text!r}: not readable as YAML") from error
    if not isinstance(values, dict):
        raise SettingsError(f"--differences is {text!r}: expected keys of transfer, as in '{{k: [full]}}'")
    return values


def _check_rows(name: str, entry: Mapping[str, Any], folder: Path) -> None:
    """Convert every row of each file, as preparation will."""
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
            raise DataError(f"{path}: {num_rows} rows; at least {FEWEST_ROWS} are needed to split them")


def _with_task(text: str, name: str, added: Mapping[str, Any], listed: str, only: bool) -> str:
    """The text of params.yaml with what is added, part by part. KeyError where a part has no place."""
    for group in added.keys() - {"tasks"}:
        text = with_key(text, group, name, added[group][name])
    tasks = ("tasks", listed)
    return with_list(text, tasks, [name]) if only else with_item(text, tasks, name)

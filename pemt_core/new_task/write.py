"""Write a user's task into params.yaml: its entry, and its name in the list of sources or targets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML, YAMLError

from pemt_core.artifacts.files import atomic_file
from pemt_core.errors import SettingsError, shown
from pemt_core.new_task.trial import try_task
from pemt_core.schema.validation import merged, validate
from pemt_core.schema.yaml_values import parse_yaml
from pemt_core.settings import parse_settings, read_params
from pemt_core.settings.yaml_text import with_item, with_key, with_list
from pemt_core.tasks import TASKS, own_task
from pemt_core.tasks.entry import OwnTask

_KEYS_OF_ROLE = {"target": ("targets", "per_target"), "source": ("sources", "per_source")}


def add_own_task(
    params: Path,
    name: str,
    entry: Mapping[str, Any],
    role: Literal["target", "source"] = "target",
    *,
    only: bool = False,
    differences: Mapping[str, Any] | None = None,
    inferred_labels: bool = False,
) -> list[str]:
    """Try a user's task and add it to params.yaml atomically; all other text of the file stays as it is.

    Args:
        only: the task replaces all others of its role; otherwise it is appended.
        differences: the task's differences from the group `transfer` (for a source: `train_source`).
        inferred_labels: the labels are those of the training file, for messages.

    Returns:
        What a user should know, a sentence each.

    Raises:
        SettingsError: the name is taken, or params.yaml would be invalid with the task.
        DataError: the task cannot be prepared or trained, as `try_task`.
    """
    values, folder = read_params(params), params.parent
    parse_settings(values, str(params))
    listed, per_task = _KEYS_OF_ROLE[role]
    if name in {*TASKS, *values["own_tasks"], *values["imported_sources"]}:
        raise SettingsError(f"{params}: task '{name}' already exists; choose another name")
    task = own_task(name, validate(OwnTask, entry, f"own_tasks.{name}"), folder)
    added: dict[str, Any] = {
        "own_tasks": {name: dict(entry)},
        "tasks": {listed: [name] if only else [*values["tasks"][listed], name]},
        **({per_task: {name: dict(differences)}} if differences else {}),
    }
    expected = merged(values, added)
    notes = try_task(task, parse_settings(expected, str(params)), folder, inferred_labels=inferred_labels)
    before, line_end = _text_of(params)
    text = _with_task(before, name, added, listed, only)
    if text is None or {**parse_yaml(text, str(params)), "recipes": expected["recipes"]} != expected:
        groups = ", ".join(f"{group}.{name}" for group in added if group != "tasks")
        raise SettingsError(
            f"{params}: this layout cannot be edited automatically; add {groups} and the name in tasks.{listed} "
            "yourself, as docs/own_tasks.md shows"
        )
    with atomic_file(params) as temporary:
        temporary.write_text(text, encoding="utf-8", newline=line_end)
    return notes


def parse_mapping(text: str, flag: str, example: str) -> dict[str, Any]:
    """Parse a flag's value from YAML. Raises SettingsError, with an example, if it is not a mapping."""
    values = parse_yaml(text, flag)
    if not isinstance(values, dict):
        raise SettingsError(f"{flag} is {shown(text)}: expected a mapping, as in '{example}'")
    return values


def _text_of(params: Path) -> tuple[str, str]:
    """Return the text of params.yaml, its lines ended by LF, and what ends them in the file."""
    with params.open(encoding="utf-8") as file:
        text = file.read()
        return text, file.newlines if isinstance(file.newlines, str) else "\n"


def _with_task(text: str, name: str, added: Mapping[str, Any], listed: str, only: bool) -> str | None:
    """Return the text of params.yaml with the added keys; None if a key has no place."""
    try:
        for group in added.keys() - {"tasks"}:
            text = with_key(text, group, name, added[group][name])
        tasks = ("tasks", listed)
        text = with_list(text, tasks, [name]) if only else with_item(text, tasks, name)
        YAML(typ="safe", pure=True).load(text)  # ours to explain, if this layout makes it unreadable
    except (KeyError, TypeError, YAMLError):
        return None
    return text

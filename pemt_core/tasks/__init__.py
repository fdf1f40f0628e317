"""The registry of tasks: 23 declarative records, free of torch, transformers and datasets.

get_task("cb")      one record
TASKS               all of them by name, sources first
SOURCES, TARGETS    their names
JOINT               the source that consists of the other listed sources; it has no record
known_tasks(...)    these and the user's tasks, with the label words of params.yaml
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from pemt_core.errors import SettingsError, nearest
from pemt_core.schema.names import JOINT
from pemt_core.tasks import glue, others, question_answering, superglue
from pemt_core.tasks.entry import OwnTask
from pemt_core.tasks.label_words import with_label_words
from pemt_core.tasks.own import own_task
from pemt_core.tasks.record import FileDataset, HubDataset, Task

__all__ = [
    "JOINT", "SOURCES", "TARGETS", "TASKS",
    "FileDataset", "HubDataset", "Task", "get_task", "known_tasks", "own_task",
]  # fmt: skip

SOURCES = ("mnli", "qnli", "qqp", "sst2", "squad", "record")  # expert k is source k everywhere

_RECORDS = {task.name: task for module in (glue, superglue, question_answering, others) for task in module.TASKS}

TASKS: Mapping[str, Task] = MappingProxyType({name: _RECORDS[name] for name in SOURCES} | _RECORDS)
TARGETS = tuple(name for name, task in TASKS.items() if task.suite != "source")


def known_tasks(
    own_tasks: Mapping[str, OwnTask], folder: Path, label_words: Mapping[str, Mapping[str, str]] = MappingProxyType({})
) -> Mapping[str, Task]:
    """Return the registry's tasks and those of `own_tasks`, whose relative paths start at `folder`.

    `label_words` has, by task and label, other words than those of the registry. Preparation needs them; later steps
    read the prepared data, and predictions only the columns of a task.

    Raises SettingsError if the registry has a task of the same name, and as `own_task` and `with_label_words` do.
    """
    taken = sorted(set(own_tasks) & set(TASKS))
    if taken:
        raise SettingsError(f"own_tasks.{taken[0]}: the registry has a task of this name; choose another")
    known = {**TASKS, **{name: own_task(name, entry, folder) for name, entry in own_tasks.items()}}
    return MappingProxyType(with_label_words(known, label_words))


def get_task(name: str, tasks: Mapping[str, Task] = TASKS) -> Task:
    """Look up a task's record. Raises SettingsError with the nearest name if it does not exist."""
    if name not in tasks:
        raise SettingsError(f"there is no task '{name}': {nearest(name, tasks)}")
    return tasks[name]

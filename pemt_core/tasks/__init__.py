"""The registry of tasks: 23 declarative records, free of torch, transformers and datasets.

get_task("cb")      one record
TASKS               all of them by name, sources first
SOURCES, TARGETS    their names
"""

from collections.abc import Mapping
from types import MappingProxyType

from pemt_core.errors import SettingsError, nearest
from pemt_core.tasks import glue, others, question_answering, superglue
from pemt_core.tasks.record import HubDataset, Task

__all__ = ["SOURCES", "TARGETS", "TASKS", "HubDataset", "Task", "get_task"]

SOURCES = ("mnli", "qnli", "qqp", "sst2", "squad", "record")  # expert k is source k everywhere

_RECORDS = {task.name: task for module in (glue, superglue, question_answering, others) for task in module.TASKS}

TASKS: Mapping[str, Task] = MappingProxyType({name: _RECORDS[name] for name in SOURCES} | _RECORDS)
TARGETS = tuple(name for name, task in TASKS.items() if task.suite != "source")


def get_task(name: str) -> Task:
    """The record of task `name`. Raises SettingsError with the nearest name where there is none."""
    if name not in TASKS:
        raise SettingsError(f"there is no task '{name}': {nearest(name, TASKS)}")
    return TASKS[name]

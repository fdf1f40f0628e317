"""The form of experiments for real language: the recipe `real`, and the tasks that a folder of datasets has."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from pemt_core.errors import DataError, SettingsError
from pemt_core.schema.validation import merged
from pemt_core.settings import HUB
from pemt_core.settings.load import Layer
from pemt_core.tasks import TASKS, Task

REAL = "real"  # the recipe, the folder of the experiments' files, and that of their output
FLAG = "--real"


def of_data(source: str) -> Layer:
    """The datasets that a run names."""
    return Layer(FLAG, {"prepare": {"source": source}})


def tasks_at_hand(layers: Sequence[Layer], lacking: dict[str, str]) -> Layer:
    """The listed tasks without those whose datasets the folder lacks; the reasons go to `lacking`, by task.

    The user's tasks that params.yaml, the first layer, lists as sources or targets are added. Raises SettingsError if
    no source or no target is left.
    """
    values: Mapping[str, Any] = reduce(merged, (layer.values for layer in layers), {})
    own, source, tasks = values.get("own_tasks", {}), values["prepare"]["source"], dict(values["tasks"])
    for key, listed in tasks.items():
        users = [name for name in layers[0].values["tasks"][key] if name in own]
        names = list(dict.fromkeys([*listed, *users]))
        for name in names:
            if name in TASKS and name not in lacking and (reason := _lack(TASKS[name], source)):
                lacking[name] = reason
        tasks[key] = [name for name in names if name not in lacking]
        if not tasks[key]:
            raise SettingsError(f"{FLAG} {source}: has none of the {key} {', '.join(names)}: {lacking[names[0]]}")
    return Layer(FLAG, {"tasks": tasks})


def _lack(task: Task, source: str) -> str:
    """What a folder lacks for a task; empty if nothing. The hub has everything."""
    from pemt_core.preparation.load import load_official_splits

    if source == HUB:
        return ""
    try:
        load_official_splits(
            task.dataset, source=source, embedded_seed=0, names=task.splits.official_splits, columns=task.columns
        )
    except DataError as error:
        return str(error)
    return ""

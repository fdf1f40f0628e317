"""The form of experiments for real language: the recipe `real`, and the tasks that a folder of datasets has."""

from pemt_core.errors import DataError, SettingsError
from pemt_core.schema.validation import validate
from pemt_core.settings import HUB, Settings
from pemt_core.settings.groups import TaskSettings
from pemt_core.settings.load import Layer
from pemt_core.tasks import TASKS, Task

REAL = "real"  # the recipe, the folder of the experiments' files, and that of their output
FLAG = "--real"


def of_data(source: str) -> Layer:
    """The datasets that a run names."""
    return Layer(FLAG, {"prepare": {"source": source}})


def tasks_at_hand(settings: Settings, params: Layer, lacking: dict[str, str]) -> Layer:
    """The listed tasks without those whose datasets the folder lacks; the reasons go to `lacking`, by task.

    The user's tasks that params.yaml lists as sources or targets are added. Raises SettingsError if no source or no
    target is left.
    """
    source, tasks = settings.prepare.source, dict(settings.tasks)
    of_user = validate(
        TaskSettings, params.values.get("tasks", {}), params.file, lambda key: (params.file, ".".join(["tasks", *key]))
    )
    for key, listed in tasks.items():
        users = [name for name in getattr(of_user, key) if name in settings.own_tasks]
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

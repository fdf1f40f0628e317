"""Other words for a task's labels: what the model reads and writes instead of the words of the task's record."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from pemt_core.errors import SettingsError, nearest
from pemt_core.tasks.pairs import RowConversion, TextPair
from pemt_core.tasks.record import FileDataset, Task
from pemt_core.tasks.values import RawRow

KEY = "prepare.label_words"


def with_label_words(tasks: Mapping[str, Task], words: Mapping[str, Mapping[str, str]]) -> dict[str, Task]:
    """Return `tasks` with `words`, by task and label, as what the model writes.

    Raises SettingsError, naming the key and the nearest name, if a task or label is unknown, a task has no labels or
    two of them have one word, and for a user's task, whose entry has its own `label_words`.
    """
    return {**tasks, **{name: _renamed(name, tasks, of_label) for name, of_label in words.items()}}


def _renamed(name: str, tasks: Mapping[str, Task], words: Mapping[str, str]) -> Task:
    if name not in tasks:
        raise SettingsError(f"{KEY}: there is no task '{name}': {nearest(name, tasks)}")
    task = tasks[name]
    if isinstance(task.dataset, FileDataset):
        raise SettingsError(f"{KEY}.{name}: is a task of your own; give the words in own_tasks.{name}.label_words")
    if task.labels is None:
        raise SettingsError(f"{KEY}.{name}: the task has no labels; its answers are free text or a score")
    for label in words:
        if label not in task.labels:
            raise SettingsError(f"{KEY}.{name}: there is no label '{label}': {nearest(label, task.labels)}")
    written = {label: words.get(label, label) for label in task.labels}
    repeated = [word for word, count in Counter(written.values()).items() if count > 1]
    if repeated:
        raise SettingsError(f"{KEY}.{name}: '{repeated[0]}' is the word of several labels; each needs its own")
    return replace(task, conversion=_with_words(task.conversion, written))


def _with_words(conversion: RowConversion, written: Mapping[str, str]) -> RowConversion:
    def pair(row: RawRow) -> TextPair:
        made = conversion.pair(row)
        return replace(made, target=written[made.target], references=tuple(written[each] for each in made.references))

    shown = {word: label for label, word in written.items() if word != label}
    return replace(conversion, pair=pair, labels=tuple(written.values()), shown=shown)

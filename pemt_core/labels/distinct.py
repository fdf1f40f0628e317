"""Labels that are different texts, but look the same or are one number."""

from collections.abc import Callable, Hashable, Sequence

from pemt_core.data.prepared import TaskDescription
from pemt_core.labels.error import LabelError
from pemt_core.labels.looks import number_in, seen
from pemt_core.labels.proposals import proposed_words
from pemt_core.schema.flow import quoted


def check_labels(task: TaskDescription) -> None:
    """Check the label words of a task, if it has any. Raises LabelError if two look the same or are one number."""
    words = task.labels or []
    for word in words:
        if not seen(word):
            raise LabelError(
                task, f"the label {quoted(task.shown_as(word))} cannot be seen", proposed_words([word], words)
            )
    _check_distinct(task, words, seen, "look the same")
    _check_distinct(task, words, number_in, "are one number")


def _check_distinct(
    task: TaskDescription, words: Sequence[str], value: Callable[[str], Hashable | None], problem: str
) -> None:
    groups: dict[Hashable, list[str]] = {}
    for word in words:
        found = value(word)
        if found is not None:
            groups.setdefault(found, []).append(word)
    equal = [group for group in groups.values() if len(group) > 1]
    if equal:
        named = "; ".join(" and ".join(quoted(task.shown_as(word)) for word in group) for group in equal)
        kept = [max(group, key=_plainness) for group in equal]
        changed = [word for group in equal for word in group if word not in kept]
        raise LabelError(task, f"the labels {named} {problem}", proposed_words(changed, words))


def _plainness(word: str) -> tuple[bool, int]:
    return word == seen(word), -len(word)

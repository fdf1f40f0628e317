"""The answers in a training file: whether they are labels, and what a user should know about them."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pemt_core.labels.looks import number_in

MOST_LABELS = 50  # more different answers than this are free text
_SHOWN = 8  # words in a note
_SHORT = 40  # characters; longer answers are free text without a note
_MISSING = ("NaN", "nan", "<NA>", "NaT", "null", "NULL", "None")  # as programs write what is not there
_TRUTHS = (("false", "true"), ("0", "1", "0.0", "1.0"))  # as JSON writes truth values, and as others do
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»"}


@dataclass
class Answers:
    """How often each answer occurs in the column `target`, with and without the blanks around it."""

    target: str
    counts: Counter[str] = field(default_factory=Counter)
    padded: Counter[str] = field(default_factory=Counter)  # answers that blanks surround, as they are in the file

    def add(self, value: str | None) -> None:
        """Count one value; a missing one is no answer."""
        answer = (value or "").strip()
        if answer:
            self.counts[answer] += 1
        if answer and answer != value:
            self.padded[str(value)] += 1

    @property
    def labels(self) -> list[str]:
        """The different answers, sorted, if they can be labels; empty if they are free text."""
        few = len(self.counts) <= min(MOST_LABELS, self.counts.total() / 2)
        return sorted(self.counts) if few else []

    def notes_on_labels(self, labels: Sequence[str]) -> list[str]:
        """What may be a mistake in the labels."""
        notes = []
        once = [label for label in labels if self.counts[label] == 1]
        if once:
            notes.append(f"the label {_listed(once)} occurs only once: if it is a mistake, correct the file")
        unused = [label for label in labels if not self.counts[label]]
        if unused:
            notes.append(f"the label {_listed(unused)} occurs in no training row: no model can learn it")
        missing = [label for label in labels if label in _MISSING]
        if missing:
            notes.append(f"the label {_listed(missing)} may stand for a missing answer: if so, delete its rows")
        of_case: dict[str, list[str]] = {}
        for label in dict.fromkeys(labels):
            of_case.setdefault(label.casefold(), []).append(label)
        groups = [_listed(group) for group in of_case.values() if len(group) > 1]
        if groups:
            notes.append(f"labels that differ only in case are different classes: {'; '.join(groups)}")
        truths, numbers = ([label for label in labels if label.casefold() in words] for words in _TRUTHS)
        if truths and numbers:
            notes.append(f"the labels {_listed(truths)} may mean the same as {_listed(numbers)}, but are other classes")
        if self.padded:
            notes.append(f"blanks around answers are removed: {_listed(sorted(self.padded))}")
        quoted = [label for label in labels if holds_quotes(label)]
        if quoted:
            notes.append(f"labels keep their quotes: {_listed(quoted)}")
        if self._are_numbers and any(not label.lstrip("+-").isdecimal() for label in labels):
            notes.append(
                f"the numbers in '{self.target}' become {len(labels)} classes; to predict a score from 0 to 5, pass "
                "--free-text --metrics pearson"
            )
        return notes

    def notes_on_free_text(self, *, scored: bool) -> list[str]:
        """Why the answers are free text, unless that is plain; `scored`: the user chose the metrics."""
        if scored or not self.counts:
            return []
        if self._are_numbers:
            return [
                f"the numbers in '{self.target}' become free text, scored by equal words (qa_f1); for numbers from 0 "
                "to 5 pass --metrics pearson"
            ]
        if max(map(len, self.counts)) > _SHORT:
            return []
        reason = f"{len(self.counts)} different answers in {self.counts.total()} rows"
        limit = f"at most {MOST_LABELS} that occur twice on average are taken as classes"
        return [
            f"'{self.target}' becomes free text, scored by qa_f1: {reason}, but {limit}; if they are classes, pass all "
            f"of them: --labels {shlex.join(sorted(self.counts)[:3])} ..."
        ]

    @property
    def _are_numbers(self) -> bool:
        return all(number_in(answer) is not None for answer in self.counts)


def holds_quotes(text: str) -> bool:
    """Whether quotes surround a text."""
    inner = text.strip()
    return len(inner) > 1 and _QUOTES.get(inner[0]) == inner[-1]


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(f"'{word}'" for word in words[:_SHOWN]) + more

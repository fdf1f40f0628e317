"""Text pairs, and how a raw row becomes one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pemt_core.tasks.values import RawRow

Kind = Literal["text", "number", "texts"]


class DroppedRowError(Exception):
    """The row is unusable and is left out; the message says why."""


@dataclass(frozen=True)
class TextPair:
    """One row as text. `key` identifies it within its official split; if empty, its position does."""

    source: str
    target: str
    references: tuple[str, ...]  # every right answer
    key: str = ""
    group: str = ""  # shared by rows that a metric scores together; empty for a single row


def as_it_is(pair: TextPair) -> list[TextPair]:
    """Keep the pair as it is."""
    return [pair]


def one_per_reference(pair: TextPair) -> list[TextPair]:
    """Return a pair for each right answer, each with all of them as references."""
    return [replace(pair, target=answer, key=f"{pair.key}-{n}") for n, answer in enumerate(pair.references)]


@dataclass(frozen=True)
class RowConversion:
    """How a raw row becomes text. `expand` turns the pair of a training row into the rows that are trained on."""

    inputs: tuple[str, ...]  # columns that `source` reads; a row without an answer has them too
    others: tuple[str, ...]  # columns that only `pair` reads: the answer, the row's id
    source: Callable[[RawRow], str]
    pair: Callable[[RawRow], TextPair]
    labels: tuple[str, ...] | None = None
    expand: Callable[[TextPair], list[TextPair]] = as_it_is
    kinds: Mapping[str, Kind] = field(default_factory=dict)  # of inputs that are not text
    shown: Mapping[str, str] = field(default_factory=dict)  # the user's label for a label word, if they differ

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that a row of a dataset needs."""
        return self.inputs + self.others

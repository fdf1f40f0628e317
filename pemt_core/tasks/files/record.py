"""Numbered records, and errors for missing or repeated columns, shared by all formats."""

from collections import Counter
from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Any, NamedTuple

from pemt_core.errors import DataError, nearest


class ColumnError(DataError):
    """A row lacks a column, has it twice, or has a value in it that is not readable as text."""

    def __init__(self, message: str, column: str) -> None:
        self.column = column
        super().__init__(message)


class Record(NamedTuple):
    """One row of a file."""

    number: int  # of its first line, or of the row if the format has no lines; counted from 1
    values: Mapping[str, Any]  # by column


Records = Generator[Record, None, None]  # close it if you stop early, or the file stays open


def check_columns(place: str, columns: Collection[str], names: Sequence[str]) -> None:
    """Raise ColumnError, beginning with `place`, if one of `columns` is not in `names`, or occurs more than once."""
    counts = Counter(names)  # once: rows may have thousands of columns
    for column in columns:
        if not counts[column]:
            hint = nearest(column, filter(None, names))
            raise ColumnError(f"{place}: there is no column '{column}': {hint}", column)
        if counts[column] > 1:
            raise ColumnError(f"{place}: the column '{column}' occurs {counts[column]} times", column)

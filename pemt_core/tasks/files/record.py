"""What every format gives: numbered records, and the same errors for columns that are missing or repeated."""

from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Any, NamedTuple

from pemt_core.errors import DataError, nearest


class Record(NamedTuple):
    """One row of a file."""

    number: int  # of the line where it begins, or of the row where a format has no lines; both count from 1
    values: Mapping[str, Any]  # by column


Records = Generator[Record, None, None]  # to be closed where it is left early, or the file stays open


def check_columns(place: str, columns: Collection[str], names: Sequence[str]) -> None:
    """DataError, beginning with `place`, where one of `columns` is not among `names`, or more than once."""
    for column in columns:
        if column not in names:
            raise DataError(f"{place}: there is no column '{column}': {nearest(column, names)}")
        if names.count(column) > 1:
            raise DataError(f"{place}: the column '{column}' occurs {names.count(column)} times")

"""A row to predict for: the raw columns of its task, or its text as training saw it."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pemt_core.errors import DataError, nearest
from pemt_core.schema.visible import is_blank
from pemt_core.tasks.pairs import DroppedRowError, RowConversion
from pemt_core.tasks.values import NoValueError, RowError, is_absent, text_of

Row = str | Mapping[str, Any]
TEXT = "source"  # the column with the finished text, named as in prepared data
TASK = "task"  # the column that names a row's target, if there are several


def text_of_row(row: Row, conversion: RowConversion, place: str) -> str:
    """The text that the encoder reads. A finished text stays as it is; columns that are not needed are ignored.

    A row with all columns of its task is read from them, even if they are empty. Raises DataError, beginning with
    `place`, if a column is missing or its value is not what the task expects.
    """
    values = {TEXT: row} if isinstance(row, str) else {name: _plain(value) for name, value in row.items()}
    missing = [name for name in conversion.inputs if name not in values]
    try:
        if isinstance(row, str) or (missing and not is_absent(values.get(TEXT))):
            return _finished(values)
        if not missing:
            return _source(values, conversion)
    except (RowError, DroppedRowError) as error:
        raise DataError(f"{place}: {error}") from error
    hint = nearest(missing[0], map(str, values)) if values else "the row is empty"
    raise DataError(
        f"{place}: there is no value in column '{missing[0]}': {hint}; "
        f"the task reads {', '.join(conversion.inputs)}, or the finished text in the column '{TEXT}'"
    )


def known_columns(conversions: Iterable[RowConversion]) -> list[str]:
    """The columns that rows of these targets may have, in order: those that they read, and the finished text."""
    return list(dict.fromkeys(column for each in conversions for column in (*each.inputs, TEXT)))


def _finished(values: Mapping[str, Any]) -> str:
    text = text_of(values, TEXT)
    if is_blank(text):
        raise NoValueError(TEXT)
    return text


def _source(values: Mapping[str, Any], conversion: RowConversion) -> str:
    given = [values[name] for name in conversion.inputs]
    if all(is_absent(value) or (isinstance(value, str) and is_blank(value)) for value in given):
        raise NoValueError(*conversion.inputs)
    return conversion.source(values)


def _plain(value: Any) -> Any:
    """Convert numpy's numbers and arrays, which tables contain, to Python's; 32-bit floats by their shortest text."""
    if isinstance(value, np.floating) and value.itemsize < np.dtype(float).itemsize:
        return float(str(value))
    return value.tolist() if hasattr(value, "tolist") else value

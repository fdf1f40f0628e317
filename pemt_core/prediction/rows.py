"""A row to predict for: the raw columns of its task, or its text as training saw it."""

import math
from collections.abc import Mapping
from typing import Any

from pemt_core.errors import DataError, nearest
from pemt_core.tasks.pairs import DroppedRowError, RowConversion
from pemt_core.tasks.values import RowError, text_of

Row = str | Mapping[str, Any]
TEXT = "source"  # the column with the finished text, named as in prepared data
TASK = "task"  # the column that names a row's target, if there are several


def text_of_row(row: Row, conversion: RowConversion, place: str) -> str:
    """The text that the encoder reads. A finished text stays as it is; columns that are not needed are ignored.

    Raises DataError, beginning with `place`, if a column is missing or its value is not what the task expects.
    """
    if isinstance(row, str):
        return row
    present = {name: _plain(value) for name, value in row.items() if not is_absent(value)}
    missing = [name for name in conversion.inputs if name not in present]
    try:
        if not missing:
            return conversion.source(present)
        if TEXT in present:
            return text_of(present, TEXT)
    except (RowError, DroppedRowError) as error:
        raise DataError(f"{place}: {error}") from error
    hint = nearest(missing[0], present) if present else "the row is empty"
    raise DataError(
        f"{place}: there is no value in column '{missing[0]}': {hint}; "
        f"the task reads {', '.join(conversion.inputs)}, or the finished text in the column '{TEXT}'"
    )


def is_absent(value: Any) -> bool:
    """Whether a value of a table is missing: None, or a float that is not a number."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _plain(value: Any) -> Any:
    """Convert numpy's numbers and arrays, which tables contain, to Python's."""
    return value.tolist() if hasattr(value, "tolist") else value

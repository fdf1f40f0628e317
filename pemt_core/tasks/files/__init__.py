"""The one reader of rows in files: CSV, JSONL and parquet, for own tasks and for predictions. Free of heavy libraries.

read_rows(path, columns)    the text in some columns: what own tasks are made of
read_records(path)          the values of all columns as the file has them: what predictions are made for
place_of(path, number)      where a row is, as every message names it
column_names(path)          what there is to read
check_file(path)            whether it can be a file of rows at all, before it is read

From bytes to rows: `lines` opens and decodes, `text_records` and `parquet_records` find the records and their columns,
`reader` chooses between them by the file's ending. Files are read row by row, so memory does not grow with them.
"""

from pemt_core.tasks.files.reader import (
    check_file,
    check_format,
    column_names,
    fixed_columns,
    place_of,
    read_records,
    read_rows,
)
from pemt_core.tasks.files.record import Record

__all__ = [
    "Record",
    "check_file",
    "check_format",
    "column_names",
    "fixed_columns",
    "place_of",
    "read_records",
    "read_rows",
]

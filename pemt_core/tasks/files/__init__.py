"""The reader of rows in CSV, JSONL and parquet files, for users' tasks and for predictions; free of heavy libraries.

read_rows(path, columns)    the text in some columns, for users' tasks
read_records(path)          the values of all columns as the file has them, for predictions
place_of(path, number)      the place of a row, for messages
column_names(path)          the columns of a file
check_file(path)            check that a file exists and has a known format

`lines` opens and decodes text files, `text_records` and `parquet_records` find records and columns, and `reader`
chooses between them by the file's ending. Files are read row by row, so memory does not depend on their size.
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
from pemt_core.tasks.files.record import ColumnError, Record

__all__ = [
    "ColumnError",
    "Record",
    "check_file",
    "check_format",
    "column_names",
    "fixed_columns",
    "place_of",
    "read_records",
    "read_rows",
]

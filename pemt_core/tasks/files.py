"""Rows of CSV, JSONL and parquet files, every value as text, whatever the format. Free of heavy libraries.

A file is read row by row, so memory does not grow with it; the first thing that is wrong with it is an error that names
the file and the line.
"""

import csv
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pemt_core.errors import DataError, nearest
from pemt_core.tasks.values import as_text

Located = tuple[str, Mapping[str, Any]]  # where a row stands in its file, and its values by column
Rows = Generator[Located, None, None]  # closed where they are left, or files stay open
_BATCH_ROWS = 1_000


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str | None]]:
    """The rows of a file, each with the text in `columns`; None where there is no value.

    Numbers are as JSON writes them, `true` and `false` too.

    Raises:
        DataError: the file is missing, empty, of no known format, not in UTF-8, broken or without one of the columns,
            or a value is neither text nor a number.
    """
    num_rows = 0
    with closing(_reader(path)(path, columns)) as rows:
        for place, row in rows:
            for column in columns:
                if column not in row:
                    raise DataError(f"{path}, {place}: there is no column '{column}': {nearest(column, row)}")
            yield {column: _value(row[column], f"{path}, {place}: '{column}'") for column in columns}
            num_rows += 1
    if num_rows == 0:
        raise DataError(f"{path}: it has no row; expected rows with {', '.join(columns)}")


def column_names(path: Path) -> list[str]:
    """The columns of a file, in order; of JSONL those of the first row. DataError as `read_rows`."""
    if _reader(path) is _parquet_rows:
        return list(_parquet_file(path).schema_arrow.names)
    _, row = next(_reader(path)(path, ()), ("", {}))
    if not row:
        raise DataError(f"{path}: it has no row")
    return list(row)


def check_format(name: str) -> None:
    """DataError where no format has the ending of a file's name."""
    if Path(name).suffix not in _READERS:
        raise DataError(f"{name}: expected a file whose name ends in {', '.join(_READERS)}")


def _reader(path: Path) -> Callable[[Path, Sequence[str]], Rows]:
    check_format(str(path))
    if not path.is_file():
        siblings = [each.name for each in path.parent.glob("*") if each.suffix in _READERS]
        raise DataError(f"{path}: no such file" + (f"; {nearest(path.name, siblings)}" if siblings else ""))
    return _READERS[path.suffix]


def _csv_rows(path: Path, columns: Sequence[str]) -> Rows:
    """RFC 4180: commas, quotes doubled within quotes, names of columns in the first line."""
    lines = _lines(path)
    records = csv.reader(lines, strict=True)
    header: list[str] = []
    begin = 1  # a record with line breaks in quotes has several lines
    try:
        for record in records:
            if not header:
                header = record
                _check_header(path, header)
            elif record:  # not a blank line
                if len(record) != len(header):
                    raise DataError(
                        f"{path}, line {begin}: {len(record)} fields, the first line names {len(header)} columns; "
                        "a field that holds a comma or a line break stands in quotes"
                    )
                yield f"line {begin}", dict(zip(header, record, strict=True))
            begin = records.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {begin}: not readable as CSV ({error}); is a quote not closed?") from error
    finally:
        lines.close()


def _check_header(path: Path, header: Sequence[str]) -> None:
    for column in header:
        if header.count(column) > 1:
            raise DataError(f"{path}, line 1: the column '{column}' stands there {header.count(column)} times")
        for separator in (";", "\t"):
            if len(header) == 1 and separator in column:
                raise DataError(f"{path}, line 1: its columns are separated by {separator!r}, expected ','")


def _jsonl_rows(path: Path, columns: Sequence[str]) -> Rows:
    """One JSON object per line."""
    with closing(_lines(path)) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                place = f"line {number}"
                try:
                    row = json.loads(line, object_pairs_hook=_object)
                except ValueError as error:
                    raise DataError(f"{path}, {place}: not readable as JSON: {error}") from error
                if not isinstance(row, dict):
                    raise DataError(f"{path}, {place}: expected a JSON object per line, found {type(row).__name__}")
                yield place, row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return row


def _parquet_rows(path: Path, columns: Sequence[str]) -> Rows:
    file = _parquet_file(path)
    names = file.schema_arrow.names
    for column in columns:
        if column not in names:
            raise DataError(f"{path}: there is no column '{column}': {nearest(column, names)}")
        if names.count(column) > 1:
            raise DataError(f"{path}: the column '{column}' stands there {names.count(column)} times")
    number = 0
    for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns)):
        for row in batch.to_pylist():
            number += 1
            yield f"row {number}", row


def _parquet_file(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not readable as parquet ({error})") from error


def _lines(path: Path) -> Generator[str, None, None]:
    """The lines of a file in UTF-8, with their ends."""
    offset = 0
    with path.open("rb") as file:
        for line in file:
            try:
                yield line.decode("utf-8" if offset else "utf-8-sig")  # without the mark that some programs put first
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, byte {offset + error.start}: 0x{line[error.start]:02x} is no UTF-8; save it as UTF-8"
                ) from error
            offset += len(line)


def _value(value: Any, place: str) -> str | None:
    text = as_text(value)
    if text is None and value is not None:
        raise DataError(f"{place} is {value!r}, expected text or a number")
    return text


_READERS = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}

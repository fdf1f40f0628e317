"""Rows of a file, whose ending determines its format."""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pemt_core.errors import DataError, nearest
from pemt_core.tasks.files.marks import TEXT, check_kind
from pemt_core.tasks.files.parquet_records import parquet_columns, parquet_records
from pemt_core.tasks.files.record import ColumnError, Record, Records
from pemt_core.tasks.files.text_records import csv_columns, csv_records, jsonl_records
from pemt_core.tasks.values import RowError, as_text, is_absent


@dataclass(frozen=True)
class Format:
    """How files with one ending are read."""

    unit: str  # the unit that its records are counted in
    records: Callable[[Path, Sequence[str] | None], Records]
    columns: Callable[[Path], list[str] | None]  # of all records; None if each has its own


FORMATS = {
    ".csv": Format("line", csv_records, csv_columns),
    ".jsonl": Format("line", jsonl_records, lambda path: None),
    ".parquet": Format("row", parquet_records, parquet_columns),
}


_URL = re.compile(
    r"(?:^|/)(https?|ftp|s3|gs|hf|file):/+(.*)", re.IGNORECASE | re.DOTALL
)  # a path keeps one slash of two


def read_rows(path: Path, columns: Sequence[str]) -> Records:
    """Yield the rows of a file, each with the text in `columns`; a missing value is None.

    Numbers and booleans become their JSON text.

    Raises:
        DataError: as `read_records`, or if a value is neither text nor a number, or is no Unicode text.
    """
    with closing(read_records(path, columns)) as records:
        for number, values in records:
            yield Record(number, {column: _text(values[column], path, number, column) for column in columns})


def read_records(path: Path, columns: Sequence[str] | None = None) -> Records:
    """Yield the records of a file, with their values as the file has them.

    Args:
        columns: the required columns; of a columnar format, no others are read. None for all.

    Raises:
        DataError: the file is missing, empty, of an unknown format, not UTF-8 or damaged, or lacks a column. The
            message names the file and the place.
    """
    check_file(path)
    num_records = 0
    with _readable(path), closing(_format(path).records(path, columns)) as records:
        for record in records:
            yield record
            num_records += 1
    if num_records == 0:
        raise DataError(f"{path}: no rows" + (f"; expected rows with {', '.join(columns)}" if columns else ""))


def place_of(path: Path, number: int) -> str:
    """Return the place of the record with this number, for messages."""
    return f"{path}, {_format(path).unit} {number}"


def column_names(path: Path) -> list[str]:
    """Return a file's columns in order, of JSONL those of any row; a column may have the name "".

    Raises DataError as `read_records` does.
    """
    names = fixed_columns(path)
    if names:
        return names
    with closing(read_records(path)) as records:
        return list(dict.fromkeys(name for record in records for name in record.values))


def fixed_columns(path: Path) -> list[str] | None:
    """Return the columns of all rows, or None if each row has its own. Raises DataError as `read_records` does."""
    check_file(path)
    with _readable(path):
        return _format(path).columns(path)


def check_file(path: Path) -> None:
    """Raise DataError if a file is missing, a folder or not accessible, or if its ending is unknown."""
    with _readable(path):
        if path.is_dir():  # before its ending, which a folder need not have
            inside = sorted(each.name for each in path.iterdir() if each.suffix.lower() in FORMATS)
            raise DataError(f"{path}: is a folder; name one file in it" + (f": {path / inside[0]}" if inside else ""))
        if path.is_file() and path.suffix.lower() not in FORMATS:
            check_kind(path, TEXT)  # which names a remedy for a workbook or a compressed file
    check_format(path)
    with _readable(path):
        if not path.exists():
            if path.is_symlink():
                raise DataError(f"{path}: is a link to {path.readlink()}, which does not exist")
            if not path.parent.is_dir():
                home = "; write out what ~ stands for" if "~" in path.parts else ""
                raise DataError(f"{path}: no such file: there is no folder {path.parent}{home}")
            siblings = [each.name for each in path.parent.glob("*") if each.suffix.lower() in FORMATS]
            raise DataError(f"{path}: no such file" + (f"; {nearest(path.name, siblings)}" if siblings else ""))
        if not path.is_file():
            raise DataError(f"{path}: is a pipe or a device, expected a file")
        path.open("rb").close()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn the system's errors into a DataError that names the file."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def check_format(path: Path, endings: Collection[str] = FORMATS) -> None:
    """Raise DataError if a file's name is a URL, or has none of `endings`, in upper or lower case."""
    url = _URL.search(str(path))
    if url is not None:
        raise DataError(f"{url[1]}://{url[2]}: is a URL, expected a file of this machine; download it first")
    if path.suffix.lower() not in endings:
        raise DataError(f"{path}: the ending '{path.suffix}' is unknown; {nearest(path.suffix.lower(), endings)}")


def _format(path: Path) -> Format:
    return FORMATS[path.suffix.lower()]


def _text(value: Any, path: Path, number: int, column: str) -> str | None:
    try:
        return None if is_absent(value) else as_text(column, value)
    except RowError as error:
        raise ColumnError(f"{place_of(path, number)}: {error}", column) from error

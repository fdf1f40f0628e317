"""Records of CSV and JSONL files."""

import csv
import json
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pemt_core.errors import DataError
from pemt_core.tasks.files.lines import LONGEST_LINE, lines_of
from pemt_core.tasks.files.record import Record, Records, check_columns

# CSV as in RFC 4180: commas, quotes doubled within quotes, column names in the first line


def csv_records(path: Path, columns: Sequence[str] | None) -> Records:
    """Yield the records below the header, which must have `columns`; values are text."""
    with closing(_fields(path)) as records:
        first, header = next(records, (1, []))
        _check_header(f"{path}, line {first}", header, columns or ())
        for number, fields in records:
            if len(fields) != len(header):
                raise DataError(
                    f"{path}, line {number}: {_counted(len(fields), 'field')}, but line {first} names "
                    f"{_counted(len(header), 'column')}; quote fields that contain a comma or a line break"
                )
            yield Record(number, dict(zip(header, fields, strict=True)))


def csv_columns(path: Path) -> list[str]:
    """Return the names in the header; empty for an empty file."""
    with closing(_fields(path)) as records:
        return next(records, (1, []))[1]


def _fields(path: Path) -> Generator[tuple[int, list[str]], None, None]:
    """Yield the first line's number and the fields of each record, header included; quoted fields may span lines."""
    csv.field_size_limit(LONGEST_LINE)
    with closing(lines_of(path)) as lines:
        records = csv.reader(lines, strict=True)
        begin = 1
        try:
            for fields in records:
                if fields:  # not a blank line
                    yield begin, fields
                begin = records.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path}, line {begin}: not readable as CSV ({error}); is a quote unclosed?") from error


def _check_header(place: str, header: list[str], columns: Sequence[str]) -> None:
    for separator in (";", "\t"):
        if len(header) == 1 and separator in header[0]:
            raise DataError(f"{place}: columns are separated by {separator!r}, expected ','")
    if header:
        check_columns(place, [*header, *columns], header)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# JSONL: an object per line


def jsonl_records(path: Path, columns: Sequence[str] | None) -> Records:
    """Yield the objects of a file, each of which must have `columns`."""
    with closing(lines_of(path)) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                place = f"{path}, line {number}"
                values = _object(line, place)
                check_columns(place, columns or (), list(values))
                yield Record(number, values)


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        values = json.loads(line, object_pairs_hook=_with_unique_keys)
    except json.JSONDecodeError as error:  # the error's text would count lines from this one
        raise DataError(f"{place}: not readable as JSON ({error.msg} at character {error.pos + 1})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not readable as JSON ({error})") from error
    if not isinstance(values, dict):
        raise DataError(f"{place}: expected a JSON object per line, found {type(values).__name__}")
    return values


def _with_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return values

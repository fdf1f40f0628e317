"""Records of CSV and JSONL files."""

import csv
import json
import re
import shlex
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from pemt_core.errors import DataError, counted, cut, nearest
from pemt_core.schema.json_values import with_unique_keys
from pemt_core.tasks.files.lines import LONGEST_LINE, lines_of
from pemt_core.tasks.files.marks import beside
from pemt_core.tasks.files.record import ColumnError, Record, Records, check_columns

# CSV as in RFC 4180: commas, quotes doubled within quotes, column names in the first line


def csv_records(path: Path, columns: Sequence[str] | None) -> Records:
    """Yield the records below the header, which must have `columns`; values are text.

    As spreadsheets write them, columns without a name and empty fields behind the last column are accepted, and rows of
    empty fields are no records; in a file with one column, a quoted empty field is one.
    """
    with closing(_fields(path)) as records:
        first, header = next(records, (1, []))
        if header:
            named = [name for name in header if name]
            needed = named if columns is None else columns
            _check_header(header, needed, f"{path}, line {first}", path)
            check_columns(f"{path}, line {first}", needed, header)
        for number, fields in records:
            if not any(map(str.strip, fields)) and not len(fields) == len(header) == 1:
                continue  # an empty row of a spreadsheet, or a line of spaces
            if len(fields) < len(header) or any(map(str.strip, fields[len(header) :])):
                _check_as_separated(header, fields, f"{path}, line {first}", path)
                raise DataError(
                    f"{path}, line {number}: {counted(len(fields), 'field')}, but line {first} names "
                    f"{counted(len(header), 'column')}; quote fields that contain a comma or a line break"
                )
            yield Record(number, dict(zip(header, fields, strict=False)))


_SEPARATORS = (";", "\t", "|")  # other than the comma


def csv_columns(path: Path) -> list[str]:
    """Return the names in the header; empty for an empty file."""
    with closing(_fields(path)) as records:
        return next(records, (1, []))[1]


def _fields(path: Path) -> Generator[tuple[int, list[str]], None, None]:
    """Yield the first line's number and the fields of each record, header included; quoted fields may span lines."""
    csv.field_size_limit(LONGEST_LINE)
    with closing(lines_of(path)) as lines:
        records = csv.reader(_separated_by_commas(lines, path), strict=True)
        begin, is_header = 1, True
        try:
            for fields in records:
                if (fields and not is_header) or any(map(str.strip, fields)):  # not a blank line
                    is_header = False
                    yield begin, fields
                begin = records.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path}, line {begin}: not readable as CSV ({_reason(error)}") from error


def _reason(error: csv.Error) -> str:
    if str(error).startswith("new-line character"):
        return "a carriage return, CR, inside a field); quote the field, or replace the CR by a space"
    doubled = ' Quotes within quotes are doubled: ""' if "expected after" in str(error) else ""
    return f"{error}); is a quote unclosed?{doubled}"


def _separated_by_commas(lines: Iterator[str], path: Path) -> Iterator[str]:
    """Yield all lines. Raises DataError if the first that is not blank has another separator than the comma."""
    is_header = True
    for number, line in enumerate(lines, start=1):
        if is_header and line.strip():
            is_header = False
            _check_separator(line, f"{path}, line {number}", path)
        yield line


def _check_separator(header: str, place: str, path: Path) -> None:
    if (note := re.fullmatch(r'"?sep=(.)"?\s*', header, re.IGNORECASE)) is not None:
        remedy = "delete this line" if note[1] == "," else "delete this line, and save the file with commas"
        raise DataError(f"{place}: is Excel's note that {note[1]!r} separates columns, expected their names; {remedy}")
    unquoted = re.sub(r'"[^"]*("|$)', "", header.strip("\r\n"))
    _refuse(next((each for each in _SEPARATORS if each in unquoted and "," not in unquoted), None), place, path)


def _check_header(header: Sequence[str], needed: Sequence[str], place: str, path: Path) -> None:
    """Raise DataError if a column that is missing has its name between separators other than the comma."""
    line, missing = ",".join(header), [name for name in needed if name not in header]
    _refuse(next((each for each in _SEPARATORS if {*line.split(each)} & {*missing}), None), place, path)


def _check_as_separated(header: Sequence[str], fields: Sequence[str], place: str, path: Path) -> None:
    """Raise DataError if a row fits the header by another separator than the comma."""
    line, row = ",".join(header), ",".join(fields)
    _refuse(next((each for each in _SEPARATORS if 0 < line.count(each) == row.count(each)), None), place, path)


def _refuse(separator: str | None, place: str, path: Path) -> None:
    if separator is not None:
        program = f"import csv, sys; csv.writer(sys.stdout).writerows(csv.reader(sys.stdin, delimiter={separator!r}))"
        raise DataError(
            f"{place}: columns are separated by {separator!r}, expected ','; save the file with commas, for example: "
            f'python -c "{program}" < {shlex.quote(path.name)} > {shlex.quote(beside(path, "commas"))}'
        )


# JSONL: an object per line

_MOST_LEVELS = 100  # of nested values, so that whatever reads them may recurse
_MOST_DIGITS = 4_000  # Python converts no more than 4,300 to a number or back


def jsonl_records(path: Path, columns: Sequence[str] | None) -> Records:
    """Yield the objects of a file, each of which must have `columns`."""
    with closing(_objects(path)) as objects:
        for record in objects:
            place = f"{path}, line {record.number}"
            for column in columns or ():
                if column not in record.values:
                    _check_others(path, place, record.values, column)
            check_columns(place, columns or (), list(record.values))
            yield record


def _objects(path: Path) -> Records:
    with closing(lines_of(path)) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield Record(number, _object(line, f"{path}, line {number}", path))


def _check_others(path: Path, place: str, values: Mapping[str, Any], key: str) -> None:
    """Raise ColumnError if another row has a key that this row lacks; what is wrong with others is left aside."""
    other = None
    with closing(_objects(path)) as others, suppress(DataError):
        other = next((record for record in others if key in record.values), None)
    if other is None:
        return
    missing = f"{place}: there is no column '{key}'"
    hint = nearest(key, values.keys() - other.values.keys())
    if hint.startswith("did you mean"):
        raise ColumnError(f"{missing}: {hint} Line {other.number} has '{key}'", key)
    empty = json.dumps({key: None}, ensure_ascii=False)[1:-1]
    raise ColumnError(
        f"{missing}, which line {other.number} has; give it to every row, where there is no value as {empty}", key
    )


def _object(line: str, place: str, path: Path) -> dict[str, Any]:
    if line.lstrip().startswith("["):  # before parsing: an array may go on for many lines
        raise DataError(
            f"{place}: expected a JSON object per line, found list; if the file is one list, convert it, for example: "
            + _by_jq(".[]", path)
        )
    try:
        values = _DECODER.decode(line)
    except json.JSONDecodeError as error:  # the error's text would count lines from this one
        rest = line[error.pos :].strip()
        remedy = f"; if objects span lines or share one, convert the file, for example: {_by_jq('.', path)}"
        raise DataError(
            f"{place}: not readable as JSON ({error.msg} at character {error.pos + 1})"
            + (remedy if not rest or rest.startswith("{") else "")
        ) from error
    except RecursionError as error:
        raise DataError(f"{place}: not readable as JSON (nested deeper than {_MOST_LEVELS} levels)") from error
    except ValueError as error:
        raise DataError(f"{place}: not readable as JSON ({error})") from error
    if not isinstance(values, dict):
        raise DataError(f"{place}: expected a JSON object per line, found {cut(line.strip())}")
    if line.count("[") + line.count("{") > _MOST_LEVELS and _levels(values) > _MOST_LEVELS:
        raise DataError(f"{place}: not readable as JSON (nested deeper than {_MOST_LEVELS} levels)")
    return values


def _by_jq(expression: str, path: Path) -> str:
    """The command that writes each JSON object in a file as a line."""
    return f"jq -c '{expression}' {shlex.quote(path.name)} > {shlex.quote(beside(path, 'lines'))}"


def _levels(values: dict[str, Any]) -> int:
    """Count the levels of nested objects and lists without recursion."""
    num_levels, level = 0, list[Any]([values])
    while level:
        num_levels += 1
        inner = [child for each in level for child in (each.values() if isinstance(each, dict) else each)]
        level = [child for child in inner if isinstance(child, dict | list)]
    return num_levels


def _whole_number(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits, expected at most {_MOST_DIGITS:,}")
    return int(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=with_unique_keys, parse_int=_whole_number)

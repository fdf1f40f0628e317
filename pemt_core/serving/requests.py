"""The rows in the body of a request: MLflow's forms of JSON, or CSV."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pemt_core.errors import DataError, nearest, shown
from pemt_core.schema.json_values import with_unique_keys
from pemt_core.serving.errors import MediaTypeError, RequestError
from pemt_core.tasks.files import read_records

JSON, CSV = "application/json", "text/csv"
RECORDS, SPLIT = "dataframe_records", "dataframe_split"
FORMS = (RECORDS, SPLIT, "inputs", "instances")  # of rows in JSON
MOST_LEVELS = 20  # of JSON; a request with lists in its rows has five
_SURROGATE = re.compile("[\ud800-\udfff]")
_WHOLE = re.compile(r"([0-9]{1,18})(\.0)?")

Rows = list[dict[str, Any]]


def rows_of(body: bytes, content_type: str, number_columns: Collection[str]) -> Rows:
    """Return the rows of a request. In CSV, only `number_columns` have numbers, and all other values are text.

    Raises RequestError, with the place, if the body is not readable; MediaTypeError if it is neither JSON nor CSV.
    """
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    if not kind:
        raise MediaTypeError(f"the request has no content type, expected {JSON}")
    if kind not in (JSON, CSV):
        raise MediaTypeError(f"the content type is {shown(kind)}, expected {JSON} or {CSV}")
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters, re.IGNORECASE)
    if charset and charset[1].lower() not in ("utf-8", "utf8"):
        raise MediaTypeError(f"the charset is {shown(charset[1])}, expected utf-8")
    rows = _of_csv(body, number_columns) if kind == CSV else _of_json(body)
    if not rows:
        raise RequestError("the request has no rows, expected at least one")
    return rows


def check_encoding(content_encoding: str) -> None:
    """Raise MediaTypeError if a body is compressed: it may be any number of times longer than what is counted."""
    if content_encoding.strip().lower() not in ("", "identity"):
        raise MediaTypeError(f"the content encoding is {shown(content_encoding)}, expected a body without compression")


# JSON


def _of_json(body: bytes) -> Rows:
    try:
        request = json.loads(body, object_pairs_hook=with_unique_keys)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # no UTF-8, no JSON, or a number of thousands of digits
        raise RequestError(f"the request is not readable as JSON ({error})") from error
    _check_values(request)
    expected = f"exactly one of {', '.join(FORMS)}"
    if not isinstance(request, dict):
        raise RequestError(f"The input must be a JSON dictionary with {expected}; it is {shown(request)}")
    forms = [form for form in FORMS if form in request]
    if len(forms) > 1:  # one would be answered and the others ignored
        raise RequestError(f"the request has {' and '.join(forms)}, expected rows in one of them")
    if not forms:
        hint = f"; {nearest(next(iter(request)), FORMS)}" if request else ""
        raise RequestError(f"the request has no rows: expected a JSON dictionary with {expected}{hint}")
    (form,) = forms
    value = request[form]
    if form == SPLIT:
        return _of_split(value)
    rows = [value] if isinstance(value, dict) and form != RECORDS else value
    if not isinstance(rows, list):
        raise RequestError(f"{form} is {shown(rows)}, expected a list of rows")
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise RequestError(f"{form}.{number} is {shown(row)}, expected an object with the columns of a row")
    return rows


def _of_split(value: Any) -> Rows:
    if not isinstance(value, dict) or not {"columns", "data"} <= value.keys():
        raise RequestError(f"{SPLIT} is {shown(value)}, expected an object with columns and data")
    columns, data = value["columns"], value["data"]
    if not isinstance(columns, list) or not all(isinstance(column, str) for column in columns):
        raise RequestError(f"{SPLIT}.columns is {shown(columns)}, expected a list of names")
    repeated = [column for column in columns if columns.count(column) > 1] if len({*columns}) < len(columns) else []
    if repeated:
        raise RequestError(f"{SPLIT}.columns has {shown(repeated[0])} twice")
    if not isinstance(data, list):
        raise RequestError(f"{SPLIT}.data is {shown(data)}, expected a list of rows")
    for number, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(columns):
            raise RequestError(
                f"{SPLIT}.data.{number} is {shown(row)}, expected a list of {len(columns)} values, one per column"
            )
    return [dict(zip(columns, row, strict=True)) for row in data]


def _check_values(request: Any) -> None:
    """Raise RequestError if a text is no Unicode, or the request is nested too deeply."""
    level: Sequence[tuple[str, Any]] = [("", request)]
    for _ in range(1 + MOST_LEVELS):
        for place, value in level:
            if isinstance(value, str) and _SURROGATE.search(value):
                raise RequestError(
                    f"{place[1:]} is {value[:80]!r}, expected Unicode text: it has half of a surrogate pair"
                )
        level = [(f"{place}.{key}", child) for place, each in level for key, child in _children(each)]
    if level:
        raise _too_deep()


def _too_deep() -> RequestError:
    return RequestError(f"the request is not readable as JSON (nested deeper than {MOST_LEVELS} levels)")


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from value.items()
        yield from (("a key", key) for key in value)
    elif isinstance(value, list):
        yield from enumerate(value)


# CSV


def _of_csv(body: bytes, number_columns: Collection[str]) -> Rows:
    """Read CSV by the same rules as files of rows, with the number of a line in messages."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "request.csv"
        path.write_bytes(body)
        try:
            return [_with_numbers(record.values, number_columns) for record in read_records(path)]
        except DataError as error:
            raise RequestError(str(error).replace(str(path), "the request")) from error


def _with_numbers(values: Mapping[str, str], columns: Collection[str]) -> dict[str, Any]:
    return {
        name: int(match[1]) if name in columns and (match := _WHOLE.fullmatch(value)) else value
        for name, value in values.items()
    }

"""Write files of predictions in parts: their columns, and a writer for each format."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pemt_core.errors import DataError
from pemt_core.tasks.values import is_unicode

Parts = Iterator[list[dict[str, Any]]]


def output_schema(keep: Sequence[str]) -> pa.Schema:
    """The columns of a file of predictions.

    Raises DataError if a column to keep would appear twice, or if its name is not Unicode text.
    """
    broken = [name for name in keep if not is_unicode(name)]
    if broken:
        raise DataError(f"the column {broken[0]!r} cannot be kept: its name is not Unicode text")
    kept = [(name, pa.string()) for name in keep]
    answers = [
        ("task", pa.string()),
        ("prediction", pa.string()),
        ("answer", pa.string()),
        ("score", pa.float64()),
        ("scores", pa.map_(pa.string(), pa.float64())),  # null if the task has no label words
        ("expert_weights", pa.map_(pa.string(), pa.float64())),
        ("truncated", pa.bool_()),
    ]
    schema = pa.schema([("row", pa.int64()), *kept, *answers])
    twice = [name for name in keep if keep.count(name) > 1]
    if twice:
        raise DataError(f"the column '{twice[0]}' to keep is given twice")
    repeated = [name for name in keep if schema.names.count(name) > 1]
    if repeated:
        raise DataError(f"the column '{repeated[0]}' cannot be kept: predictions already have a column of this name")
    return schema


def _write_csv(parts: Parts, schema: pa.Schema, path: Path) -> int:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(schema.names)
        return _count(parts, lambda row: writer.writerow(_csv_value(row[name]) for name in schema.names))


def _csv_value(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | bool) else value


def _write_jsonl(parts: Parts, schema: pa.Schema, path: Path) -> int:
    with path.open("w", encoding="utf-8") as file:
        return _count(parts, lambda row: _write_line(file, row))


def _write_line(file: IO[str], row: dict[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _count(parts: Parts, write: Callable[[dict[str, Any]], Any]) -> int:
    num_rows = 0
    for part in parts:
        for row in part:
            write(row)
        num_rows += len(part)
    return num_rows


def _write_parquet(parts: Parts, schema: pa.Schema, path: Path) -> int:
    num_rows = 0
    with pq.ParquetWriter(path, schema) as writer:
        for part in parts:
            writer.write_table(pa.Table.from_pylist([_maps_as_pairs(row) for row in part], schema=schema))
            num_rows += len(part)
    return num_rows


def _maps_as_pairs(row: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value.items()) if isinstance(value, dict) else value for name, value in row.items()}


WRITERS: Mapping[str, Callable[[Parts, pa.Schema, Path], int]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}

"""Predictions for files of any size: CSV, JSONL and parquet are read, answered and written a part at a time."""

import csv
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pemt_core.artifacts.files import atomic_file
from pemt_core.errors import DataError, nearest
from pemt_core.prediction.predictor import Prediction, Predictor

CHUNK_ROWS = 1_000  # held in memory at a time; rows of like length are batched within them
LONGEST_LINE = 16 * 2**20  # bytes: a longer one is a file without line ends, or with a quote that is never closed

PlacedRow = tuple[str, dict[str, Any]]  # where the row stands, for errors; its columns


def predict_file(
    predictor: Predictor, input_path: Path, output_path: Path, *, task: str | None = None, keep: Sequence[str] = ()
) -> int:
    """Write a prediction for every row of `input_path`, in their order; returns how many. Memory does not grow.

    The files' endings say what they are: .csv, .jsonl or .parquet, in UTF-8. The output has the columns of
    `output_schema`: `keep` names columns of the input that it carries along, as text. It appears whole or not at all.

    Raises:
        DataError: a file is missing or of another kind, not readable, has no row, or a row is not what its task
            expects; the message names the file and the line.
    """
    check_files(input_path, output_path, keep)
    read, write, schema = _READERS[_ending(input_path)], _WRITERS[_ending(output_path)], output_schema(keep)
    try:
        with atomic_file(output_path) as temporary, tqdm(unit="row", desc=f"predict {input_path.name}") as bar:
            num_rows = write(_answered(predictor, read(input_path), task, keep, bar), schema, temporary)
            if not num_rows:
                raise DataError(f"{input_path}: there is no row in it")
    except OSError as error:
        raise DataError(f"{output_path}: cannot be written ({error.strerror or error})") from error
    return num_rows


def check_files(input_path: Path, output_path: Path, keep: Sequence[str]) -> None:
    """DataError where `predict_file` would find at once that it cannot read, or write, these."""
    for path, known in ((input_path, _READERS), (output_path, _WRITERS)):
        if _ending(path) not in known:
            raise DataError(f"{path}: the ending '{path.suffix}' is unknown; {nearest(path.suffix, known)}")
    if not input_path.is_file():
        raise DataError(f"{input_path}: no such file")
    if output_path.exists() and output_path.samefile(input_path):
        raise DataError(f"{output_path}: is the file with the rows; name another for the answers")
    output_schema(keep)


def output_schema(keep: Sequence[str]) -> pa.Schema:
    """The columns of a file of predictions. DataError where a column to keep would stand there twice."""
    kept = [(name, pa.string()) for name in keep]
    answers = [
        ("task", pa.string()),
        ("prediction", pa.string()),
        ("answer", pa.string()),
        ("score", pa.float64()),
        ("scores", pa.map_(pa.string(), pa.float64())),  # null where the task has no label words
        ("expert_weights", pa.map_(pa.string(), pa.float64())),
        ("truncated", pa.bool_()),
    ]
    schema = pa.schema([("row", pa.int64()), *kept, *answers])
    repeated = [name for name in keep if schema.names.count(name) > 1]
    if repeated:
        raise DataError(f"the column '{repeated[0]}' cannot be kept: predictions have a column of that name")
    return schema


def _answered(
    predictor: Predictor, rows: Iterator[PlacedRow], task: str | None, keep: Sequence[str], bar: Any
) -> Iterator[list[dict[str, Any]]]:
    """The rows of the output, a part at a time."""
    number = 0
    while part := list(islice(rows, CHUNK_ROWS)):
        places, given = [place for place, _ in part], [row for _, row in part]
        kept = [_kept(place, row, keep) for place, row in part]
        answers = predictor.predict(given, task, places=places)
        pairs = enumerate(zip(kept, answers, strict=True), start=number)
        yield [{"row": row, **columns, **_plain(answer)} for row, (columns, answer) in pairs]
        number += len(part)
        bar.update(len(part))


def _plain(prediction: Prediction) -> dict[str, Any]:
    values = asdict(prediction)
    del values["layers"]
    return values


def _kept(place: str, row: dict[str, Any], keep: Sequence[str]) -> dict[str, str | None]:
    for name in keep:
        if name not in row:
            raise DataError(f"{place}: there is no column '{name}' to keep; {nearest(name, row)}")
    return {name: None if row[name] is None else str(row[name]) for name in keep}


def _ending(path: Path) -> str:
    return path.suffix.lower()


def _lines(path: Path) -> Generator[str, None, None]:
    """The lines of a UTF-8 file with their ends, none of them longer than LONGEST_LINE."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise DataError(
                    f"{path}, line {number}: longer than {LONGEST_LINE:,} bytes; are its line ends missing?"
                )
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: not UTF-8 (byte {line[error.start]:#04x} at column {error.start + 1}); "
                    f"convert it, as with: iconv -f latin1 -t utf-8 {path.name}"
                ) from error


def _read_csv(path: Path) -> Iterator[PlacedRow]:
    csv.field_size_limit(LONGEST_LINE)
    lines = _lines(path)
    reader = csv.DictReader(lines, strict=True, restkey="")
    try:
        header = reader.fieldnames or []
        if len(set(header)) < len(header):
            raise DataError(f"{path}, line 1: a column's name stands there twice: {', '.join(header)}")
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if "" in row:
                raise DataError(f"{place}: more values than the {len(header)} columns of line 1")
            yield place, row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not readable as CSV ({error})") from error
    finally:
        lines.close()


def _read_jsonl(path: Path) -> Iterator[PlacedRow]:
    with closing(_lines(path)) as lines:
        for number, line in enumerate(lines, start=1):
            place = f"{path}, line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{place}: not readable as JSON ({error})") from error
            if not isinstance(row, dict):
                raise DataError(f"{place}: expected an object with columns, found {type(row).__name__}")
            yield place, row


def _read_parquet(path: Path) -> Iterator[PlacedRow]:
    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(CHUNK_ROWS):
                for row in batch.to_pylist():
                    yield f"{path}, row {number}", row
                    number += 1
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not readable as parquet ({error})") from error


Parts = Iterator[list[dict[str, Any]]]


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


_READERS = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
_WRITERS = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}

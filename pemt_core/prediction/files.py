"""Predictions for files of any size: CSV, JSONL and parquet are read, answered and written in parts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pemt_core.artifacts.files import atomic_file
from pemt_core.errors import DataError, nearest
from pemt_core.prediction.predictor import Prediction, Predictor
from pemt_core.prediction.rows import TASK, TEXT
from pemt_core.prediction.writers import WRITERS, output_schema
from pemt_core.tasks.files import Record, check_file, check_format, fixed_columns, place_of, read_records

CHUNK_ROWS = 1_000  # held in memory at a time; rows of similar length are batched within them


def predict_file(
    predictor: Predictor, input_path: Path, output_path: Path, *, task: str | None = None, keep: Sequence[str] = ()
) -> int:
    """Write a prediction for every row of `input_path`, in order and in constant memory; returns the number of rows.

    The files' extensions give their formats: .csv, .jsonl or .parquet, in UTF-8. The output has the columns of
    `output_schema`; `keep` names columns of the input to copy to it as text. It is written whole or not at all.

    Raises:
        DataError: a file is missing, of another format, unreadable or empty, or a row is not what its task expects;
            the message names the file and the place in it.
    """
    check_files(input_path, output_path, keep)
    write, schema = WRITERS[output_path.suffix.lower()], output_schema(keep)
    columns = _needed(predictor, input_path, keep)
    try:
        with (
            atomic_file(output_path) as temporary,
            tqdm(unit="row", desc=f"predict {input_path.name}") as bar,
            closing(read_records(input_path, columns)) as records,
        ):
            return write(_answered(predictor, input_path, records, task, keep, bar), schema, temporary)
    except OSError as error:
        raise DataError(f"{output_path}: cannot be written ({error.strerror or error})") from error


def check_files(input_path: Path, output_path: Path, keep: Sequence[str]) -> None:
    """Raise DataError if `predict_file` cannot start on these files."""
    check_file(input_path)
    check_format(output_path, WRITERS)
    if output_path.exists() and output_path.samefile(input_path):
        raise DataError(f"{output_path}: is the input file; name another file for the answers")
    output_schema(keep)


def _needed(predictor: Predictor, path: Path, keep: Sequence[str]) -> list[str] | None:
    """The columns to read; None for all, if rows differ in their columns or an error will name the nearest one."""
    names, inputs = fixed_columns(path), [target.conversion.inputs for target in predictor.targets.values()]
    if names is None or not set(keep) <= set(names):
        return None
    if TEXT not in names and not set(chain(*inputs)) <= set(names):
        return None
    return [name for name in dict.fromkeys((TASK, TEXT, *keep, *chain(*inputs))) if name in names]


def _answered(
    predictor: Predictor, path: Path, records: Iterator[Record], task: str | None, keep: Sequence[str], bar: Any
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of the output in parts."""
    number = 0
    while part := list(islice(records, CHUNK_ROWS)):
        places, given = [place_of(path, record.number) for record in part], [record.values for record in part]
        kept = [_kept(place, row, keep) for place, row in zip(places, given, strict=True)]
        answers = predictor.predict(given, task, places=places)
        pairs = enumerate(zip(kept, answers, strict=True), start=number)
        yield [{"row": row, **columns, **_plain(answer)} for row, (columns, answer) in pairs]
        number += len(part)
        bar.update(len(part))


def _plain(prediction: Prediction) -> dict[str, Any]:
    values = asdict(prediction)
    del values["layers"]
    return values


def _kept(place: str, row: Mapping[str, Any], keep: Sequence[str]) -> dict[str, str | None]:
    for name in keep:
        if name not in row:
            raise DataError(f"{place}: there is no column '{name}' to keep; {nearest(name, row)}")
    return {name: None if row[name] is None else str(row[name]) for name in keep}

"""Predictions for files of any size: CSV, JSONL and parquet are read, answered and written in parts."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pemt_core.artifacts.files import atomic_file
from pemt_core.errors import DataError, nearest
from pemt_core.prediction.parts import AnsweredPart, Part, answering
from pemt_core.prediction.predictor import Predictor
from pemt_core.prediction.rows import TASK, TEXT
from pemt_core.prediction.writers import WRITERS, output_schema
from pemt_core.tasks.files import Record, check_file, check_format, fixed_columns, place_of, read_records
from pemt_core.tasks.values import RowError, as_text, is_absent

CHUNK_ROWS = 1_000  # held in memory at a time; rows of similar length are batched within them


def predict_file(
    predictor: Predictor,
    input_path: Path,
    output_path: Path,
    *,
    task: str | None = None,
    keep: Sequence[str] = (),
    workers: int | None = None,
) -> int:
    """Write a prediction for every row of `input_path`, in order and in constant memory; returns the number of rows.

    The files' extensions give their formats: .csv, .jsonl or .parquet, in UTF-8. The output has the columns of
    `output_schema`; `keep` names columns of the input to copy to it as text. It is written whole or not at all.
    `workers` processes answer at a time (None: as many as suit the machine); the file is the same for any number.

    Raises:
        SettingsError: this machine cannot run `workers`.
        DataError: a file is missing, of another format, unreadable or empty, or a row is not what its task expects;
            the message names the file and the place in it.
        PredictionError: a worker was killed.
    """
    check_files(input_path, output_path, keep)
    write, schema = WRITERS[output_path.suffix.lower()], output_schema(keep)
    columns = fixed_columns(input_path)
    needed = None if columns is None else [name for name in _known_columns(predictor, keep) if name in columns]
    unread = dict.fromkeys(columns or ())  # a row still names them, for hints
    try:
        with (
            atomic_file(output_path) as temporary,
            tqdm(unit="row", desc=f"predict {input_path.name}") as bar,
            closing(read_records(input_path, needed)) as records,
        ):
            rows = (Record(number, {**unread, **values}) for number, values in records)
            parts = _parts(predictor, input_path, rows, task, keep)
            with answering(predictor, parts, workers) as answered:
                return write(_output(answered, bar), schema, temporary)
    except OSError as error:
        raise DataError(f"{output_path}: cannot be written ({error.strerror or error})") from error


def check_files(input_path: Path, output_path: Path, keep: Sequence[str]) -> None:
    """Raise DataError if `predict_file` cannot start on these files."""
    check_file(input_path)
    fixed_columns(input_path)  # its beginning is readable
    if output_path.is_dir():
        raise DataError(f"{output_path}: is a folder; name a file in it for the answers")
    check_format(output_path, WRITERS)
    if output_path.exists() and output_path.samefile(input_path):
        raise DataError(f"{output_path}: is the input file; name another file for the answers")
    folder = next(each for each in output_path.absolute().parents if each.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        reason = "does not allow writing" if folder.is_dir() else "is not a folder"
        raise DataError(f"{output_path}: cannot be written: {folder} {reason}")
    output_schema(keep)


def _known_columns(predictor: Predictor, keep: Sequence[str]) -> list[str]:
    """The columns that some row may need."""
    inputs = chain.from_iterable(target.conversion.inputs for target in predictor.targets.values())
    return list(dict.fromkeys((TASK, TEXT, *keep, *inputs)))


def _parts(
    predictor: Predictor, path: Path, records: Iterator[Record], task: str | None, keep: Sequence[str]
) -> Iterator[Part]:
    """Yield the rows of the input in parts, tokenized."""
    while chunk := list(islice(records, CHUNK_ROWS)):
        places, given = [place_of(path, record.number) for record in chunk], [record.values for record in chunk]
        kept = [_kept(place, row, keep) for place, row in zip(places, given, strict=True)]
        yield Part(predictor.read(given, task, places=places), kept)


def _output(answered: Iterator[AnsweredPart], bar: Any) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of the output in parts."""
    number = 0
    for part, answers in answered:
        pairs = enumerate(zip(part.kept, answers, strict=True), start=number)
        yield [{"row": row, **columns, **answer} for row, (columns, answer) in pairs]
        number += len(answers)
        bar.update(len(answers))


def _kept(place: str, row: Mapping[str, Any], keep: Sequence[str]) -> dict[str, str | None]:
    for name in keep:
        if name not in row:
            raise DataError(f"{place}: there is no column '{name}' to keep; {nearest(name, row)}")
    try:
        return {name: None if is_absent(row[name]) else _kept_text(name, row[name]) for name in keep}
    except RowError as error:
        raise DataError(f"{place}: {error}") from error


def _kept_text(name: str, value: Any) -> str:
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False, default=str)
    is_plain = isinstance(value, str | int | Decimal) or (isinstance(value, float) and math.isfinite(value))
    return as_text(name, value if is_plain else str(value))  # dates, for example

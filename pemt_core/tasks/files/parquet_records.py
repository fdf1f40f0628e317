"""Records of parquet files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pemt_core.errors import DataError
from pemt_core.tasks.files.marks import PARQUET, check_kind
from pemt_core.tasks.files.record import Record, Records, check_columns

_BATCH_ROWS = 1_000


def parquet_records(path: Path, columns: Sequence[str] | None) -> Records:
    """Yield the rows of a file with `columns`, which must exist; None for all. No other columns are read.

    Numbers of 16 and 32 bits, also within lists and objects, become the number that their shortest text names: 0.1, not
    0.10000000149.
    """
    with _opened(path) as file:
        names = file.schema_arrow.names
        read = list(dict.fromkeys(names if columns is None else columns))
        check_columns(str(path), read, names)
        batches, number = file.iter_batches(_BATCH_ROWS, columns=read), 0
        while (batch := _next_batch(path, batches, number)) is not None:
            values = {name: _values(batch.column(name), path, name, number) for name in read}
            for row in range(batch.num_rows):
                number += 1
                yield Record(number, {name: values[name][row] for name in read})


def parquet_columns(path: Path) -> list[str]:
    """Return the names in the schema."""
    with _opened(path) as file:
        return list(file.schema_arrow.names)


def parquet_rows(path: Path) -> int:
    """Return the number of rows that a file says it has."""
    with _opened(path) as file:
        return int(file.metadata.num_rows)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    check_kind(path, PARQUET)
    import pyarrow.parquet as pq

    with _named_errors(f"{path}: not readable as parquet"):
        file = pq.ParquetFile(path, page_checksum_verification=True)
    with file:
        yield file


def _next_batch(path: Path, batches: Iterator[Any], number: int) -> Any:
    with _named_errors(f"{path}: not readable as parquet" + (f" after row {number}" if number else "")):
        return next(batches, None)


def _values(column: Any, path: Path, name: str, number: int) -> list[Any]:
    """Return the values of a batch's column as Python objects; `number` rows are before it."""
    from pyarrow import types

    problem = f"the value of column '{name}' is not readable"
    with _named_errors(f"{path}, after row {number}: {problem}"):
        if types.is_dictionary(column.type):
            column = column.dictionary_decode()
        try:
            values = column.to_pylist()
        except Exception:
            for row in range(len(column)):
                with _named_errors(f"{path}, row {number + row + 1}: {problem}"):
                    column[row].as_py()
            raise
        has_short_numbers = "float" in str(column.type)  # halffloat or float; one of 64 bits is a double
        return [_shortest(value, column.type) for value in values] if has_short_numbers else values


def _shortest(value: Any, kind: Any) -> Any:
    """A value of an Arrow type in which each number of 16 or 32 bits is the one that its shortest text names."""
    from pyarrow import types

    if value is None:
        return None
    if types.is_float16(kind) or types.is_float32(kind):
        return float(str(kind.to_pandas_dtype()(value)))
    if types.is_struct(kind):
        return {field.name: _shortest(value[field.name], field.type) for field in kind}
    if types.is_map(kind):
        return [(_shortest(key, kind.key_type), _shortest(item, kind.item_type)) for key, item in value]
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [_shortest(each, kind.value_type) for each in value]
    return value


@contextmanager
def _named_errors(problem: str) -> Iterator[None]:
    """Turn every error into a DataError: pyarrow does not document which ones damaged bytes raise."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{problem} ({reason or type(error).__name__})") from error

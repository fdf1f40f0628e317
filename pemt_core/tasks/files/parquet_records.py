"""Records of parquet files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pemt_core.errors import DataError
from pemt_core.tasks.files.record import Record, Records, check_columns

_BATCH_ROWS = 1_000


def parquet_records(path: Path, columns: Sequence[str] | None) -> Records:
    """Yield the rows of a file with `columns`, which must exist; None for all. No other columns are read."""
    with _opened(path) as file:
        names = file.schema_arrow.names
        check_columns(str(path), names if columns is None else columns, names)
        number = 0
        for batch in file.iter_batches(_BATCH_ROWS, columns=None if columns is None else list(columns)):
            for values in batch.to_pylist():
                number += 1
                yield Record(number, values)


def parquet_columns(path: Path) -> list[str]:
    """Return the names in the schema."""
    with _opened(path) as file:
        return list(file.schema_arrow.names)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file; pyarrow's errors about it, also those raised in the block, become a DataError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: not readable as parquet ({error})") from error

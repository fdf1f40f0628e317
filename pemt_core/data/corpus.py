"""The corpus for training a tokenizer and for pretraining: texts in one parquet file."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pemt_core.errors import ArtifactError

CORPUS_SCHEMA = pa.schema(
    [("text", pa.string()), ("hidden", pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32())])))]
)


@dataclass(frozen=True)
class CorpusText:
    """A text and the character spans [start, end) that pretraining hides; if there are none, it hides random spans."""

    text: str
    hidden: tuple[tuple[int, int], ...] = ()


def corpus_table(texts: Iterable[CorpusText]) -> pa.Table:
    """Return the texts as a table of CORPUS_SCHEMA."""
    rows = [
        {"text": each.text, "hidden": [{"start": start, "end": end} for start, end in each.hidden]} for each in texts
    ]
    return pa.Table.from_pylist(rows, schema=CORPUS_SCHEMA)


def read_corpus_table(path: Path) -> pa.Table:
    """Read a corpus. Raises ArtifactError if it is missing, damaged, or lacks a column."""
    if not path.is_file():
        what = "is a folder, expected a file" if path.is_dir() else "no such file; prepare writes it"
        raise ArtifactError(f"{path}: {what}")
    try:
        table = pq.read_table(path, columns=CORPUS_SCHEMA.names).cast(CORPUS_SCHEMA)
        table.validate(full=True)
        if any(column.null_count for column in table.columns):
            raise ValueError("a row is empty")
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{path}: not readable as a corpus ({reason}); it is truncated or altered") from error
    return table

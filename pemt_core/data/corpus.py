"""The corpus for training a tokenizer and for pretraining: texts in one parquet file."""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

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

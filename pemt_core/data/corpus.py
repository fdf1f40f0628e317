"""Texts for a tokenizer and for pretraining, as they are stored: one parquet file."""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

CORPUS_SCHEMA = pa.schema(
    [("text", pa.string()), ("hidden", pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32())])))]
)


@dataclass(frozen=True)
class CorpusText:
    """A text, and what pretraining is to hide of it: characters from `start` up to `end`; nothing: random spans."""

    text: str
    hidden: tuple[tuple[int, int], ...] = ()


def corpus_table(texts: Iterable[CorpusText]) -> pa.Table:
    """The texts as rows of the corpus' schema."""
    rows = [
        {"text": each.text, "hidden": [{"start": start, "end": end} for start, end in each.hidden]} for each in texts
    ]
    return pa.Table.from_pylist(rows, schema=CORPUS_SCHEMA)

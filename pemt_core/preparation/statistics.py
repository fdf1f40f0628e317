"""Statistics of prepared data: counts, content hashes, rows shared by splits, lengths in tokens."""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pemt_core.backbone.text_ids import answer_ids, input_ids
from pemt_core.data.prepared import SPLITS, PreparedTask, TaskDescription

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

QUANTILES = {"p50": 50, "p95": 95, "p99": 99, "max": 100}


@dataclass(frozen=True)
class DroppedRow:
    """A row that was left out by rule."""

    split: str  # official
    row: int
    reason: str


@dataclass(frozen=True)
class SplitStatistics:
    """Statistics of one prepared split."""

    rows: int
    official_split: str  # where its rows were read
    labels: dict[str, int] | None  # rows of each label, as the user knows it; None for free text
    content_hash: str  # of every row, in order; independent of how parquet encodes them


@dataclass(frozen=True)
class TaskReport:
    """What preparation found. It has the commit, so it is stored next to the data that later steps read, not in it."""

    task: str
    dataset: str
    source: str  # of the registry's datasets: "hub", "embedded", or the folder as given
    revision: str  # the hub's commit, or a hash of the user's files; empty for a folder and the embedded world
    split_seed: int
    splits: dict[str, SplitStatistics]
    duplicates: dict[str, int]  # "train/test": rows of test whose source text is also in train
    dropped: list[DroppedRow]
    carved: dict[str, int]  # missing official splits: how many rows of train replace each

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values, with the number of dropped rows."""
        return asdict(self) | {"num_dropped": len(self.dropped)}


@dataclass
class SplitTally:
    """Statistics of a split, collected row by row; memory is constant but for 8 bytes per row."""

    task: TaskDescription
    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    sources: "array[int]" = field(default_factory=lambda: array("Q"))  # 64-bit digests of the source texts
    hash: Any = field(default_factory=hashlib.sha256)

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row of ROW_SCHEMA."""
        self.rows += 1
        self.hash.update(json.dumps(row, sort_keys=True).encode())
        digest = hashlib.blake2b(row["source"].encode(), digest_size=8).digest()
        self.sources.append(int.from_bytes(digest, "little"))
        if self.task.labels is not None:
            self.counts[row["target"]] += 1

    def result(self, official_split: str) -> SplitStatistics:
        words = self.task.labels
        labels = None if words is None else {self.task.shown_as(word): self.counts[word] for word in words}
        return SplitStatistics(self.rows, official_split, labels, self.hash.hexdigest())


def shared_rows(tallies: Mapping[str, SplitTally]) -> dict[str, int]:
    """Count, for each pair of splits, the rows of the second whose source text also occurs in the first."""
    digests = {name: np.frombuffer(tally.sources, dtype=np.uint64) for name, tally in tallies.items()}
    pairs = combinations(digests, 2)
    return {f"{first}/{second}": int(np.isin(digests[second], digests[first]).sum()) for first, second in pairs}


def token_lengths(
    prepared_dirs: Iterable[Path], tokenizer: "PreTrainedTokenizerBase", batch_size: int = 1_000
) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
    """Compute quantiles of the lengths in tokens, without truncation: answers with the closing token, and
    texts too where the tokenizer closes them.

    Streams the parquet files. Returns {task: {split: {"source" | "target": {"p50", "p95", "p99", "max"}}}}.
    """
    lengths = {}
    for directory in prepared_dirs:
        prepared = PreparedTask.load(directory)
        lengths[prepared.task.name] = {
            split: _lengths_of_file(prepared.directory / f"{split}.parquet", tokenizer, batch_size) for split in SPLITS
        }
    return lengths


def _lengths_of_file(path: Path, tokenizer: "PreTrainedTokenizerBase", batch_size: int) -> dict[str, dict[str, int]]:
    columns = {"source": input_ids, "target": answer_ids}
    lengths = {column: array("i") for column in columns}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size, columns=list(columns)):
            for column, ids_of in columns.items():
                lengths[column].extend(map(len, ids_of(tokenizer, batch.column(column).to_pylist())))
    return {column: _quantiles(np.frombuffer(lengths[column], dtype=np.int32)) for column in columns}


def _quantiles(lengths: NDArray[np.int32]) -> dict[str, int]:
    """Return quantiles that occur as lengths: the smallest that at least the given share of rows does not exceed."""
    values = np.percentile(lengths, list(QUANTILES.values()), method="inverted_cdf")
    return {name: int(value) for name, value in zip(QUANTILES, values, strict=True)}

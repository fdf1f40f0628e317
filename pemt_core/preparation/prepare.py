"""Prepare one task: from the dataset's official splits to a folder of text pairs."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from pemt_core.artifacts.files import atomic_directory
from pemt_core.data.prepared import ROW_SCHEMA, TaskDescription, write_description
from pemt_core.errors import DataError
from pemt_core.preparation.load import load_official_splits
from pemt_core.preparation.splits import RowSelection, assign_rows
from pemt_core.preparation.statistics import DroppedRow, SplitTally, TaskReport, shared_rows
from pemt_core.tasks.pairs import DroppedRowError, TextPair
from pemt_core.tasks.record import Task
from pemt_core.tasks.values import RowError

BATCH_ROWS = 1_000

logger = logging.getLogger(__name__)


def prepare_task(
    task: Task,
    *,
    source: str,
    embedded_seed: int,
    split_seed: int,
    max_rows: Mapping[str, int | None],
    output_dir: Path,
) -> TaskReport:
    """Prepare `task` and write it to `output_dir` atomically.

    Rows stream from memory-mapped files in batches, so memory does not depend on a split's size.

    Args:
        source: "hub", "embedded", or a folder that mirrors the hub's layout; unused for the user's files.
        embedded_seed: the seed of the embedded world; unused for other sources.
        max_rows: the most rows of each role, None for no limit; the record's caps apply as well.

    Raises:
        DataError: the dataset cannot be read, a row does not match the record, or a split ends up empty.
    """
    official = load_official_splits(
        task.dataset,
        source=source,
        embedded_seed=embedded_seed,
        names=task.splits.official_splits,
        columns=task.columns,
    )
    assignment = assign_rows(task.splits, official.splits, split_seed)
    reader = _RowReader(task, official.place)
    tallies = {}
    with atomic_directory(output_dir) as folder:
        for role, selection in assignment.roles.items():
            rows = reader.rows(official.splits[selection.split], selection, training=role == "train")
            bounded = islice(rows, _most_rows(task, role, max_rows))
            tallies[role] = _write_split(bounded, folder / f"{role}.parquet", task.labels)
            _check_filled(tallies[role], task, role, selection.split)
        write_description(folder, _description(task))
    logger.info("%s: prepared %s", task.name, {role: tally.rows for role, tally in tallies.items()})
    return TaskReport(
        task=task.name,
        dataset=str(task.dataset),
        source=source,
        revision=official.revision,
        split_seed=split_seed,
        splits={role: tally.result(assignment.roles[role].split) for role, tally in tallies.items()},
        duplicates=shared_rows(tallies),
        dropped=reader.dropped,
        carved=dict(assignment.carved),
    )


def _check_filled(tally: SplitTally, task: Task, role: str, split: str) -> None:
    if tally.rows == 0:
        raise DataError(f"{task.dataset}: {role}, read from split '{split}', is empty; it needs at least one row")


@dataclass
class _RowReader:
    """Converts raw rows of a task to rows of ROW_SCHEMA, and records dropped rows and assigned ids."""

    task: Task
    place: Callable[[str, int], str]  # of a row in an official split
    dropped: list[DroppedRow] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)

    def rows(self, raw: datasets.Dataset, selection: RowSelection, training: bool) -> Iterator[dict[str, Any]]:
        """Yield the selected rows in order. Raises DataError at the first row that does not match the record."""
        positions = iter(selection.indices.tolist())
        for batch in raw.select(selection.indices).iter(BATCH_ROWS):
            for values in zip(*batch.values(), strict=True):
                position = next(positions)
                pair = self._pair(dict(zip(batch, values, strict=True)), selection.split, position)
                if pair is not None:
                    for each in self.task.conversion.expand(pair) if training else [pair]:
                        yield self._row(each, selection.split, position)

    def _pair(self, raw: Mapping[str, Any], split: str, position: int) -> TextPair | None:
        try:
            return self.task.conversion.pair(raw)
        except DroppedRowError as reason:
            logger.warning("%s is dropped: %s", self.place(split, position), reason)
            self.dropped.append(DroppedRow(split, position, str(reason)))
            return None
        except RowError as error:
            raise DataError(f"{self.place(split, position)}: {error}") from error

    def _row(self, pair: TextPair, split: str, position: int) -> dict[str, Any]:
        row_id = f"{split}-{pair.key or position}"
        if row_id in self.ids:
            raise DataError(f"{self.place(split, position)}: the id '{pair.key}' occurs twice")
        self.ids.add(row_id)
        return {
            "id": row_id,
            "group": f"{split}-{pair.group}" if pair.group else row_id,
            "source": pair.source,
            "target": pair.target,
            "references": list(pair.references),
        }


def _write_split(rows: Iterator[dict[str, Any]], path: Path, labels: tuple[str, ...] | None) -> SplitTally:
    """Write `rows` to a parquet file, one row group per batch."""
    tally = SplitTally(labels)
    with pq.ParquetWriter(path, ROW_SCHEMA) as writer:
        while batch := list(islice(rows, BATCH_ROWS)):
            for row in batch:
                tally.add(row)
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=ROW_SCHEMA))
    return tally


def _most_rows(task: Task, role: str, max_rows: Mapping[str, int | None]) -> int | None:
    """The smaller of the record's cap and the setting's, None if neither limits the split."""
    bounds = [bound for bound in (task.caps.get(role), max_rows.get(role)) if bound is not None]
    return min(bounds, default=None)


def _description(task: Task) -> TaskDescription:
    return TaskDescription(
        name=task.name,
        suite=task.suite,
        description=task.description,
        labels=None if task.labels is None else list(task.labels),
        metrics=list(task.metrics),
        generation_length=task.generation_length,
    )

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
from pemt_core.labels import check_labels
from pemt_core.preparation.load import load_official_splits
from pemt_core.preparation.splits import RowSelection, assign_rows, unit_of
from pemt_core.preparation.statistics import DroppedRow, SplitTally, TaskReport, shared_rows
from pemt_core.tasks.pairs import DroppedRowError, TextPair
from pemt_core.tasks.record import FileDataset, Task
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
        DataError: the dataset cannot be read, a row does not match the record, a split ends up empty, labels look the
            same, or a label of the user's occurs in another split alone than train.
    """
    description = describe(task)
    check_labels(description)
    official = load_official_splits(
        task.dataset,
        source=source,
        embedded_seed=embedded_seed,
        names=task.splits.official_splits,
        columns=task.columns,
    )
    assignment = assign_rows(task.splits, official.splits, split_seed)
    reader = _RowReader(task, official.place)
    with atomic_directory(output_dir) as folder:
        tallies = _write_splits(reader, official.splits, assignment.roles, max_rows, folder)
        if isinstance(task.dataset, FileDataset):
            _check_trained_labels(tallies, reader, description)
        write_description(folder, description)
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


def _write_splits(
    reader: "_RowReader",
    official: Mapping[str, datasets.Dataset],
    roles: Mapping[str, RowSelection],
    max_rows: Mapping[str, int | None],
    folder: Path,
) -> dict[str, SplitTally]:
    """Write the rows of each role to its parquet file, and count them."""
    tallies = {}
    for role, selection in roles.items():
        rows = reader.rows(official[selection.split], selection, training=role == "train")
        bounded = islice(rows, _most_rows(reader.task, role, max_rows))
        tallies[role] = _write_split(bounded, folder / f"{role}.parquet", describe(reader.task))
        if not tallies[role].rows:
            few = f"the split's {len(official[selection.split])} rows are too few to divide; add rows"
            reason = f"all {len(selection.indices)} rows were dropped" if len(selection.indices) else few
            where = f"{reader.task.dataset}: {role}, read from split '{selection.split}'"
            raise DataError(f"{where}, is empty: {reason}")
    return tallies


def _check_trained_labels(tallies: Mapping[str, SplitTally], reader: "_RowReader", task: TaskDescription) -> None:
    """Raise DataError, with the first row, if a label is in validation or test that the training rows lack."""
    for role, tally in tallies.items():
        for word in task.labels or ():
            if tally.counts[word] and not tallies["train"].counts[word]:
                numbers = ", ".join(f"{other} {tallies[other].counts[word]}" for other in tallies)
                raise DataError(
                    f"{reader.place(*reader.first[word])}: the label '{task.shown_as(word)}' is in no training row, so "
                    f"the model could not learn it (rows by split: {numbers}); give more rows of it to train, or "
                    f"correct or remove it in {role}"
                )


@dataclass
class _RowReader:
    """Converts raw rows of a task to rows of ROW_SCHEMA, and records dropped rows, ids and each target's first row."""

    task: Task
    place: Callable[[str, int], str]  # of a row in an official split
    dropped: list[DroppedRow] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    first: dict[str, tuple[str, int]] = field(default_factory=dict)  # of a label word: official split and position

    def rows(self, raw: datasets.Dataset, selection: RowSelection, training: bool) -> Iterator[dict[str, Any]]:
        """Yield the selected rows in order. Raises DataError at the first row that does not match the record."""
        positions = iter(selection.indices.tolist())
        try:
            for row, position in zip(_iterated(raw.select(selection.indices)), positions, strict=True):
                pair = self._pair(row, selection.split, position)
                if pair is not None:
                    unit = unit_of(row, self.task.splits.unit)
                    for each in self.task.conversion.expand(pair) if training else [pair]:
                        yield self._row(each, unit, selection.split, position)
        except RowError:
            for position, row in enumerate(_iterated(raw)):  # name the first such row, whatever the order above
                self._check(row, selection.split, position)
            raise

    def _check(self, raw: Mapping[str, Any], split: str, position: int) -> None:
        try:
            self.task.conversion.pair(raw)
        except DroppedRowError:
            pass
        except RowError as error:
            raise DataError(f"{self.place(split, position)}: {error}") from error

    def _pair(self, raw: Mapping[str, Any], split: str, position: int) -> TextPair | None:
        try:
            return self.task.conversion.pair(raw)
        except DroppedRowError as reason:
            logger.warning("%s is dropped: %s", self.place(split, position), reason)
            self.dropped.append(DroppedRow(split, position, str(reason)))
            return None

    def _row(self, pair: TextPair, unit: str | None, split: str, position: int) -> dict[str, Any]:
        row_id = f"{split}-{pair.key or position}"
        if row_id in self.ids:
            raise DataError(f"{self.place(split, position)}: the id '{pair.key}' occurs twice")
        self.ids.add(row_id)
        if self.task.labels is not None:
            self.first.setdefault(pair.target, (split, position))
        group = f"{split}-{pair.group}" if pair.group else row_id
        return {
            "id": row_id,
            "group": group,
            "cluster": group if unit is None else f"{split}-{unit}",
            "source": pair.source,
            "target": pair.target,
            "references": list(pair.references),
        }


def _iterated(rows: datasets.Dataset) -> Iterator[dict[str, Any]]:
    """Yield rows one by one, read in batches."""
    for batch in rows.iter(BATCH_ROWS):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def _write_split(rows: Iterator[dict[str, Any]], path: Path, task: TaskDescription) -> SplitTally:
    """Write `rows` to a parquet file, one row group per batch."""
    tally = SplitTally(task)
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


def describe(task: Task) -> TaskDescription:
    """Return what later steps need from a task's record."""
    return TaskDescription(
        name=task.name,
        suite=task.suite,
        description=task.description,
        labels=None if task.labels is None else list(task.labels),
        metrics=list(task.metrics),
        generation_length=task.generation_length,
        shown=dict(task.conversion.shown) or None,
    )

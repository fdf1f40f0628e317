"""The source `joint`: the rows of several sources as one task, for one expert that is trained on all of them."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pemt_core.artifacts.files import atomic_directory
from pemt_core.data.prepared import ROW_SCHEMA, SPLITS, PreparedTask, TaskDescription, write_description
from pemt_core.preparation.splits import permutation
from pemt_core.preparation.statistics import SplitTally, TaskReport, shared_rows
from pemt_core.tasks import JOINT

DESCRIPTION = "Solve the task."
METRIC = "qa_em"  # the text equals a reference: for label words and free answers alike
SUITE = "source"
ROWS_PER_GROUP = 1_000  # of a parquet file, as other tasks have

logger = logging.getLogger(__name__)


def prepare_joint(prepared_dirs: Sequence[Path], *, source: str, split_seed: int, output_dir: Path) -> TaskReport:
    """Write the task that consists of the prepared tasks of these folders, atomically.

    Every split takes the same number of rows of each task, as many as the smallest has, and mixes them by `split_seed`.
    A row keeps its texts and references; its id, group and cluster begin with its task's name. Answers are scored by
    METRIC alone, since the tasks' own metrics do not apply to the others' rows. `source` is where the rows come from.
    """
    tasks = [PreparedTask.load(directory) for directory in prepared_dirs]
    names = [each.task.name for each in tasks]
    description = TaskDescription(
        name=JOINT,
        suite=SUITE,
        description=DESCRIPTION,
        labels=None,
        metrics=[METRIC],
        generation_length=max(each.task.generation_length for each in tasks),
    )
    with atomic_directory(output_dir) as folder:
        tallies = {split: _write_split(tasks, split, split_seed, folder, description) for split in SPLITS}
        write_description(folder, description)
    logger.info("%s: prepared %s", JOINT, {split: tally.rows for split, tally in tallies.items()})
    return _report(names, tallies, source, split_seed)


def _write_split(
    tasks: Sequence[PreparedTask], split: str, seed: int, folder: Path, description: TaskDescription
) -> SplitTally:
    rows_of = {each.task.name: each.rows(split) for each in tasks}
    smallest = min(map(len, rows_of.values()))
    parts = [_named(rows.slice(0, smallest), name) for name, rows in rows_of.items()]
    mixed = pa.concat_tables(parts)
    mixed = mixed.take(permutation(len(mixed), seed).astype(np.int64)).combine_chunks()
    pq.write_table(mixed, folder / f"{split}.parquet", row_group_size=ROWS_PER_GROUP)
    tally = SplitTally(description)
    for batch in mixed.to_batches(ROWS_PER_GROUP):
        for row in batch.to_pylist():
            tally.add(row)
    return tally


def _named(rows: pa.Table, name: str) -> pa.Table:
    """The rows of a task with ids, groups and clusters that no other task's rows have."""
    columns = {column: rows[column] for column in ROW_SCHEMA.names}
    for column in ("id", "group", "cluster"):
        columns[column] = pa.array([f"{name}/{value}" for value in columns[column].to_pylist()], pa.string())
    return pa.table(columns, schema=ROW_SCHEMA)


def _report(names: Sequence[str], tallies: Mapping[str, SplitTally], source: str, split_seed: int) -> TaskReport:
    return TaskReport(
        task=JOINT,
        dataset=f"the sources {', '.join(names)}",
        source=source,
        revision="",
        split_seed=split_seed,
        splits={split: tally.result(split) for split, tally in tallies.items()},
        duplicates=shared_rows(tallies),
        dropped=[],
        carved={},
    )

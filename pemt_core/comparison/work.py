"""The work of a cell, counted from settings: configurations, optimizer steps and evaluated rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pemt_core.artifacts.cell import FewShot
from pemt_core.data.prepared import PreparedTask
from pemt_core.errors import PemtError
from pemt_core.methods import Method
from pemt_core.training.configuration import FIRST_ROUND, distinct
from pemt_core.training.settings import TrainingSettings


@dataclass(frozen=True)
class TargetRows:
    """The rows of a target. A sample of k rows per class has `classes` batches."""

    train: int
    validation: int
    classes: int  # 1 for free text


@dataclass(frozen=True)
class CellWork:
    """What all configurations of a cell do together, unless they stop early."""

    configurations: int
    steps: int
    answers: int  # validation rows, over all evaluations

    @classmethod
    def of(cls, method: Method, sources: Sequence[str], k: FewShot, rows: TargetRows) -> "CellWork":
        """Count the work of a method's cell; `sources` are all that are known."""
        started = len(distinct(method.options(sources))) * len(set(method.learning_rates))
        how = method.training
        steps, every = _steps(how, k, rows)
        first, kept = steps, started
        if method.search == "halving" and started > 1:
            first = min(steps, math.ceil(math.ceil(steps * FIRST_ROUND) / every) * every)
            kept = math.ceil(started / 2)
        total = started * first + kept * (steps - first)
        return cls(started, total, max(started, math.ceil(total / every)) * _validated(how, rows))

    @classmethod
    def of_source(cls, how: TrainingSettings, rows: TargetRows) -> "CellWork":
        """Count the work of a training in stage 1, on the rows of a source."""
        steps, every = _steps(how, "full", rows)
        return cls(1, steps, max(1, math.ceil(steps / every)) * _validated(how, rows))


def _steps(how: TrainingSettings, k: FewShot, rows: TargetRows) -> tuple[int, int]:
    """The steps of a training, and after how many of them it is evaluated."""
    per_epoch = math.ceil(rows.train / how.batch_size) if k == "full" else rows.classes
    steps = how.epochs * per_epoch if how.max_steps is None else min(how.epochs * per_epoch, how.max_steps)
    return steps, per_epoch if how.evaluate_every == "epoch" else int(how.evaluate_every)


def _validated(how: TrainingSettings, rows: TargetRows) -> int:
    """The validation rows of an evaluation."""
    return min(rows.validation, how.validation_rows or rows.validation)


def rows_of(data: Path, target: str, official: Mapping[str, int], classes: int) -> TargetRows:
    """The rows of a prepared target, or, before it is prepared, `official` counts and classes."""
    try:
        prepared = PreparedTask.load(data / target, target)
        train, validation = (prepared.rows(split).num_rows for split in ("train", "validation"))
    except PemtError:
        return TargetRows(official.get("train", 0), official.get("validation", 0), classes)
    return TargetRows(train, validation, len(prepared.task.labels or [""]))

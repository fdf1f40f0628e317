"""What is left to do for an experiment, and about how long it takes on this machine. Nothing is trained.

Times come from the measured seconds per optimizer step of cells that are there, else from a probe of a few steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pemt_core.artifacts.cell import Cell
from pemt_core.comparison.folders import Folders
from pemt_core.comparison.plan import ComparisonPlan
from pemt_core.comparison.presence import missing_cells
from pemt_core.comparison.shared import Shared
from pemt_core.comparison.work import CellWork
from pemt_core.training.workers import usable_cores

MEASURED, PROBED = "measured", "probed"


@dataclass(frozen=True)
class ColumnForecast:
    """The cells of one column."""

    column: str
    cells: int
    missing: int
    work: CellWork  # of all missing cells together; configurations: of one cell
    seconds: float | None  # on one core; None: unknown
    origin: str  # MEASURED or PROBED


@dataclass(frozen=True)
class Forecast:
    """An experiment's cells, there and missing."""

    plan: ComparisonPlan
    missing: Mapping[str, list[Cell]]  # by variant
    sources: Mapping[str, tuple[int, int]]  # by variant: source adapters to train, and all
    columns: list[ColumnForecast]
    scoring_seconds: float | None
    workers: int

    @property
    def seconds(self) -> float | None:
        """From start to end on this machine, without stage 1; None if some column's time is unknown."""
        known = [column.seconds for column in self.columns]
        if self.scoring_seconds is None or None in known:
            return None
        return sum(each for each in known if each is not None) / self.workers + self.scoring_seconds


def forecast(
    plan: ComparisonPlan, folders: Folders, *, project: Path, checkpoints: Path, workers: int | None
) -> Forecast:
    """Count what is left of an experiment and estimate its time."""
    shared = Shared(plan, folders, project, checkpoints)
    left = {variant.name: _sources_to_train(shared, variant) for variant in plan.variants}
    missing, columns, scoring = {}, [], list[float | None]()
    for variant in plan.variants:
        ready = left[variant.name] == 0 and shared.experts(variant).is_made()
        missing[variant.name] = missing_cells(variant, folders, checkpoints) if ready else variant.cells
        times = _Times.of(variant, folders)
        columns += _columns(plan, variant, missing[variant.name], times, folders.data)
        scoring.append(times.scoring(missing[variant.name]))
    return Forecast(
        plan,
        missing,
        {variant.name: (left[variant.name], len(variant.train_source)) for variant in plan.variants},
        columns,
        None if None in scoring else sum(each for each in scoring if each is not None),
        workers or usable_cores(),
    )

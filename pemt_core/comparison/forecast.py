"""What is left to do for an experiment, and about how long it takes on this machine. Nothing is trained.

Times come from the measured seconds per optimizer step of cells that are there, else from a probe of a few steps.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.cost import TrainingCost, load_cost
from pemt_core.comparison.folders import Folders
from pemt_core.comparison.plan import ComparisonPlan, VariantPlan
from pemt_core.comparison.presence import missing_cells
from pemt_core.comparison.probe import Speeds, backbone_to_probe, probe
from pemt_core.comparison.scale import ROWS as OFFICIAL, rows_of as official_rows
from pemt_core.comparison.shared import Shared
from pemt_core.comparison.work import CellWork, TargetRows, rows_of
from pemt_core.errors import ArtifactError
from pemt_core.processes.schedule import usable_cores
from pemt_core.tasks import TASKS
from pemt_core.training.run import silent_runs


@dataclass(frozen=True)
class ColumnForecast:
    """The cells of one column. Counts of work are of all missing cells together."""

    cells: int
    missing: int
    configurations: int
    steps: int
    seconds: float | None  # of training, on one core; None: unknown
    measured: bool  # from cells that are there, not from a probe


@dataclass(frozen=True)
class Forecast:
    """An experiment's cells, there and missing, and about how long the missing ones take."""

    columns: Mapping[str, ColumnForecast]
    targets: Mapping[str, tuple[int, int]]  # cells and missing cells
    sources: Mapping[str, tuple[int, int]]  # by variant: source adapters, and those to train
    source_seconds: float | None  # of the processor, for those to train; None: unknown
    workers: int
    scoring_seconds: float | None  # on one core
    unchecked: int  # cells counted as missing that exist; whether they fit is unknown until stage 1 is made or checked
    peak_memory_mib: int | None  # the most that a training of a cell that is there adds to a worker

    @property
    def seconds(self) -> float | None:
        """The time of training and scoring cells on this machine; None if that of some column is unknown."""
        seconds = [column.seconds for column in self.columns.values() if column.missing]
        total = _sum([*seconds, self.scoring_seconds])
        return None if total is None else total / self.workers


def forecast(
    plan: ComparisonPlan, folders: Folders, *, project: Path, checkpoints: Path, workers: int | None
) -> Forecast:
    """Count what is left of an experiment and estimate its time."""
    shared = Shared(plan, folders, project, checkpoints)
    columns: dict[str, ColumnForecast] = {}
    targets: dict[str, tuple[int, int]] = {}
    sources, memory, unchecked = {}, list[int](), 0
    stage_1, scoring = list[float | None](), list[float | None]()
    for variant in plan.variants:
        to_train = _sources_to_train(shared, variant)
        sources[variant.name] = len(variant.train_source), len(to_train)
        ready = not to_train and shared.experts(variant).is_made()
        missing = missing_cells(variant, folders, checkpoints) if ready else variant.cells
        unchecked += 0 if ready else sum(_exists(variant, cell, folders) for cell in missing)
        times = _Times(variant, folders, {cell.method for cell in missing})
        columns |= _columns(plan, variant, missing, times)
        memory += [cost.peak_memory_mib for costs in times.costs.values() for cost in costs]
        stage_1.append(times.stage_1(to_train))
        scoring.append(times.scoring(missing))
        for cell in variant.cells:
            count, left = targets.get(cell.task, (0, 0))
            targets[cell.task] = count + 1, left + (cell in missing)
    peak = max(memory, default=None)
    cores = workers or usable_cores()
    return Forecast(columns, targets, sources, _sum(stage_1), cores, _sum(scoring), unchecked, peak)


def _sum(seconds: Sequence[float | None]) -> float | None:
    """The sum; None if a part is unknown."""
    known = [each for each in seconds if each is not None]
    return sum(known) if len(known) == len(seconds) else None


def _exists(variant: VariantPlan, cell: Cell, folders: Folders) -> bool:
    return (folders.targets(variant.name) / cell.task / cell.name).is_dir()


def _sources_to_train(shared: Shared, variant: VariantPlan) -> list[str]:
    """The sources of a variant whose adapter is missing; all, if data or backbone are."""
    if not shared.data().is_made() or not shared.backbone(variant, silent_runs).is_made():
        return list(variant.train_source)
    return shared.missing_sources(variant)


def _columns(
    plan: ComparisonPlan, variant: VariantPlan, missing: Sequence[Cell], times: "_Times"
) -> dict[str, ColumnForecast]:
    found = {}
    for method in dict.fromkeys(cell.method for cell in variant.cells):
        left = [cell for cell in missing if cell.method == method]
        work = [times.work(cell) for cell in left]
        seconds = [times.of(cell) for cell in left]
        found[plan.column(variant, method)] = ColumnForecast(
            cells=sum(cell.method == method for cell in variant.cells),
            missing=len(left),
            configurations=sum(each.configurations for each in work),
            steps=sum(each.steps for each in work),
            seconds=_sum(seconds),
            measured=method in times.costs,
        )
    return found


class _Times:
    """Seconds of the cells of a variant: by what cells of the same method took, else by a probe."""

    def __init__(self, variant: VariantPlan, folders: Folders, methods: set[str]) -> None:
        self.variant, self.folders, self.methods = variant, folders, methods
        self.costs = _costs(folders.targets(variant.name), folders.costs(variant.name))
        self._rows: dict[str, TargetRows] = {}

    @cached_property
    def probed(self) -> Speeds | None:
        """None before there is a backbone to probe."""
        model = backbone_to_probe(self.variant, self.folders.backbone(self.variant.own_backbone))
        return None if model is None else probe(self.variant, sorted(self.methods), model)

    def rows(self, target: str) -> TargetRows:
        if target not in self._rows:
            official = official_rows(target) if target in OFFICIAL else {}
            labels = TASKS[target].labels if target in TASKS else None
            self._rows[target] = rows_of(self.folders.data, target, official, len(labels or [""]))
        return self._rows[target]

    def work(self, cell: Cell) -> CellWork:
        method = self.variant.transfers[cell.task].method(cell.method)
        return CellWork.of(method, self.variant.settings.sources, cell.k, self.rows(cell.task))

    def of(self, cell: Cell) -> float | None:
        """Seconds on one core; None if nothing is known."""
        work = self.work(cell)
        if measured := self.costs.get(cell.method):
            return work.steps * sum(cost.seconds for cost in measured) / sum(cost.steps for cost in measured)
        if self.probed is None:
            return None
        speed, method = self.probed.methods[cell.method], self.variant.settings.method(cell.method)
        batch = method.training.batch_size if cell.k == "full" else int(cell.k)
        return work.steps * speed.step * batch + work.answers * speed.answer

    def stage_1(self, sources: Sequence[str]) -> float | None:
        """Processor seconds in which `sources` are trained; None if nothing is known."""
        if not sources:
            return 0.0
        if self.probed is None:
            return None
        speed, seconds = self.probed.stage_1, 0.0
        for name in sources:
            for how in self.variant.train_source[name].trainings:
                work = CellWork.of_source(how, self.rows(name))
                seconds += work.steps * speed.step * how.batch_size + work.answers * speed.answer
        return seconds

    def scoring(self, cells: Sequence[Cell]) -> float | None:
        """Seconds in which `cells` are scored, one after another; None if nothing is known."""
        if not cells:
            return 0.0
        if self.probed is None:
            return None
        most = self.variant.settings.evaluate.max_rows
        rows = [most or self.rows(cell.task).validation for cell in cells]
        return sum(each * self.probed.methods[cell.method].answer for each, cell in zip(rows, cells, strict=True))


def _costs(targets: Path, costs: Path) -> dict[str, list[TrainingCost]]:
    """What the cells that are there took, by method."""
    found = defaultdict(list)
    for path in sorted(costs.glob("[!.]*/[!.]*.json")):
        try:
            cost = load_cost(path.parent, targets / path.parent.name / path.stem)
        except ArtifactError:
            continue
        if cost.steps:
            found[path.stem.split("-")[0]].append(cost)  # names of methods have no hyphen
    return dict(found)

"""Record an experiment in the tracking store, as the pipeline's step `record` does, and its report's files."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from pemt_core.artifacts.result import CellResult
from pemt_core.comparison.definition import BASE
from pemt_core.comparison.folders import Folders
from pemt_core.comparison.plan import ComparisonPlan
from pemt_core.comparison_report.study import Study
from pemt_core.report.names import MethodNames
from pemt_core.report.table import Tables
from pemt_core.steps.record import record
from pemt_core.tracking import Tracker
from pemt_core.tracking.report_files import record_files

TrackerOf = Callable[[str], Tracker]  # by variant


def tracking_experiment(name: str, variant: str) -> str:
    """The name in the tracking store; variants are apart, since their cells have the same names."""
    return f"pemt-compare-{name}" if variant == BASE else f"pemt-compare-{name}-{variant}"


def record_cells(plan: ComparisonPlan, folders: Folders, tracker_of: TrackerOf) -> None:
    """Write the runs of all cells and source adapters that the store lacks."""
    for variant in plan.variants:
        scores = folders.scores(variant.name)
        results = [CellResult.load(scores / cell.task / cell.name) for cell in variant.cells]
        names, settings = MethodNames.of(variant.steps.record.methods), variant.settings.report
        tables = Tables.of(results, names, settings.confidence, list(variant.transfers))
        sources = [folders.sources(variant.name) / name for name in variant.train_source]
        record(tables, scores, sources, settings, tracker_of(variant.name), folders.root / "provenance")


def record_report(studies: Sequence[Study], paragraph: str, folder: Path, tracker: Tracker) -> None:
    """Write a run with the files of the report, and the mean score of every column and k that has one there."""
    compared = studies[0].compared
    lines = [(study.k, line) for study in studies for line in study.lines]
    metrics = {f"mean/{line.column}/k{k}": line.mean for k, line in lines if not math.isnan(line.mean)}
    params = {"experiment": compared.name, "reference": compared.reference, "family": compared.family}
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    record_files(tracker, "comparison", files, f"{compared.definition.about}\n\n{paragraph}", params, metrics)

"""report: tables, figures and a page of all results, and the tracking runs that are missing."""

import logging
from collections.abc import Sequence
from pathlib import Path

from pemt_core.artifacts.cell import cells_of
from pemt_core.artifacts.files import read_json
from pemt_core.errors import ArtifactError
from pemt_core.report import write_report
from pemt_core.settings import BackboneSettings, PrepareSettings, ReportSettings, Settings
from pemt_core.steps.plan import make_plan
from pemt_core.tracking import Tracker
from pemt_core.tracking.results import gather_result, record_results, record_sources

logger = logging.getLogger(__name__)


def report(
    results_dir: Path,
    source_dirs: Sequence[Path],
    settings: ReportSettings,
    targets: Sequence[str],
    prepare: PrepareSettings,
    backbone: BackboneSettings,
    *,
    backbone_dir: Path | None,
    output_dir: Path,
    provenance_dir: Path,
    tracker: Tracker,
    failed: Sequence[str] | None = None,
) -> dict[str, float]:
    """Write tables and figures to `output_dir`, and to `tracker` whatever of them and of the results it does not show.

    `prepare` and `backbone` are the settings that the results come from. The page also shows the cost of the steps that
    left their provenance beside this one's, and what `backbone_dir`, if any, holds: nothing depends on it, so it may.
    `failed` are sentences on what has no result, of a run on a cluster: its results came from `tracker`, and are not
    recorded again. Returns the means over all targets, by method and k.
    """
    from pemt_core.artifacts.result import load_results
    from pemt_core.report.cost import read_runs
    from pemt_core.report.origin import Origin, num_parameters_of
    from pemt_core.report.table import ALL, gaps, seed_frame
    from pemt_core.tracking.comparison import record_comparison

    num_parameters = num_parameters_of(backbone_dir) if backbone_dir else None
    runs = read_runs(provenance_dir, [*targets, *(directory.name for directory in source_dirs)])
    write_report(
        results_dir,
        output_dir,
        confidence=settings.confidence,
        layer_groups=settings.layer_groups,
        origin=Origin(prepare, backbone, num_parameters, runs, source_dirs),
        targets=targets,
        failed=failed or (),
    )
    logger.info("report: %s written", output_dir)
    written = 0
    if failed is None:
        written += record_sources(source_dirs, tracker, provenance_dir)
        written += record_results(results_dir, tracker, provenance_dir)
    results = load_results(results_dir)
    missing = [*(failed or ()), *gaps(seed_frame(results), targets)]
    written += record_comparison(results, settings, tracker, missing)
    logger.info("report: %d tracking runs completed", written)
    summary = read_json(output_dir / "summary.json")
    return {method: means[ALL] for method, means in summary.items() if ALL in means}


def gather(settings: Settings, tracker: Tracker, *, results_dir: Path) -> list[str]:
    """Fetch the results of a run's plan from tracking into `results_dir`; returns a sentence on each that is not there.

    ArtifactError, with all of these, where there is no result.
    """
    failed = []
    for branch in make_plan(settings).branches:
        runs, transfer = tracker.of_plan(branch.key), settings.transfer_for(branch.target)
        for cell in cells_of(branch.target, transfer.model_copy(update={"seeds": [branch.seed]})):
            lacks = gather_result(cell, settings.evaluate, runs, results_dir)
            if lacks:
                failed.append(f"{cell.task}, {cell.method}, k = {cell.k}, seed {cell.seed}: {lacks}")
                logger.warning("report: %s", failed[-1])
    if not results_dir.is_dir():
        raise ArtifactError(
            f"not one result is there to report. {'; '.join(failed)}. Steps taken from a cache left theirs in the "
            "tracking store of their day: --no-cache runs them again"
        )
    return failed

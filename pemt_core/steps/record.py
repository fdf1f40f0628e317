"""record: write the tracking runs of all that a report shows, unless earlier steps have written them."""

import logging
from collections.abc import Sequence
from pathlib import Path

from pemt_core.artifacts.description import SourceDescription, load_description
from pemt_core.artifacts.result import CellResult
from pemt_core.report.table import Tables
from pemt_core.settings import ReportSettings
from pemt_core.tracking import Tracker
from pemt_core.tracking.comparison import record_comparison
from pemt_core.tracking.results import record_results, record_sources

logger = logging.getLogger(__name__)


def record(
    tables: Tables,
    results_dir: Path,
    source_dirs: Sequence[Path],
    settings: ReportSettings,
    tracker: Tracker,
    provenance_dir: Path,
) -> int:
    """Write to `tracker` what it lacks; returns how many runs were written or completed.

    There is a run for each source adapter in `source_dirs`, one for each result (its files are below `results_dir`),
    and above these one for each method and k. `provenance_dir` has the commits at which the steps ran.
    """
    written = record_sources(source_dirs, tracker, provenance_dir)
    written += record_results(tables.results, results_dir, tracker, provenance_dir)
    adapters = [load_description(directory, SourceDescription)[1] for directory in source_dirs]
    written += record_comparison(tables, settings, tracker, adapters)
    logger.info("record: %d tracking runs completed", written)
    return written


def recorded_cells(results: Sequence[CellResult]) -> dict[str, str]:
    """A hash of what each run that `record` writes shows, by cell."""
    return {result.cell.run: result.content_hash() for result in results}

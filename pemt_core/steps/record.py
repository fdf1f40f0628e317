"""record: tracking runs of all that a report shows, where the steps that computed it have not written them."""

import logging
from collections.abc import Sequence
from pathlib import Path

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
    """Write to `tracker` whatever it does not show yet; returns how many runs were written or completed.

    These are a run per source adapter in `source_dirs`, one per result, whose files are below `results_dir`, and above
    them one per method and k. `provenance_dir` tells the commits that the runs' steps ran at.
    """
    written = record_sources(source_dirs, tracker, provenance_dir)
    written += record_results(tables.results, results_dir, tracker, provenance_dir)
    written += record_comparison(tables, settings, tracker)
    logger.info("record: %d tracking runs completed", written)
    return written


def recorded_cells(results: Sequence[CellResult]) -> dict[str, str]:
    """The runs that `record` sees to, by cell: a hash of what each one shows."""
    return {result.cell.run: result.content_hash() for result in results}

"""report: tables and figures of all results, and the tracking runs that are missing."""

import logging
from collections.abc import Sequence
from pathlib import Path

from pemt_core.report import write_report
from pemt_core.report.runs import record_results, record_sources
from pemt_core.settings import ReportSettings
from pemt_core.tracking import Tracker

logger = logging.getLogger(__name__)


def report(
    results_dir: Path,
    source_dirs: Sequence[Path],
    settings: ReportSettings,
    targets: Sequence[str],
    *,
    output_dir: Path,
    provenance_dir: Path,
    tracker: Tracker,
) -> None:
    """Write tables and figures to `output_dir`, and record every cell and source that `tracker` does not show."""
    write_report(
        results_dir,
        output_dir,
        confidence=settings.confidence,
        layer_groups=settings.layer_groups,
        targets=targets,
    )
    written = record_sources(source_dirs, tracker, provenance_dir)
    written += record_results(results_dir, tracker, provenance_dir)
    logger.info("report: %s written; %d tracking runs completed", output_dir, written)

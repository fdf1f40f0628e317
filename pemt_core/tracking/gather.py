"""Fetch results from the tracking store, since the last step of a cluster run receives no files."""

import logging
from collections.abc import Iterable
from pathlib import Path

from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.files import atomic_file
from pemt_core.artifacts.result import RESULT_FILE
from pemt_core.errors import ArtifactError
from pemt_core.settings import EvaluateSettings
from pemt_core.tracking import ERROR, Tracker
from pemt_core.tracking.results import published_name

logger = logging.getLogger(__name__)


def gather(
    cells: Iterable[tuple[str, Cell]], settings: EvaluateSettings, tracker: Tracker, *, results_dir: Path
) -> list[str]:
    """Fetch the result of each cell, by the key of its branch, into `results_dir`, in the layout that evaluate writes.

    Returns a sentence on each missing result. ArtifactError, with all these sentences, if there is no result at all.
    """
    failed = []
    for key, cell in cells:
        lacks = gather_result(cell, settings, tracker.of_plan(key), results_dir)
        if lacks:
            failed.append(f"{cell.task}, {cell.method}, k = {cell.k}, seed {cell.seed}: {lacks}")
            logger.warning("report: %s", failed[-1])
    if not results_dir.is_dir():
        raise ArtifactError(
            f"there are no results to report. {'; '.join(failed)}. Steps taken from a cache have their results in the "
            "tracking store of their first run: --no-cache runs them again"
        )
    return failed


def gather_result(cell: Cell, settings: EvaluateSettings, tracker: Tracker, results_dir: Path) -> str | None:
    """Fetch a cell's result, scored with `settings`, into `results_dir`; return None, or why the result is missing."""
    run = tracker.find(cell.run)
    text = tracker.read_file(run, published_name(settings)) if run else None
    if text is not None:
        with atomic_file(results_dir / cell.task / cell.name / RESULT_FILE) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return None
    if run is None:
        return "it did not start, or failed before its training"
    if run.status == "FAILED":
        return f"its training failed: {run.tags.get(ERROR, 'the reason was not recorded')}"
    if run.status == "FINISHED":  # another training of its branch failed, or evaluate, or record
        return "it was trained, but its branch failed before its scores were recorded"
    return "its training was interrupted"

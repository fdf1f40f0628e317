"""A run that holds the files of a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pemt_core.artifacts.files import sha256_of_file, sha256_of_json
from pemt_core.tracking.parents import Parent, record_parent
from pemt_core.tracking.tracker import CELL, Tracker

SHOWN = (".csv", ".html", ".md", ".svg")  # text files that are kept; images are shown on the run's page


def record_files(
    tracker: Tracker,
    name: str,
    files: Sequence[Path],
    page: str,
    params: Mapping[str, object],
    metrics: Mapping[str, float],
) -> bool:
    """Make sure that a run `name` has these files and shows this Markdown page; return whether it was written."""
    state = sha256_of_json([[path.name, sha256_of_file(path)] for path in files] + [page])
    images = [path for path in files if path.suffix == ".png"]
    parent = Parent(
        name=name,
        state=state,
        tags={"pemt.step": "compare"},
        params=params,
        metrics=metrics,
        page=page,
        draw=lambda: {path.name: path.read_bytes() for path in images},
    )
    with tracker.tolerance() as store:
        if store and record_parent(store, parent, []):
            run = store.runs_with(CELL, parent.cell)[0]
            for path in files:
                if path.suffix in SHOWN:
                    store.add_file(run.run_id, path.name, path.read_text(encoding="utf-8"))
            return True
    return False

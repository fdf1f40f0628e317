"""Parent runs: what the runs of one method and k have in common, under names that all methods share.

A parent shows one state of its children. When they change, a new parent gets them, and the earlier parent remains for
comparison, with CURRENT set to "false". An unchanged state writes nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pemt_core.tracking.store import Store, StoredRun
from pemt_core.tracking.tracker import ARTIFACT, CELL, RESULT, add_params

CURRENT = "pemt.current"  # tag: "true" on the newest parent of its cell, "false" on earlier ones
PARENT, NOTE, COLOUR = "mlflow.parentRunId", "mlflow.note.content", "mlflow.runColor"  # tags that MLflow's pages read
WIDTH = 760  # pixels of an image on a run's page, which does not scale it
LONGEST_NOTE = 7500  # characters; MLflow cuts a run's tag at 8000, and links to images follow


@dataclass(frozen=True)
class Parent:
    """The content of a parent run."""

    name: str
    state: str  # hash of what it shows
    tags: Mapping[str, str]
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    page: str  # Markdown
    draw: Callable[[], Mapping[str, bytes]]  # PNG files by name; called only if they are needed

    @property
    def cell(self) -> str:
        """The tag CELL, which all states of the parent share."""
        return f"report/{self.name}"


def record_parent(store: Store, parent: Parent, children: Sequence[StoredRun]) -> bool:
    """Make sure that one run shows this state of `parent`, above `children`; return whether it had to be written.

    RESULT is the last tag: a run without it is incomplete and is replaced.
    """
    runs = store.runs_with(CELL, parent.cell)
    same = [run for run in runs if run.tags.get(ARTIFACT) == parent.state]
    whole = [run.run_id for run in same if run.tags.get(RESULT) == parent.state]
    for run in same:
        if run.run_id not in whole[:1]:
            store.delete(run.run_id)
    run_id = whole[0] if whole else _write(store, parent)
    for child in children:
        if child.tags.get(PARENT) != run_id:
            store.set_tags(child.run_id, {PARENT: run_id})
    for run in runs:
        is_current = str(run.run_id == run_id).lower()
        if (run not in same or run.run_id == run_id) and run.tags.get(CURRENT) != is_current:
            store.set_tags(run.run_id, {CURRENT: is_current})
    return not whole


def show(store: Store, run_id: str, page: str, images: Mapping[str, bytes]) -> None:
    """Set a run's description to a Markdown page with the images below, linked by their addresses on the server."""
    for name, png in images.items():
        store.add_image(run_id, name, png)
    shown = page if len(page) <= LONGEST_NOTE else page[: page.rindex("\n", 0, LONGEST_NOTE)] + "\n\n(cut)\n"
    links = [f"![{name}](get-artifact?path={name}&run_uuid={run_id})" for name in images]
    store.set_tags(run_id, {NOTE: "\n\n".join([shown, *links])})


def _write(store: Store, parent: Parent) -> str:
    run_id = store.create(parent.name, {CELL: parent.cell, ARTIFACT: parent.state})
    add_params(store, run_id, parent.params, already=())
    store.add_metrics(run_id, [(name, value, 0) for name, value in parent.metrics.items()])  # step 0: drawn as bars
    show(store, run_id, parent.page, parent.draw())
    store.set_tags(run_id, parent.tags)
    store.end(run_id, "FINISHED")
    store.set_tags(run_id, {CURRENT: "true", RESULT: parent.state})
    return run_id

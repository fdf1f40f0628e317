"""Runs by cell: "transfer/cb/pemt/k=full/seed=4096" or "train_source/mnli".

Runs are found by their tags, never by a stored id: CELL, KEY (the hash of what the training comes from), and PLAN in a
cluster run. Training a cell again replaces its run; runs of the same cell with other settings remain for comparison,
and may be in progress elsewhere. `Tracker.record` completes or rewrites a run from result files, so that steps that DVC
restored without running them have runs too.
"""

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pemt_core import interruption
from pemt_core.artifacts.run_info import ARTIFACT_TAG, RunInfo
from pemt_core.provenance.commit import git_commit
from pemt_core.settings.dotted import flatten
from pemt_core.tracking.address import TrackingError
from pemt_core.tracking.outbox import Outbox, Unsent
from pemt_core.tracking.store import Point, Store, StoredRun, open_store

logger = logging.getLogger(__name__)

CELL, ARTIFACT, RESULT = "pemt.cell", ARTIFACT_TAG, "pemt.result"  # tags: which cell, what was trained and shown
KEY = "pemt.key"  # tag: the hash of what a training comes from; runs that summarise others have none
PLAN, ERROR = "pemt.plan", "pemt.error"  # tags: the key of a cluster run's branch; why a run failed
CHECKPOINT_SECONDS = 1.0  # that a training waits for its points to be sent, after it has saved its state
END_SECONDS, KILLED_SECONDS = 60.0, 3.0  # that the end of a run waits; the second after a signal
LONGEST_TAG = 1000  # characters; longer error messages are cut
LONGEST_PARAM = 500  # characters; longer values are cut, and the whole parameters become the file params.json


@dataclass(frozen=True)
class RunRecord:
    """The run of a finished cell, read from its result files."""

    cell: str
    key: str  # empty if the cell's name identifies the run
    name: str
    artifact: str  # hash of what was trained: a run with the same hash is completed, any other is replaced
    result: str  # hash of everything below: a run with the same hash is left alone
    tags: Mapping[str, str]
    params: Mapping[str, Any]  # may be nested
    metrics: Mapping[str, float]  # final values
    history: Sequence[Mapping[str, float]]  # points of the curves, each with a "step"
    files: Mapping[str, str]  # name within the run to text


class LiveRun:
    """A run while its cell trains; does nothing without tracking. What is written to it is sent in the background."""

    def __init__(self, outbox: Outbox | None, unsent: Unsent) -> None:
        self._outbox, self._unsent = outbox, unsent

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one point to the curve of each of `metrics`."""
        if self._outbox:
            self._outbox.log(self._unsent, step, metrics)

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags. With ARTIFACT set, `Tracker.record` completes this run instead of replacing it."""
        if self._outbox:
            self._outbox.tag(self._unsent, tags)

    def flush(self) -> None:
        """Have everything sent, and wait for that briefly. Raises TrackingError if the store failed, with "stop"."""
        if self._outbox:
            self._outbox.flush(self._unsent, CHECKPOINT_SECONDS, retries=False)


class Tracker:
    """The runs of one experiment. Without a store, it accepts every call and does nothing."""

    def __init__(
        self, store: Store | None, on_unreachable: Literal["stop", "continue"], plan: str | None = None
    ) -> None:
        self._store, self._on_unreachable, self._plan = store, on_unreachable, plan
        self._tags = {PLAN: plan} if plan else {}  # of every run that is opened or recorded
        self._outbox = Outbox(store, keeps_trying=on_unreachable == "continue") if store else None

    @property
    def active(self) -> bool:
        """Whether runs are stored; becomes false when the store fails and `on_unreachable` is "continue"."""
        return self._store is not None

    @contextmanager
    def tolerance(self) -> Iterator[Store | None]:
        """Yield the store, or None. If the store fails in the body, stop or end tracking, as `on_unreachable` says."""
        try:
            yield self._store
        except TrackingError as error:
            if self._on_unreachable == "stop":
                raise
            logger.warning("%s; continuing without tracking", error)
            self._store = None

    @contextmanager
    def run(
        self, cell: str, name: str, tags: Mapping[str, str], params: Mapping[str, Any], key: str = ""
    ) -> Iterator[LiveRun]:
        """Open a run of `cell` that replaces those with this key.

        It ends FINISHED, or FAILED if the body raises an error, or KILLED if a signal interrupts it. If the store fails
        meanwhile, this raises TrackingError or, with "continue", sends the rest when the store answers again.
        """
        outbox, unsent = self._outbox, Unsent(partial(self._create, cell, name, tags, params, key))
        if outbox is None:
            yield LiveRun(None, unsent)
            return
        try:
            with interruption.deferred():
                outbox.open(unsent)
            with interruption.last_words(partial(outbox.end_at_once, unsent, "KILLED")):
                yield LiveRun(outbox, unsent)
                outbox.flush(unsent, END_SECONDS)
        except BaseException as error:
            self._abandon(outbox, unsent, error)
            raise
        with interruption.deferred():
            if not outbox.end(unsent, "FINISHED", END_SECONDS):
                self._report_incomplete(cell)

    def _create(
        self,
        cell: str,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        key: str,
        unsent: Unsent,
        store: Store,
    ) -> None:
        for old in self._runs_of(store, cell, key):
            store.delete(old.run_id)
        unsent.run_id = store.create(name, {**_identity(cell, key), **self._tags})
        store.set_tags(unsent.run_id, tags)
        add_params(store, unsent.run_id, params, already=())

    def open_run(self, info: RunInfo) -> AbstractContextManager[LiveRun]:
        """Open the `run` that `info` describes."""
        return self.run(info.cell, info.name, {**info.tags, "pemt.commit": git_commit()}, info.params, info.run_key)

    def record(self, record: RunRecord) -> bool:
        """Make sure that exactly one FINISHED run shows the record's cell; return whether something was written.

        A run of the same artifact (from the training) keeps its curves and is completed; otherwise the cell's runs are
        deleted and a new one is written. Without a plan, runs that belong to a plan stay unchanged.
        """
        with self.tolerance() as store:
            if store:
                found = _with_key(store.runs_with(CELL, record.cell), record.key)
                of_plan = [run for run in found if run.tags.get(PLAN) == self._plan]
                if not of_plan and not self._plan and any(run.tags.get(ARTIFACT) == record.artifact for run in found):
                    return False
                return _record(store, record, of_plan, self._tags)
        return False

    def of_plan(self, key: str) -> "Tracker":
        """Return a tracker of the same store for the branch of a cluster run with this key."""
        return Tracker(self._store, self._on_unreachable, key)

    def find(self, cell: str, key: str | None = None) -> StoredRun | None:
        """Return the newest run of a cell, with this key if one is given; None if there is no such run.

        Without a plan, a run of any plan with this key is as good: `record` writes none beside it.
        """
        with self.tolerance() as store:
            if store:
                own = self._runs_of(store, cell, key)
                others = [] if own or self._plan or key is None else _with_key(store.runs_with(CELL, cell), key)
                return next(iter(own or others), None)
        return None

    def add_file(self, cell: str, key: str, name: str, text: str) -> None:
        """Add a file to the run of a cell with this key. TrackingError if there is no such run."""
        with self.tolerance() as store:
            if store:
                runs = self._runs_of(store, cell, key)
                if not runs:
                    raise TrackingError(f"the run of {cell} was deleted; cannot add {name} to it")
                store.add_file(runs[0].run_id, name, text)

    def read_file(self, run: StoredRun, name: str) -> str | None:
        """Return the text of a file of a run; None if it has no such file."""
        with self.tolerance() as store:
            if store:
                return store.read_file(run.run_id, name)
        return None

    def _runs_of(self, store: Store, cell: str, key: str | None = None) -> list[StoredRun]:
        """Return the runs of a cell that belong to this plan and, if it is given, have this key."""
        runs = [run for run in store.runs_with(CELL, cell) if run.tags.get(PLAN) == self._plan]
        return runs if key is None else _with_key(runs, key)

    def _abandon(self, outbox: Outbox, unsent: Unsent, error: BaseException) -> None:
        """Mark a run FAILED with the reason, or KILLED by a signal; an error of the store must not hide the reason."""
        failed = not isinstance(error, KeyboardInterrupt)
        stops = self._on_unreachable == "stop"
        if stops and not unsent.run_id:
            return
        if stops:
            unsent.opening = None  # if it failed halfway, the run is marked as it is
        try:
            if failed:
                outbox.tag(unsent, {ERROR: (str(error) or type(error).__name__)[:LONGEST_TAG]})
            outbox.end(unsent, "FAILED" if failed else "KILLED", END_SECONDS if failed else KILLED_SECONDS)
        except TrackingError as problem:
            logger.warning("%s", problem)
        if stops:
            outbox.forget(unsent)

    def _report_incomplete(self, cell: str) -> None:
        """Say that a run could not be sent as a whole, by an error or a warning."""
        place = self._store.place if self._store else "the tracking store"
        late = f"{place}: does not have all of the run of {cell} yet"
        if self._on_unreachable == "stop":
            raise TrackingError(f"{late}, after {END_SECONDS:.0f} s; run this again when it answers in time")
        logger.warning("%s; if it stays so, `dvc repro -f -s record` completes it", late)


def connect(uri: str, experiment: str, base_dir: Path, on_unreachable: Literal["stop", "continue"]) -> Tracker:
    """Return a tracker of `experiment` in the store at `uri`; both are created if they do not exist.

    A sqlite path is relative to `base_dir`. If the store cannot be opened, this raises TrackingError or, with
    "continue", logs a warning and returns a tracker that does nothing.
    """
    tracker = Tracker(None, on_unreachable)
    with tracker.tolerance():
        return Tracker(open_store(uri, experiment, base_dir), on_unreachable)
    return tracker


def flat_params(params: Mapping[str, Any]) -> dict[str, str]:
    """Flatten nested parameters to dotted names and texts: {"a": {"b": [1, None]}} gives {"a.b": "[1, null]"}."""
    return flatten(params, lambda value: value if isinstance(value, str) else json.dumps(value, default=str))


def _with_key(runs: Sequence[StoredRun], key: str) -> list[StoredRun]:
    return [run for run in runs if run.tags.get(KEY, "") == key]


def _identity(cell: str, key: str) -> dict[str, str]:
    return {CELL: cell, **({KEY: key} if key else {})}


def _record(store: Store, record: RunRecord, runs: Sequence[StoredRun], plan: Mapping[str, str]) -> bool:
    shown = [run for run in runs if run.tags.get(RESULT) == record.result and run.status == "FINISHED"]
    same = [run for run in runs if run.tags.get(ARTIFACT) == record.artifact]
    kept = next(iter(shown or same), None)
    for run in runs:
        if run is not kept:
            store.delete(run.run_id)
    if not shown:
        _complete(store, kept or _started(store, record, plan), record)
    return not shown


def _started(store: Store, record: RunRecord, plan: Mapping[str, str]) -> StoredRun:
    """A new run, with the tags by which it is found, so that what a crash leaves of it is replaced."""
    run_id = store.create(record.name, {**_identity(record.cell, record.key), **plan})
    return StoredRun(run_id, "RUNNING", {}, {}, {})


def _complete(store: Store, run: StoredRun, record: RunRecord) -> None:
    """Add to `run` what it lacks of `record`; RESULT last, so that a crash leaves it incomplete."""
    add_params(store, run.run_id, record.params, already=run.params)
    store.set_tags(run.run_id, {**record.tags, ARTIFACT: record.artifact})
    last_step = max((int(point["step"]) for point in record.history), default=0)
    final = [(name, value, last_step) for name, value in record.metrics.items()]
    store.add_metrics(run.run_id, [*_missing_points(store, run, record), *final])
    for name, text in record.files.items():
        store.add_file(run.run_id, name, text)
    store.end(run.run_id, "FINISHED")
    store.set_tags(run.run_id, {RESULT: record.result})


def _missing_points(store: Store, run: StoredRun, record: RunRecord) -> list[Point]:
    """Return the points of the record's curves that `run` does not have."""
    points = [(k, v, int(point["step"])) for point in record.history for k, v in point.items() if k != "step"]
    stored = {name: store.steps_of(run.run_id, name) for name in {name for name, _, _ in points} & run.metrics.keys()}
    return [(name, value, step) for name, value, step in points if step not in stored.get(name, ())]


def add_params(store: Store, run_id: str, params: Mapping[str, Any], already: Collection[str]) -> None:
    """Log flattened parameters, except those in `already`, since MLflow refuses to change a parameter."""
    flat = {name: value for name, value in flat_params(params).items() if name not in already}
    store.add_params(run_id, {name: _cut(value) for name, value in flat.items()})
    if any(len(value) > LONGEST_PARAM for value in flat.values()):
        store.add_file(run_id, "params.json", json.dumps(params, indent=2, sort_keys=True, default=str) + "\n")


def _cut(value: str) -> str:
    return value if len(value) <= LONGEST_PARAM else value[: LONGEST_PARAM - 1] + "…"

"""One MLflow experiment, reduced to the calls that a tracker makes; `models` has those of the registry.

It uses MLflow's client directly, since the fluent functions keep one active run per process in global state.
"""

import functools
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Concatenate, ParamSpec, TypeVar

from pemt_core.tracking import sqlite_file
from pemt_core.tracking.address import (
    TrackingError,
    check_reachable,
    is_database_server,
    sqlite_path,
    sqlite_uri,
    without_password,
)
from pemt_core.tracking.database import alone, with_driver
from pemt_core.tracking.failures import explain, file_of
from pemt_core.tracking.mlflow_defaults import set_defaults
from pemt_core.tracking.moved import ARTIFACTS
from pemt_core.tracking.patience import locked, patiently

METRICS_PER_BATCH, OTHERS_PER_BATCH = 1000, 100  # MLflow's limits for one request
ANY_EXPERIMENT = "Default"  # every store has it, and reading the registry needs no other
DIGEST = 12  # characters of a dataset's hash that are kept; MLflow takes 36 at most

Point = tuple[str, float, int]  # metric, value, step
TimedPoint = tuple[str, float, int, int]  # and milliseconds since the epoch
Given = ParamSpec("Given")
Answer = TypeVar("Answer")


@contextmanager
def named_errors(uri: str) -> Iterator[None]:
    """Turn errors of MLflow, databases, files and the network into a TrackingError that names the store."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        status = error.get_http_status_code() if isinstance(error, MlflowException) else 0
        raise TrackingError(explain(error, uri, status, _user())) from error


def request(call: "Callable[Concatenate[Store, Given], Answer]") -> "Callable[Concatenate[Store, Given], Answer]":
    """Have `call` wait for a sqlite file that another process holds, and raise TrackingError if the store fails.

    What MLflow could not write it rolled back, so that `call` can be repeated.
    """

    @functools.wraps(call)
    def answer(store: "Store", *args: Given.args, **kwargs: Given.kwargs) -> Answer:
        path = file_of(store.uri)
        with named_errors(store.uri):
            return patiently(path, lambda: call(store, *args, **kwargs)) if path else call(store, *args, **kwargs)

    return answer


def _user() -> str | None:
    """Describe the login in MLflow's environment variables; None without one."""
    token = "MLFLOW_TRACKING_TOKEN" if os.environ.get("MLFLOW_TRACKING_TOKEN") else None
    name = os.environ.get("MLFLOW_TRACKING_USERNAME")
    return f"the user '{name}'" if name else token


def tracking_uri(of_settings: str) -> str:
    """Return MLflow's variable MLFLOW_TRACKING_URI if it is set, otherwise `of_settings`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or of_settings


def tracking_dir(params: Path) -> Path:
    """Return the folder to which the path of a tracking file is relative: that of params.yaml.

    `dvc exp run --temp` and `--queue` run in a temporary copy; DVC_ROOT then names the project folder.
    """
    return Path(os.environ.get("DVC_ROOT") or params.resolve().parent)


@dataclass(frozen=True)
class StoredRun:
    """A run as the store has it."""

    run_id: str
    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]  # last values


@dataclass(frozen=True)
class Store:
    """An experiment. Every method raises TrackingError if the store is unreachable or refuses a request."""

    client: Any  # MlflowClient
    experiment_id: str
    uri: str

    @property
    def place(self) -> str:
        """The file or the address, to be shown."""
        return str(file_of(self.uri) or without_password(self.uri))

    @request
    def runs_with(self, tag: str, value: str) -> list[StoredRun]:
        """The runs whose `tag` is `value`, newest first."""
        runs = self.client.search_runs([self.experiment_id], f"tags.`{tag}` = '{value}'")
        return [
            StoredRun(run.info.run_id, run.info.status, run.data.tags, run.data.params, run.data.metrics)
            for run in runs
        ]

    @request
    def steps_of(self, run_id: str, metric: str) -> set[int]:
        """The steps at which a run has a value of `metric`."""
        return {point.step for point in self.client.get_metric_history(run_id, metric)}

    @request
    def tags(self) -> dict[str, str]:
        """The experiment's tags."""
        return dict(self.client.get_experiment(self.experiment_id).tags)

    @request
    def set_tag(self, name: str, value: str) -> None:
        """Set or replace a tag of the experiment."""
        self.client.set_experiment_tag(self.experiment_id, name, value)

    @request
    def create(self, name: str, tags: Mapping[str, str]) -> str:
        """Start a run and return its id."""
        return str(self.client.create_run(self.experiment_id, run_name=name, tags=dict(tags)).info.run_id)

    @request
    def end(self, run_id: str, status: str) -> None:
        """Give a run its final status, FINISHED or FAILED."""
        self.client.set_terminated(run_id, status)

    @request
    def delete(self, run_id: str) -> None:
        """Hide a run; `mlflow gc` frees its space."""
        self.client.delete_run(run_id)

    def add_metrics(self, run_id: str, points: Sequence[Point]) -> None:
        """Add points to a run's curves."""
        now = int(time.time() * 1000)
        self.add_timed(run_id, [(*point, now) for point in points])

    def add_timed(self, run_id: str, points: Sequence[TimedPoint]) -> None:
        """Add points with their times to a run's curves. A point that is added again stays one point."""
        from mlflow.entities import Metric

        for part in _parts(points, METRICS_PER_BATCH):
            self._log(run_id, metrics=[Metric(name, float(value), now, step) for name, value, step, now in part])

    def add_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Set parameters of a run, which can be set only once."""
        from mlflow.entities import Param

        for part in _parts(list(params.items()), OTHERS_PER_BATCH):
            self._log(run_id, params=[Param(*item) for item in part])

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set or replace tags of a run."""
        from mlflow.entities import RunTag

        for part in _parts(list(tags.items()), OTHERS_PER_BATCH):
            self._log(run_id, tags=[RunTag(*item) for item in part])

    @request
    def _log(self, run_id: str, **batch: Sequence[Any]) -> None:
        self.client.log_batch(run_id, **batch)

    @request
    def add_file(self, run_id: str, name: str, text: str) -> None:
        """Write `text` as the artifact `name` of a run."""
        self.client.log_text(run_id, text, name)

    @request
    def add_image(self, run_id: str, name: str, png: bytes) -> None:
        """Write an image as the artifact `name` of a run."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(png)
            self.client.log_artifact(run_id, str(path))

    @request
    def add_dataset(self, run_id: str, name: str, content_hash: str, path: str, contexts: str) -> None:
        """Link a run to a dataset, identified by name and hash; an existing link stays."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(name, content_hash[:DIGEST], "local", json.dumps({"uri": path}))
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", contexts)])])

    @request
    def read_file(self, run_id: str, name: str) -> str | None:
        """Return the text of the artifact `name` of a run; None if it does not exist."""
        if name not in {file.path for file in self.client.list_artifacts(run_id)}:
            return None
        with TemporaryDirectory() as folder:
            return Path(self.client.download_artifacts(run_id, name, folder)).read_text(encoding="utf-8")


def open_store(uri: str, experiment: str, base_dir: Path) -> Store:
    """Open `experiment` in the store at `uri`, creating both if they do not exist.

    A sqlite path is relative to `base_dir`. Artifacts of a sqlite store go to the folder `mlartifacts` beside its file,
    those of a database server to `base_dir`/mlartifacts; an MLflow server decides about its own.
    """
    set_defaults()
    path = sqlite_path(uri, base_dir)
    if path is not None:
        return _open_file(path, experiment)
    check_reachable(uri)
    if is_database_server(uri):
        database = with_driver(uri)
        with named_errors(uri), alone(database):
            return _opened(database, experiment, Path(base_dir).resolve() / ARTIFACTS)
    with named_errors(uri):
        return _opened(uri, experiment, None)


def _open_file(path: Path, experiment: str) -> Store:
    """Open a sqlite store. One process at a time does so, since racing migrations corrupt a fresh file."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    uri, artifacts, revision = sqlite_uri(path), path.parent / ARTIFACTS, _get_latest_schema_revision()
    with named_errors(uri):
        path.parent.mkdir(parents=True, exist_ok=True)
        sqlite_file.check_place(path)
        with locked(path):
            if path.exists() and path.stat().st_size:
                sqlite_file.adopt(path, revision)
            else:
                sqlite_file.create(path, lambda new: _create_database(new, artifacts))
            return patiently(path, lambda: _opened(uri, experiment, artifacts))


def _create_database(path: Path, artifacts: Path) -> None:
    """Create MLflow's tables. MLflow's own experiment gets a folder in `artifacts`, as ours, not the working folder."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with sqlite_file.written_at_the_end(path):
        SqlAlchemyStore(sqlite_uri(path), artifacts.as_uri())._dispose_engine()


def _opened(uri: str, experiment: str, artifacts: Path | None) -> Store:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    return Store(client, _experiment_id(client, experiment, artifacts.as_uri() if artifacts else None), uri)


def import_mlflow() -> None:
    """Import what opening a store needs, for processes that are forked later."""
    set_defaults()
    from mlflow.store.tracking import sqlalchemy_store  # noqa: F401


def _experiment_id(client: Any, name: str, artifacts: str | None) -> str:
    """Return the id of the experiment `name`, created if it does not exist."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        kind = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens others in its GenAI mode
        try:
            return str(client.create_experiment(name, artifact_location=artifacts, tags=kind))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process may have been faster
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise TrackingError(
            f"the experiment '{name}' was deleted; restore it by `mlflow experiments restore --experiment-id "
            f"{found.experiment_id}`, or change tracking.experiment"
        )
    return str(found.experiment_id)


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
